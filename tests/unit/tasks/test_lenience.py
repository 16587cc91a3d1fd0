"""The released code's scoring, case by case (REFERENCE 4.9, 4.10)."""

import pytest

from open_crema.tasks.lenience import contained, part_of


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        ("violin", "violin", True),
        ("o", "violin", True),  # that is the trouble with it
        ("violins", "violin", False),
        ("2", "two", True),
        ("10", "ten", True),
        ("0", "zero", False),  # its digits begin with one
        ("Yes", "yes", True),
        ("", "yes", False),  # "unanswerable" by then
        ("acoustic guitar", "acoustic guitar", True),
    ],
)
def test_contained(said, answer, right):
    assert contained(said, [answer]) is right


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        ("a brown", "brown", True),  # the last word, as the answer is one word
        ("brown table", "brown", False),
        ("the left", "on the left", True),
        ("left on", "on the left", False),
        ("2", "two", True),
        ("about 2", "two", True),
        ("brown\nand more", "brown", True),
        ("br,own", "brown", True),
        (",", "brown", True),  # nothing is left: a part of everything
        ("</s>brown<pad>", "brown", True),
        ("", "brown", False),
        ("BROWN", "brown", True),
    ],
)
def test_part_of(said, answer, right):
    assert part_of(said, [answer]) is right


def test_any_of_several_answers():
    assert part_of("brown", ["red", "dark brown"])
    assert contained("brown", ["red", "dark brown"])
    assert not part_of("brown", [])
    assert not contained("brown", [])

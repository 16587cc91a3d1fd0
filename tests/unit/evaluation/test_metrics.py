import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from open_crema.backbones.base import OptionScores
from open_crema.data.sample import Sample
from open_crema.errors import CremaError
from open_crema.evaluation import metrics


def open_ended(answer, *, question="q", type="", more=()):
    return Sample("s", question, {}, (answer, *more), (), type)


def choice(answer, options, *, question="q", type=""):
    return Sample("s", question, {}, (answer,), tuple(options), type)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Red", "red"),
        ("  two \n words\t", "two words"),
        ("yes.", "yes"),
        ("Yes . ", "yes"),
        ("what?!", "what"),
        ("3.5", "3.5"),
        ("the dog", "the dog"),
        ("c#", "c#"),
        ("50%", "50%"),
        ("?", "?"),
        ("", ""),
        ("ÉTÉ", "été"),
    ],
)
def test_normalise(text, plain):
    assert metrics.normalise(text) == plain


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("Red.", ["red"], True),
        ("red", ["blue", "RED"], True),
        ("o", ["violin"], False),  # the lenient published scheme says yes
        ("a violin", ["violin"], False),
        ("violin", ["a violin"], False),
        ("", ["red"], False),
        ("", [""], False),
        (",", ["red"], False),
        ("", ["?"], False),
        ("two", ["2"], False),
        ("red", [], False),
    ],
)
def test_exact_match_is_strict(prediction, answers, right):
    assert metrics.exact_match(prediction, answers) is right


def test_of_options_that_look_alike_only_the_right_one_is_right():
    sample = choice("Yes", ["Yes", "yes."])
    assert metrics.is_correct(sample, "Yes")
    assert not metrics.is_correct(sample, "yes.")


def test_options_are_compared_by_their_mean_over_tokens():
    scores = OptionScores(
        torch.tensor([[-3.0, -4.0], [-1.0, -torch.inf]]),
        torch.tensor([[1, 4], [2, 1]]),
        torch.zeros(2, 2, dtype=torch.bool),
    )
    assert metrics.choose(scores) == [1, 0]  # -3 against -1; the sums would say the other


def test_likelihoods_that_are_not_numbers_are_refused():
    counts, greedy = torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)
    for bad in ([torch.nan, -1.0], [-torch.inf, -torch.inf]):
        with pytest.raises(CremaError, match="not finite"):
            metrics.choose(OptionScores(torch.tensor([bad]), counts, greedy))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # R: binom::binom.confint(method = "wilson")
        (50, 100, 0.4038315, 0.5961685),
        (10, 10, 0.7224672, 1.0),
        (0, 10, 0.0, 0.2775328),
        (1, 3, 0.0614920, 0.7923404),
    ],
)
def test_wilson(correct, total, low, high):
    assert metrics.wilson(correct, total) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_its_rate_inside_0_and_1(case):
    low, high = metrics.wilson(*case)
    assert 0 <= low <= case[0] / case[1] <= high <= 1
    assert low < high


@pytest.mark.parametrize("case", [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_rate(case):
    with pytest.raises(ValueError, match="is not a rate"):
        metrics.wilson(*case)


def test_chance_of_options_and_of_distinct_answers_by_type():
    samples = [
        choice("a", ["a", "b", "c", "d"], type="x"),
        open_ended("red", type="x"),
        open_ended("Red.", type="x"),
        open_ended("blue", type="x"),
        open_ended("one", type="y"),
        open_ended("green", type="x", more=("teal",)),
    ]
    assert metrics.chance(samples) == [1 / 4, 1 / 4, 1 / 4, 1 / 4, 1, 2 / 4]
    assert metrics.chance([]) == []


def test_chance_of_stated_candidates():
    def among(*candidates, answers=("red",)):
        return Sample("s", "q", {}, answers, candidates=candidates)

    samples = [
        among("red", "blue", "green"),
        among("Red.", "blue"),
        among("red", "teal", "green", "blue", answers=("Green", "teal")),
        open_ended("red"),
    ]
    # The last one states none: red, green and teal are the answers that occur.
    assert metrics.chance(samples) == [1 / 3, 1 / 2, 2 / 4, 1 / 3]


def test_majority_counts_by_question_text_and_else_overall():
    train = [
        open_ended("red", question="colour?"),
        open_ended("Red.", question="colour?"),
        open_ended("blue", question="colour?"),
        *[open_ended("two", question="how many?")] * 3,
    ]
    asked = [
        open_ended("red", question="colour?"),
        open_ended("blue", question="colour?"),
        open_ended("two", question="never seen?"),
        open_ended("red", question="never seen?"),
    ]
    assert metrics.majority(asked, train) == [True, False, True, False]


def test_majority_chooses_among_the_options():
    train = [open_ended("b"), open_ended("b"), open_ended("c"), open_ended("z"), open_ended("z")]
    assert metrics.majority([choice("b", ["a", "b", "c"], question="new")], train) == [True]
    assert metrics.majority([choice("x", ["x", "y"], question="new")], train) == [True]
    assert metrics.majority([choice("y", ["x", "y"], question="new")], train) == [False]


def test_equally_frequent_answers_do_not_depend_on_their_order():
    train = [open_ended("b"), open_ended("a")]
    for listed in (train, train[::-1]):
        assert metrics.majority([open_ended("a"), open_ended("b")], listed) == [True, False]

"""Each type: its worlds differ where it says and nowhere else, and its answers are true of them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from truth import TRUTH

from open_crema.senseqa.clips import SENSES, GroupClips, render
from open_crema.senseqa.render import Renderer
from open_crema.senseqa.sets import Group
from open_crema.senseqa.types import TYPES

SEED = 3


def group(name: str, turn: int) -> Group:
    return Group(TYPES[name], "val", SEED, turn, 4, 2 ** len(TYPES[name].flips))


@pytest.mark.parametrize("name", TYPES)
def test_answers_are_true(name: str) -> None:
    for turn in range(3):
        for clip in GroupClips(group(name, turn)):
            assert TRUTH[name](clip) == clip.question.answer, clip.question


@pytest.mark.parametrize("name", TYPES)
def test_other_senses_are_the_same_bytes_and_the_answer_is_another(name: str) -> None:
    clips = list(GroupClips(group(name, 1)))
    kind = TYPES[name]
    pairs = Counter(sense for c in clips for sense in c.question.pairs)
    assert pairs == dict.fromkeys(kind.flips, len(clips))
    for one, other in combinations(clips, 2):
        shared = [s for s in kind.flips if one.question.pairs[s] == other.question.pairs[s]]
        if not shared:
            continue
        (flipped,) = shared
        assert one.question.answer != other.question.answer
        assert one.question.text == other.question.text
        assert one.question.options == other.question.options
        assert {one.question.answer, other.question.answer} <= set(
            one.question.options or one.question.candidates
        )
        for sense in SENSES:
            same = all(one[sense][a].tobytes() == other[sense][a].tobytes() for a in one[sense])
            assert same == (sense != flipped), sense
        assert np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize("name", TYPES)
def test_sharing_hides_nothing(name: str) -> None:
    """Each world rendered in full agrees with what it shares: worlds do not differ elsewhere."""
    for turn in (0, 2):
        one = group(name, turn)
        clips = GroupClips(one)
        for variant, scene in one.asked.worlds.items():
            alone = Renderer(scene)
            assert np.array_equal(
                alone.mask(), Renderer(one.asked.worlds[(0,) * len(variant)]).mask()
            )
            for sense in SENSES:
                for array, found in render(sense, alone).items():
                    shared = clips.sense(sense, variant)[array]
                    off = np.abs(found.astype(float) - shared.astype(float)) > 0
                    # Moving away keeps a ray but for rounding, at the edge of what it meets.
                    assert off.mean() < 1e-3, (sense, array)


def test_every_need_is_a_sense_and_every_flip_a_need() -> None:
    for kind in TYPES.values():
        assert set(kind.flips) <= set(kind.needs) <= set(SENSES)
        assert kind.needs == tuple(s for s in SENSES if s in kind.needs)
    for sense in SENSES:
        assert sum(kind.flips == (sense,) for kind in TYPES.values()) >= 3

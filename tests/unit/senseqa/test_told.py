"""Clips told in words: what is asked of them can be answered from what is told."""

from __future__ import annotations

from itertools import islice

import pytest

from open_crema.data.sample import Told
from open_crema.senseqa import told
from open_crema.senseqa.captions import WORDS
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.sets import FRAMES, Question

BATCHES = 40


@pytest.fixture(scope="module")
def asked() -> dict[str, Question]:
    """The text that the LLM is given -> the question behind it."""
    return {}


@pytest.fixture(scope="module")
def drawn(asked) -> list[list[Told]]:
    real = told.sample_of

    def sample_of(question: Question):
        sample = real(question)
        asked[sample.question] = question
        return sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(told, "sample_of", sample_of)
        return list(islice(told.batches(3), BATCHES))


def whole(batch: list[Told]) -> bool:
    """Whether it is of all frames."""
    counts = {
        len(parts)
        for clip in batch
        for sense, parts in clip.captions.items()
        if sense not in ("audio", "point")
    }
    assert len(counts) == 1
    assert counts <= {1, FRAMES}
    return counts == {FRAMES}


def test_segments_are_equally_many_within_a_batch(drawn):
    """As the LLM is fed them: one a frame, or all of one frame; sound and clouds are one thing."""
    kinds = [whole(batch) for batch in drawn]
    assert 0.05 < sum(kinds) / BATCHES < 0.45
    for batch in drawn:
        assert len(batch) == 9
        for clip in batch:
            assert all(len(parts) == 1 for s, parts in clip.captions.items()
                       if s in ("audio", "point"))  # fmt: skip
            assert all(len(words) == WORDS for parts in clip.captions.values() for words in parts)


def test_what_is_asked_can_be_answered_by_the_senses_that_are_told(drawn, asked):
    kinds = set()
    for batch in drawn:
        for clip in batch:
            assert 1 <= len(clip.asked) <= 8
            assert len({text for text, _ in clip.asked}) == len(clip.asked)
            for text, answer in clip.asked:
                question = asked[text]
                assert set(question.needs) <= set(clip.captions), text
                assert answer in (question.options or question.candidates)
                kinds.add(question.type)
    assert len(kinds) > 35


def test_what_needs_time_is_asked_of_whole_clips_alone(drawn, asked):
    seen = {True: set(), False: set()}
    for batch in drawn:
        of_all = whole(batch)
        seen[of_all] |= {asked[text].type for clip in batch for text, _ in clip.asked}
    in_time = {"touch_texture", "touch_same", "touch_ridges", "touch_which", "audio_which",
               "two_rough_warm"}  # fmt: skip
    assert not in_time & seen[False]
    assert len(in_time & seen[True]) > 2


def test_senses_are_given_by_chance(drawn):
    """Often few of them, each at times, and sometimes no video."""
    clips = [clip for batch in drawn for clip in batch]
    for clip in clips:
        assert list(clip.captions) == [sense for sense in SENSES if sense in clip.captions]
    alone = sum(set(clip.captions) == {"video"} for clip in clips)
    blind = sum("video" not in clip.captions for clip in clips)
    assert alone > len(clips) / 10
    assert 0 < blind < len(clips) / 10
    assert {sense for clip in clips for sense in clip.captions} == set(SENSES)


def test_the_seed_decides():
    def first(seed: int, **options: int) -> list[list[Told]]:
        return list(islice(told.batches(seed, **options), 3))

    assert first(3) == first(3)
    assert first(3) != first(4)
    few = first(3, clips=2, more=1)
    assert [len(batch) for batch in few] == [2, 2, 2]
    assert all(len(clip.asked) <= 2 for batch in few for clip in batch)

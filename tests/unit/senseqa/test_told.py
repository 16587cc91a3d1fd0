"""Clips told in words: what is asked of them can be answered from what is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from open_crema.data.sample import Told
from open_crema.senseqa import told
from open_crema.senseqa.captions import WORDS
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.sets import FRAMES, Question
from open_crema.senseqa.types import IN_TIME, TYPES

BATCHES = 40
VIDEO_FIRST = 3
TELLING = told.Telling(clips=9, video_first=VIDEO_FIRST)


@pytest.fixture(scope="module")
def asked() -> dict[str, Question]:
    """The text that the LLM is given -> the question behind it."""
    return {}


@pytest.fixture(scope="module")
def drawn(asked) -> list[list[Told]]:
    real = told._text

    def text(question: Question, *how):
        made = real(question, *how)
        asked[made] = question
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(told, "_text", text)
        return list(islice(told.batches(3, TELLING), VIDEO_FIRST + BATCHES))[VIDEO_FIRST:]


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
            assert len({q.text for q in clip.asked}) == len(clip.asked)
            for text, answer in ((q.text, q.answer) for q in clip.asked):
                question = asked[text]
                assert set(question.needs) <= set(clip.captions), text
                assert answer in (question.options or question.candidates)
                kinds.add(question.type)
    assert len(kinds) > 35


def test_what_needs_time_is_asked_of_whole_clips_alone(drawn, asked):
    seen = {True: set(), False: set()}
    for batch in drawn:
        of_all = whole(batch)
        seen[of_all] |= {asked[q.text].type for clip in batch for q in clip.asked}
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
    assert alone > 0
    assert 0 < blind < len(clips) / 4
    assert {sense for clip in clips for sense in clip.captions} == set(SENSES)


def test_the_video_alone_comes_first():
    batches = list(islice(told.batches(3, TELLING), VIDEO_FIRST + 1))
    for batch in batches[:VIDEO_FIRST]:
        assert all(set(clip.captions) == {"video"} for clip in batch)
        assert not whole(batch)
    assert sum(len(clip.asked) for batch in batches[1:VIDEO_FIRST] for clip in batch) > 30
    assert any(set(clip.captions) != {"video"} for clip in batches[VIDEO_FIRST])


def test_most_are_asked_without_the_words_around_a_question(drawn, asked):
    texts = [q.text for batch in drawn for clip in batch for q in clip.asked]
    bare = [text for text in texts if not text.startswith("Question: ")]
    assert 0.4 < len(bare) / len(texts) < 0.9
    listed = [text for text in texts if "Option A" in text]
    assert 0 < len(listed) < 0.4 * len(texts)


def test_types_are_asked_evenly():
    """But for those that need more than one frame, which only some clips have, and those that
    clips of other types are asked about as well."""
    telling = replace(TELLING, video_first=0, clips=4, more=4)
    clips = [clip for batch in islice(told.batches(3, telling), 120) for clip in batch]
    asked = Counter(q.type for clip in clips for q in clip.asked)
    assert asked.keys() == TYPES.keys()
    still = [n for name, n in asked.items() if name not in IN_TIME]
    assert max(still) < 3 * min(still)
    assert max(asked.values()) < 1.5 * sum(asked.values()) / len(asked)
    assert min(asked.values()) > 0.25 * sum(asked.values()) / len(asked)


def test_clips_have_as_many_senses_as_is_said():
    def clips(**options) -> list[Told]:
        telling = replace(TELLING, video_first=0, **options)
        return [clip for batch in islice(told.batches(3, telling), 8) for clip in batch]

    many, few = clips(crowds=(0.95,), without_video=0.0), clips(crowds=(0.0,), without_video=1.0)
    assert sum(len(clip.captions) > 5 for clip in many) > len(many) / 2
    assert all("video" in clip.captions for clip in many)
    assert sum("video" not in clip.captions for clip in few) > len(few) / 5


def test_a_split_has_clips_of_its_own():
    train, val = (next(told.batches(3, TELLING, split=split)) for split in ("train", "val"))
    assert train != val


def test_the_seed_decides():
    def first(seed: int, **options: int) -> list[list[Told]]:
        return list(islice(told.batches(seed, replace(TELLING, **options)), 3))

    assert first(3) == first(3)
    assert first(3) != first(4)
    few = first(3, clips=2, more=1)
    assert [len(batch) for batch in few] == [2, 2, 2]
    assert all(len(clip.asked) <= 2 for batch in few for clip in batch)

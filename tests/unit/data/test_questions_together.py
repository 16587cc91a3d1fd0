"""Batches of media with several questions each: every one once an epoch, and none of another."""

from __future__ import annotations

import pytest
import torch
from test_dataset import ask, dataset

from open_crema.data import sampler
from open_crema.data.sample import Batch, Sample, Timing

COUNTS = (1, 5, 2, 9, 3, 4, 1, 6)  # questions about each of the media


def about(clip: int, count: int) -> list[Sample]:
    senses = ("video", "audio", "thermal")[: 1 + clip % 3]
    media = ask(clip, *senses).media
    return [Sample(f"{clip}/{k}", f"{k}?", dict(reversed(media.items())), ("yes",))
            for k in range(count)]  # fmt: skip


# Questions about the same media do not stand together in the file.
SAMPLES = sorted(
    (sample for clip, count in enumerate(COUNTS) for sample in about(clip, count)),
    key=lambda sample: sampler.draw("mixed", sample.id),
)


def epoch_of(epoch: int = 0, *, questions: int = 3, seed: int = 0, size: int = 3, skip: int = 0):
    batches = dataset(SAMPLES).batches(
        size, training=True, epoch=epoch, seed=seed, questions=questions, skip=skip
    )
    return list(batches)


def clip_of(sample: Sample) -> int:
    return int(sample.id.partition("/")[0])


def ids(batches: list[Batch]) -> list[list[list[str]]]:
    return [[[sample.id for sample in own] for own in batch.asked()] for batch in batches]


@pytest.mark.parametrize("questions", [2, 3, 20])
def test_all_media_once_an_epoch_with_so_many_questions_about_them(questions):
    batches = epoch_of(questions=questions)
    assert [len(batch) for batch in batches] == [3, 3, 2]
    asked = [own for batch in batches for own in batch.asked()]
    assert sorted(clip_of(own[0]) for own in asked) == list(range(len(COUNTS)))
    for own in asked:
        assert {clip_of(sample) for sample in own} == {clip_of(own[0])}
        assert len({sample.id for sample in own}) == len(own)
        assert len(own) == min(questions, COUNTS[clip_of(own[0])])


def test_the_features_are_those_of_the_media():
    for batch in epoch_of():
        for row, sample in enumerate(batch.samples):
            there = {sense for sense, x in batch.senses.items() if bool(x.present[row])}
            assert there == set(sample.media)
            numbers = batch.senses["video"].tokens[row, :, 1]
            assert torch.equal(numbers, torch.full_like(numbers, clip_of(sample)))


def test_seed_and_epoch_decide_and_nothing_else():
    assert ids(epoch_of(2, seed=4)) == ids(epoch_of(2, seed=4))
    first = ids(epoch_of(0))
    assert first != ids(epoch_of(1))
    assert first != ids(epoch_of(0, seed=1))
    # What is asked about a clip does not hang on how many clips a batch has.
    small = {own[0]: own for batch in ids(epoch_of(0, size=1)) for own in batch}
    large = {own[0]: own for batch in first for own in batch}
    assert small == large


def test_in_time_every_question_is_asked():
    seen = {
        sample.id
        for epoch in range(25)
        for batch in epoch_of(epoch)
        for own in batch.asked()
        for sample in own
    }
    assert seen == {sample.id for sample in SAMPLES}


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_what_is_skipped_is_the_beginning(skip):
    whole, rest = epoch_of(1), epoch_of(1, skip=skip)
    assert ids(rest) == ids(whole)[skip:]
    for a, b in zip(rest, whole[skip:], strict=True):
        assert all(torch.equal(a.senses[s].tokens, b.senses[s].tokens) for s in b.senses)


def test_one_question_at_a_time_is_a_plain_epoch():
    """Each question by itself, in batches that know of no others."""
    batches = epoch_of(questions=1, size=4)
    assert all(batch.others == () for batch in batches)
    asked = [sample.id for batch in batches for sample in batch.samples]
    assert sorted(asked) == sorted(sample.id for sample in SAMPLES)
    data = dataset(SAMPLES)
    assert data.rows(1) == [[i] for i in range(len(SAMPLES))]


def test_a_file_that_is_timed_otherwise_is_other_media():
    """Its segments are others, although its path is the same."""
    slow, fast = ({"video": Timing(rate=rate)} for rate in (1.0, 25.0))
    video = {"video": "video1"}
    samples = [
        Sample("a", "?", video, ("yes",), timing=slow),
        Sample("b", "?", video, ("yes",), timing=fast),
        Sample("c", "?", video, ("no",), timing=slow),
    ]
    assert dataset(samples).rows(2) == [[0, 2], [1]]


def test_a_batch_keeps_its_questions_when_senses_are_taken_out():
    batch = epoch_of()[0]
    assert any(batch.others)
    rows = [{"video"}] * len(batch)
    for less in (batch.only(["video"]), batch.where(rows), batch.to("cpu")):
        assert less.asked() == batch.asked()
    assert list(batch.where(rows).senses) == ["video"]

"""train.questions: runs that ask several questions about a clip in one step, whole and cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import assert_same_run, of_kind

import tiny
from open_crema import config as configuration
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Source
from open_crema.data.sample import Batch, Sample
from open_crema.errors import ConfigError, SenseAbsent
from open_crema.modality import get
from open_crema.training.align import captions_of
from open_crema.training.identity import digest
from open_crema.training.loop import Trainer
from open_crema.training.strategy import joint, sequential
from tiny import CutError

SENSES = ("video", "audio")
ANSWERS = ("red", "two dogs", "a cat")
COUNTS = (5, 1, 3, 4, 2, 6, 3)  # questions about each clip: 7 clips, 24 questions


class Extractor:
    """Features as a function of the file's name, wide as the tiny encoders'."""

    senses = SENSES
    modalities = {sense: get(sense) for sense in SENSES}  # noqa: RUF012

    def source(self, sample: Sample, sense: str) -> Source | SenseAbsent:
        path = sample.media.get(sense)
        return Source(path, "reader") if path else SenseAbsent(sense, "not given")

    def features(self, sample: Sample, sense: str) -> Any:
        number = int(sample.media[sense].removeprefix(sense))
        return tiny.features(sense, 4 if sense == "video" else 2, seed=number)


class Cut(FeatureDataset):
    """Stops after so many batches."""

    left: int | None = None

    def batches(self, *args: Any, **options: Any) -> Iterator[Batch]:
        for batch in super().batches(*args, **options):
            if self.left is not None:
                if not self.left:
                    raise CutError
                self.left -= 1
            yield batch


def samples(*, captions: bool = False, word: str = "dog") -> list[Sample]:
    found = []
    for clip, count in enumerate(COUNTS):
        senses = SENSES if clip % 3 else ("video",)
        media = {sense: f"{sense}{clip}" for sense in senses}
        said = dict.fromkeys(senses, (("red", word, f"word{clip}"),))
        for k in range(count):
            own = said if captions and not k else {}
            answer = ANSWERS[(clip + k) % 3]
            found.append(Sample(f"{clip}/{k}", f"what {k}", media, (answer,), captions=own))
    return found


def data(cut: int | None = None, **made: Any) -> Cut:
    found = Cut(samples(**made), Extractor(), frames=2)
    found.left = cut
    return found


def trainer(out: Path, train: FeatureDataset, **options: Any) -> Trainer:
    model = tiny.crema(*SENSES, dropout=0.1, stirred=False)
    plain = {
        "epochs": 2, "batch_size": 3, "questions": 3, "lr": 0.01, "warmup_steps": 2, **options
    }  # fmt: skip
    config = configuration.from_dict(
        {"seed": 3, "model": configuration.to_dict(model.config), "train": plain}
    )
    return Trainer(model, config, train, out)


RUNS = {
    "sequential": {"accumulate": 2, "checkpoint_every": 1},
    "joint": {"strategy": "joint", "clip": 0.5, "checkpoint_every": 2},
    "withheld": {"sense_dropout": {"kind": "random", "rate": 0.6}},
    "aligned": {
        "alignment": {"epochs": 2, "batch_size": 4, "schedule": "cosine"},
        "qformer": "alignment",
        "epochs": 1,
        "checkpoint_every": 1,
    },
}


@pytest.mark.parametrize(
    ("kind", "cut"),
    [("sequential", 4), ("joint", 2), ("withheld", 4), ("aligned", 2), ("aligned", 5)],
)
def test_a_run_cut_off_goes_on_as_if_it_had_not_been(tmp_path, kind, cut):
    """To the last bit, with the questions that the uncut run draws."""
    captions = kind == "aligned"
    whole = trainer(tmp_path / "whole", data(captions=captions), **RUNS[kind])
    whole.run()
    with pytest.raises(CutError):
        trainer(tmp_path / "cut", data(cut, captions=captions), **RUNS[kind]).run()
    resumed = trainer(tmp_path / "cut", data(captions=captions), **RUNS[kind])
    resumed.run()
    assert_same_run(resumed, whole)


def test_an_epoch_has_a_step_for_every_few_media_and_not_for_every_question(tmp_path):
    run = trainer(tmp_path, data(), epochs=2)
    run.run()
    steps = of_kind(tmp_path, "step")
    assert [(line["step"], line["epoch"]) for line in steps if line["sense"] == "video"] == [
        (0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)
    ]  # fmt: skip
    assert run.steps_per_epoch == 3


def test_the_alignment_stage_goes_by_media_too(tmp_path):
    stage = {"epochs": 2, "batch_size": 4}
    trainer(tmp_path, data(captions=True), alignment=stage, epochs=1).run()
    assert [(a["epoch"], a["step"]) for a in of_kind(tmp_path, "align")] == [
        (0, 0), (0, 1), (1, 2), (1, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", ["joint", "sequential"])
def test_micro_batches_count_by_the_tokens_of_all_their_answers(strategy):
    """Together they are the large batch, however many questions each of them has."""
    model = tiny.crema(*SENSES)
    made = data()
    large = next(made.batches(7, training=True, epoch=0, questions=4))
    parts = list(made.batches(5, training=True, epoch=0, questions=4))
    assert [sample for part in parts for own in part.asked() for sample in own] == [
        sample for own in large.asked() for sample in own
    ]
    gradients = []
    for group in ([large], parts):
        model.zero_grad()
        subs = joint(model, group) if strategy == "joint" else sequential(model, group, ["audio"])
        losses = []
        for sub in subs:
            losses.append(sub.loss.item())
            sub.loss.backward()
        gradients.append((sum(losses), model.adapter("audio").queries.grad.clone()))
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[1][1], gradients[0][1], rtol=1e-3, atol=1e-5)


def test_more_questions_are_learnt_from(tmp_path):
    """Those that only `others` have: with one question a step they would not come so soon."""
    weights = []
    for questions in (1, 3):
        run = trainer(tmp_path / str(questions), data(), questions=questions, epochs=1)
        assert run.steps_per_epoch == (8 if questions == 1 else 3)
        run.run()
        weights.append(run.model.adapter("video").queries.detach())
    assert not weights[0].equal(weights[1])


def test_a_run_is_not_continued_with_another_number_of_questions(tmp_path):
    trainer(tmp_path, data(), epochs=1).run()
    with pytest.raises(ConfigError, match=r"train\.questions"):
        trainer(tmp_path, data(), epochs=1, questions=2).run()


def test_captions_belong_to_what_a_run_is_trained_on(tmp_path):
    plain, told, other = data(), data(captions=True), data(captions=True, word="cat")
    assert len({digest(plain), digest(told), digest(other)}) == 3
    assert digest(told) == digest(data(captions=True))
    trainer(tmp_path, told, epochs=1).run()
    with pytest.raises(ConfigError, match="training questions differ"):
        trainer(tmp_path, other, epochs=1).run()


def test_all_captions_reach_the_alignment_stage_whichever_question_is_drawn():
    """They stand beside one question of the clip; a batch may begin with another."""
    made = data(captions=True)
    captions = captions_of(tiny.backbone(), made.samples)
    firsts = set()
    for epoch in range(8):
        for batch in made.batches(3, training=True, epoch=epoch, questions=2):
            for sample in batch.samples:
                firsts.add(bool(sample.captions))
                assert captions.ids[frozenset(sample.media.items())].keys() == set(sample.media)
    assert firsts == {True, False}

"""Several processes train the model that one process trains on all their micro-batches."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import EXIT, items, log, of_kind, trainer

import tiny
from open_crema import config as configuration
from open_crema import experiment, processes
from open_crema.data.sample import Sample
from open_crema.errors import ConfigError
from open_crema.storage import read_tensors
from open_crema.termination import Stopped
from open_crema.training import align, checkpoint
from open_crema.training.loop import Trainer
from process_group import together
from tiny import Questions

PLAIN = {"optimizer": "sgd", "lr": 0.05, "epochs": 2, "batch_size": 2}
# Senses that some processes do not meet in a step, and one that is rare.
PRESENCE = ({"video": 2, "audio": 2}, {"video": 3}, {"video": 1}, {"audio": 1}, {"video": 2})


def exact(out: Path, data: Questions | None = None, **train: Any) -> Trainer:
    """Without dropout, which each process draws for itself."""
    options = {**PLAIN, "dropout": 0.0, **train}
    return trainer(out, data or Questions(items(11, PRESENCE)), **options)


def of_model(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoint.latest(out / "checkpoints").place / "model.safetensors")


def assert_alike(one: Path, other: Path) -> None:
    first, second = of_model(one), of_model(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(
            second[name], tensor, atol=2e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )
    for a, b in zip(log(one), log(other), strict=True):
        for key in ("kind", "step", "epoch", "sense", "lr", "exited"):
            assert a.get(key) == b.get(key)
        for key in ("loss", "gradient"):
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-7)


RUNS = {
    "sequential": {},
    "shuffled": {"order": "shuffled", "clip": 0.1},
    "joint": {"strategy": "joint", "clip": 0.1},
    "withheld": {"sense_dropout": {"kind": "random", "rate": 0.5}},
    "decayed": {"strategy": "joint", "optimizer": "adamw", "weight_decay": 0.5, "lr": 0.01},
    "exits": {"exit": {**EXIT, "temperature": 0.3}, "epochs": 4},
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (3, 2), (4, 2)])
def test_as_one_process_with_as_many_micro_batches(tmp_path, kind, count, accumulate):
    """11 questions are 6 micro-batches: of the last step of 4 x 2, two processes have none."""
    one, other = tmp_path / "one", tmp_path / "other"
    exact(one, accumulate=accumulate * count, **RUNS[kind]).run()
    together(count, lambda rank: exact(other, accumulate=accumulate, **RUNS[kind]).run())
    assert_alike(one, other)
    assert bool(RUNS[kind].get("exit")) == any(e["exited"] for e in of_kind(other, "epoch"))


def test_a_process_reads_only_its_own(tmp_path):
    def work(rank: int) -> None:
        data = Questions(items(11, PRESENCE))
        exact(tmp_path / "run", data, epochs=1).run()
        assert len(data.given) == 3
        assert all(len(batch.samples) == 2 for _, batch in data.given[: 2 + (rank == 0)])

    together(2, work)


class Captioned(Questions):
    """Each clip with its own captions."""

    def __init__(self, count: int) -> None:
        super().__init__(items(count, PRESENCE))
        words = ["red", "dog", "cat", "two", "a"]
        self.items = [
            (
                Sample(
                    sample.id,
                    sample.question,
                    {s: f"{sample.id}.{s}" for s in features},
                    sample.answers,
                    captions={s: [words[i % 4 : i % 4 + 2]] for s in features},
                ),
                features,
            )
            for i, (sample, features) in enumerate(self.items)
        ]
        self.samples = [sample for sample, _ in self.items]


@pytest.mark.parametrize("data", [Captioned, lambda n: Questions(items(n, PRESENCE))])
def test_alignment_as_with_larger_batches(tmp_path, data):
    """12 questions: 3 steps of 2 x 2 samples, or of 4. Without random rows, which each draws."""
    stage = {"epochs": 2, "random_rows": 0, "lr": 1e-3}
    kept = {"epochs": 0, "strategy": "joint", "qformer": "always"}

    def run(out: Path, size: int) -> None:
        exact(out, data(12), alignment={**stage, "batch_size": size}, **kept).run()

    one, other = tmp_path / "one", tmp_path / "other"
    run(one, 4)
    together(2, lambda rank: run(other, 2))
    first, second = of_model(one), of_model(other)
    for name, tensor in first.items():
        torch.testing.assert_close(
            second[name], tensor, atol=2e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert [x["loss"] for x in of_kind(other, "align")] == pytest.approx(
        [x["loss"] for x in of_kind(one, "align")], rel=1e-4
    )


def test_alignment_where_a_process_has_nothing_left(tmp_path):
    """3 batches for 2 processes: the second has none in the second step."""
    stage = {"alignment": {"epochs": 1, "batch_size": 4}, "epochs": 0}
    together(2, lambda rank: exact(tmp_path / "run", Captioned(11), **stage).run())
    assert len(of_kind(tmp_path / "run", "align")) == 2


def test_dropout_differs_between_processes_and_the_model_does_not(tmp_path):
    def work(rank: int) -> None:
        made = trainer(tmp_path / "run", epochs=2)
        made.run()
        sums = [float(p.detach().double().sum()) for p in made.model.adapters.parameters()]
        assert processes.total(sums) == [2 * s for s in sums]

    together(2, work)
    assert (tmp_path / "run" / "model").exists()


def test_it_goes_on_where_it_was_killed_and_needs_as_many_processes(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options: dict[str, Any] = {"epochs": 3, "checkpoint_every": 1, "exit": EXIT}
    together(2, lambda rank: trainer(whole, **options).run())

    def die(rank: int) -> None:
        with pytest.raises(tiny.CutError):
            trainer(cut, Questions(items(), cut=3), **options).run()

    together(2, die)
    reached = checkpoint.latest(cut / "checkpoints").step
    assert 0 < reached < 6
    with pytest.raises(ConfigError, match="number of processes"):
        trainer(cut, **options).run()
    together(2, lambda rank: trainer(cut, **options).run())
    assert (whole / "log.jsonl").read_text() == (cut / "log.jsonl").read_text()
    first, second = of_model(whole), of_model(cut)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_processes_that_would_do_different_runs_are_refused_in_all_of_them(tmp_path):
    def refused(match: str, data: list[dict], **options: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            trainer(tmp_path / "run", Questions(data), **options).run()

    # As when one of them could not read a file and left its sample out.
    together(2, lambda rank: refused("training questions", items(8 - rank), epochs=1))
    together(2, lambda rank: refused("differ in their configuration;", items(8), epochs=1 + rank))

    def elsewhere(rank: int) -> None:
        with pytest.raises(ConfigError, match="checkpoint to go on from"):
            trainer(tmp_path / f"run{rank}", Questions(items(8)), epochs=2).run()

    trainer(tmp_path / "run0", Questions(items(8)), epochs=1).run()
    together(2, elsewhere)


@pytest.mark.parametrize("asked", [0, 1])
def test_all_stop_after_one_step_where_only_one_was_asked(tmp_path, asked):
    def work(rank: int) -> None:
        made = trainer(tmp_path / "run", epochs=3)
        inner = made.batches.groups

        def groups(epoch: int, skip: int):
            for step, group in enumerate(inner(epoch, skip)):
                if (epoch, step, rank) == (1, 0, asked):
                    os.kill(os.getpid(), signal.SIGTERM)
                yield group

        made.batches.groups = groups
        with pytest.raises(Stopped, match="saved"):
            made.run()
        assert made.step == 3

    together(2, work)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").step == 3


def test_validation_is_the_same_in_all(tmp_path):
    def work(rank: int) -> None:
        def validate(model):
            (mean,) = processes.total([0.25 * (1 + 2 * rank)])
            return {"accuracy": mean}

        made = trainer(tmp_path / "run", epochs=2, validate=validate)
        made.run()
        assert (made.best, made.best_step) == (1.0, 2)

    together(2, work)
    assert [e["validation"]["accuracy"] for e in of_kind(tmp_path / "run", "epoch")] == [1.0, 1.0]


def test_words_of_processes_weigh_as_their_number(tmp_path):
    """A process with more words counts for more."""
    model = tiny.crema("video", "audio")
    stage = configuration.AlignmentStageConfig(random_rows=0)
    data = Captioned(5)
    told = align.captions_of(model.backbone, data.samples)

    def loss(*places: int) -> align.WordLoss:
        torch.manual_seed(0)
        batch = tiny.batch(*(data.items[i] for i in places))
        return align.caption_loss(model, align.trained_tokens(model, batch), batch, told, stage)

    whole = loss(0, 1, 2).loss.item()

    def work(rank: int) -> None:
        part = loss(0, 1) if rank == 0 else loss(2)
        weighted = part.loss.item() * processes.share(part.tokens)
        assert processes.total([weighted])[0] == pytest.approx(whole, rel=1e-5)

    together(2, work)


@pytest.mark.parametrize("key", ["model.loading.device_map", "model.encoders.device"])
@pytest.mark.parametrize("device", ["cuda:1", "auto"])
def test_a_device_for_one_process_is_refused(tmp_path, key, device):
    config = configuration.override(
        configuration.from_dict({"out": str(tmp_path / "run")}), [f"{key}={device}"]
    )

    def work(rank: int) -> None:
        with pytest.raises(ConfigError, match=f"{key}={device}: of 2 processes"):
            experiment.train(config)

    together(2, work)
    assert not (tmp_path / "run").exists()

"""The training loop: what it writes, when it stops, and that a run cut off goes on as if it had
not been."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from open_crema import config as configuration
from open_crema.config import Config
from open_crema.errors import ConfigError, CremaError, DataError
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained
from open_crema.training import checkpoint
from open_crema.training.loop import Trainer
from tiny import CutError, Questions

SENSES = ("video", "audio")
ANSWERS = ("red", "two dogs", "a cat")
PRESENCE = ({"video": 2, "audio": 2}, {"video": 3}, {"audio": 1}, {"video": 1, "audio": 2})


def items(count: int = 10, presence: Any = PRESENCE) -> list[tiny.Item]:
    return [
        tiny.item(i, answer=ANSWERS[i % 3], **presence[i % len(presence)]) for i in range(count)
    ]


def trainer(out: Path, data: Questions | None = None, *, validate=None, **train) -> Trainer:
    """A tiny run: 10 questions in batches of 3, dropout on unless 0 is given; train: of
    TrainConfig, as data."""
    seed = train.pop("seed", 3)
    senses = train.pop("senses", SENSES)
    shape = train.pop("model", {})
    dropout = train.pop("dropout", 0.1)
    model = tiny.crema(*senses, dropout=dropout, stirred=False, **shape)
    plain = {"epochs": 3, "batch_size": 3, "lr": 0.01, "warmup_steps": 2, **train}
    config = configuration.from_dict(
        {"seed": seed, "model": configuration.to_dict(model.config), "train": plain}
    )
    data = Questions(items()) if data is None else data
    return Trainer(model, config, data, out, validate=validate)


def own(model: Crema) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def moved(before: dict[str, torch.Tensor], model: Crema) -> set[str]:
    after = own(model)
    return {n for n in before if not torch.equal(before[n], after[n])}


def log(out: Path) -> list[dict[str, Any]]:
    lines = (out / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def of_kind(out: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in log(out) if line["kind"] == kind]


def outcome(out: Path) -> dict[str, bytes]:
    """All that a run leaves and promises to be the same: log, model, newest checkpoint."""
    files = [out / "log.jsonl", *(out / "model").rglob("*")]
    files += checkpoint.latest(out / "checkpoints").place.rglob("*")
    return {str(p.relative_to(out)): p.read_bytes() for p in files if p.is_file()}


def assert_same_run(a: Trainer, b: Trainer) -> None:
    assert (a.step, a.best) == (b.step, b.best)
    assert a.exits.state() == b.exits.state()
    assert outcome(a.folder.out) == outcome(b.folder.out)


EXIT = {"enabled": True, "temperature": 0.7}  # so low that senses do exit
RUNS = {
    "sequential": {"accumulate": 2, "exit": EXIT},
    "joint": {"strategy": "joint", "accumulate": 2, "exit": EXIT, "clip": 0.5},
    "sgd": {"optimizer": "sgd", "schedule": "epoch-cosine", "exit": EXIT},
    "aligned": {"alignment": {"epochs": 1, "batch_size": 4}, "qformer": "alignment"},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_cut_off_anywhere_goes_on_as_if_it_had_not_been(tmp_path, kind):
    whole = trainer(tmp_path / "whole", **RUNS[kind])
    whole.run()
    for cut in (1, 4, 6, 10):  # in the first epoch, at the end of one, inside one
        out = tmp_path / str(cut)
        cut_off = trainer(out, Questions(items(), cut=cut), **RUNS[kind])
        with pytest.raises(CutError):
            cut_off.run()
        resumed = trainer(out, **RUNS[kind])
        resumed.run()
        assert_same_run(resumed, whole)


@pytest.mark.parametrize("kind", ["sequential", "sgd"])
def test_early_exit_takes_part_in_the_runs_above(tmp_path, kind):
    run = trainer(tmp_path, **RUNS[kind])
    run.run()
    assert set(run.exits.exited) == {"audio"}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6, 7])
def test_checkpoints_inside_an_epoch_lose_no_step(tmp_path, cut, accumulate):
    often = {"checkpoint_every": 1, "accumulate": accumulate, "exit": EXIT}
    with pytest.raises(CutError):
        trainer(tmp_path / "cut", Questions(items(), cut=cut), **often).run()
    data = Questions(items())
    resumed, whole = trainer(tmp_path / "cut", data, **often), trainer(tmp_path / "whole", **often)
    resumed.run()
    whole.run()
    assert_same_run(resumed, whole)
    assert len(data.given) == len(whole.data.given) - cut // accumulate * accumulate


def test_a_finished_run_is_not_run_again(tmp_path):
    trainer(tmp_path).run()
    data = Questions(items())
    trainer(tmp_path, data).run()
    assert data.given == []


def test_a_finished_run_goes_on_for_more_epochs(tmp_path):
    trainer(tmp_path, epochs=2, schedule="constant").run()
    longer = trainer(tmp_path, epochs=3, schedule="constant")
    longer.run()
    whole = trainer(tmp_path / "whole", epochs=3, schedule="constant")
    whole.run()
    assert log(tmp_path) == log(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.02}, r"train\.lr"),
        ({"seed": 4}, "seed"),
        ({"exit": {"enabled": True}}, r"train\.exit"),
        ({"model": {"lora": {"rank": 3}}}, r"model\.lora"),
        ({"senses": ("video", "audio", "flow")}, r"model\.senses"),
        ({"data": Questions(items(9))}, "training questions"),
    ],
)
def test_another_run_in_the_same_place_is_refused(tmp_path, change, named):
    trainer(tmp_path).run()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=f"holds a run whose .*{named}.*--fresh"):
        trainer(tmp_path, **change).run()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_fresh_discards_the_run_that_is_there(tmp_path):
    trainer(tmp_path / "old", lr=0.5).run()
    fresh, alone = trainer(tmp_path / "old"), trainer(tmp_path / "new")
    fresh.run(fresh=True)
    alone.run()
    assert_same_run(fresh, alone)


def test_what_fresh_discarded_stays_discarded_when_it_is_cut_off(tmp_path):
    aligned = {"alignment": {"epochs": 1, "batch_size": 4}}
    trainer(tmp_path, **aligned).run()
    with pytest.raises(CutError):
        trainer(tmp_path, Questions(items(), cut=1), **aligned).run(fresh=True)
    assert not (tmp_path / "model").exists()
    resumed, alone = trainer(tmp_path, **aligned), trainer(tmp_path / "alone", **aligned)
    resumed.run()
    alone.run()
    assert_same_run(resumed, alone)


def test_a_log_that_was_deleted_is_begun_anew(tmp_path):
    trainer(tmp_path, epochs=1).run()
    (tmp_path / "log.jsonl").unlink()
    trainer(tmp_path, epochs=2).run()
    assert {line["epoch"] for line in log(tmp_path)} == {1}
    (tmp_path / "log.jsonl").write_text("")
    trainer(tmp_path, epochs=3).run()
    assert {line["epoch"] for line in log(tmp_path)} == {2}


def test_the_log_has_one_line_a_sub_step_and_one_an_epoch(tmp_path):
    full = Questions(items(10, PRESENCE[:1]))
    run = trainer(tmp_path, full, accumulate=2)
    run.run()
    steps, epochs = of_kind(tmp_path, "step"), of_kind(tmp_path, "epoch")
    assert len(steps) + len(epochs) == len(log(tmp_path))
    assert [line["epoch"] for line in epochs] == [0, 1, 2]
    # 10 questions, 4 batches of 3, 2 optimizer steps an epoch
    assert [(s["step"], s["sense"]) for s in steps] == [
        (step, sense) for step in range(6) for sense in run.config.model.senses
    ]
    assert [s["epoch"] for s in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(s["loss"] > 0 and s["gradient"] > 0 for s in steps)
    assert [s["lr"] for s in steps] == [run.rate(s["step"]) for s in steps]
    assert run.exits.history["audio"][0] == pytest.approx(
        sum(s["gradient"] for s in steps[:4] if s["sense"] == "audio") / 2
    )


def test_a_joint_step_has_one_line_and_a_gradient_a_sense(tmp_path):
    trainer(tmp_path, strategy="joint", epochs=1).run()
    steps = of_kind(tmp_path, "step")
    assert [s["sense"] for s in steps] == ["all"] * 4
    assert all(set(s["gradient"]) <= set(SENSES) for s in steps)


def test_training_lowers_the_loss_and_moves_only_adapters_and_fusion(tmp_path):
    run = trainer(tmp_path, Questions(items(6, PRESENCE[:1])), epochs=15, lr=0.02)
    frozen = {n: t.clone() for n, t in run.model.state_dict().items() if "backbone." in n}
    before = own(run.model)
    run.run()
    changed = moved(before, run.model)
    assert {n.partition(".")[0] for n in changed} == {"adapters", "fusion"}
    assert {n for n in before if n.startswith("fusion")} <= changed
    after = run.model.state_dict()
    assert all(torch.equal(after[n], t) for n, t in frozen.items())
    losses = [s["loss"] for s in of_kind(tmp_path, "step")]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_the_shared_q_former_is_trained_when_asked(tmp_path):
    run = trainer(tmp_path, strategy="joint", qformer="always", epochs=1)
    before = own(run.model)
    run.run()
    assert any(n.startswith("qformer") for n in moved(before, run.model))
    with pytest.raises(ConfigError, match=r"qformer=always needs train\.strategy=joint"):
        trainer(tmp_path / "other", qformer="always")


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(DataError, match="no question"):
        trainer(tmp_path, Questions([]))


def test_no_epochs_save_the_model_as_it_is(tmp_path):
    run = trainer(tmp_path, epochs=0)
    before = own(run.model)
    folder = run.run()
    loaded = from_pretrained(folder, backbone=run.model.backbone)
    assert not moved(before, loaded)


@pytest.mark.parametrize("strategy", ["sequential", "joint"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_questions_without_any_sense_teach_nothing(tmp_path, strategy, accumulate):
    """Nothing that is trained is in their way to the answer."""
    run = trainer(
        tmp_path,
        Questions(items(4, ({},))),
        strategy=strategy,
        accumulate=accumulate,
        batch_size=1,
    )
    before = own(run.model)
    run.run()
    assert moved(before, run.model) == set()
    assert run.step == 3 * -(-4 // accumulate)
    assert len(of_kind(tmp_path, "epoch")) == 3


@pytest.mark.parametrize("strategy", ["sequential", "joint"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_of_which_some_have_no_sense(tmp_path, strategy, accumulate):
    data = Questions(items(6, ({}, {"video": 2}, {"audio": 1})))
    run = trainer(tmp_path, data, strategy=strategy, accumulate=accumulate, batch_size=1)
    before = own(run.model)
    run.run()
    changed = moved(before, run.model)
    assert {n.split(".")[1] for n in changed if n.startswith("adapters")} == set(SENSES)


def test_an_exited_sense_is_no_longer_trained_in_joint_training(tmp_path):
    exits = {"enabled": True, "joint": "freeze"}
    data = Questions(items(4, PRESENCE[:1]))
    run = trainer(tmp_path, data, strategy="joint", exit=exits)
    run.exits.exited["audio"] = 0
    before = own(run.model)
    run.run()
    changed = moved(before, run.model)
    assert {n.split(".")[1] for n in changed if n.startswith("adapters")} == {"video"}
    assert all(set(s["gradient"]) == {"video"} for s in of_kind(tmp_path, "step"))


def test_an_exit_that_is_only_observed_changes_nothing(tmp_path):
    observed = {**EXIT, "joint": "observe", "temperature": 1e-6}
    run = trainer(tmp_path / "a", strategy="joint", exit=observed)
    run.run()
    assert set(run.exits.exited) == set(SENSES)
    without = trainer(tmp_path / "b", strategy="joint")
    without.run()
    assert moved(own(without.model), run.model) == set()
    assert len(of_kind(tmp_path / "a", "epoch")) == 3


@pytest.mark.parametrize("strategy", ["sequential", "joint"])
def test_training_ends_when_all_senses_have_exited(tmp_path, strategy):
    validated = []

    def validate(model: Crema) -> dict[str, float]:
        validated.append(1)
        return {"accuracy": 0.5}

    run = trainer(
        tmp_path,
        strategy=strategy,
        exit={"enabled": True, "temperature": 1e-6},
        epochs=9,
        validate_every=4,
        validate=validate,
    )
    run.run()
    assert [line["exited"] for line in of_kind(tmp_path, "epoch")] == [{}, {"video": 1, "audio": 1}]
    assert validated == [1]  # the last epoch always is
    assert (tmp_path / "model" / "config.json").exists()
    data = Questions(items())
    again = trainer(
        tmp_path,
        data,
        strategy=strategy,
        exit={"enabled": True, "temperature": 1e-6},
        epochs=9,
        validate_every=4,
        validate=validate,
    )
    again.run()
    assert data.given == []


def test_the_best_epoch_by_validation_is_saved(tmp_path):
    scores, states = iter([0.2, 0.8, 0.8, 0.1]), []

    def validate(model: Crema) -> dict[str, float]:
        assert not model.training
        states.append(own(model))
        return {"accuracy": next(scores), "n": 5}

    run = trainer(tmp_path, epochs=4, validate=validate)
    folder = run.run()
    saved = from_pretrained(folder, backbone=run.model.backbone)
    assert moved(states[1], saved) == set()  # the first of equals
    assert moved(states[3], saved)
    assert moved(states[3], run.model) == set()
    assert [line["validation"]["accuracy"] for line in of_kind(tmp_path, "epoch")] == [
        0.2,
        0.8,
        0.8,
        0.1,
    ]
    assert configuration.load(folder / "run.yaml") == run.config


def test_the_best_is_remembered_over_a_cut(tmp_path):
    def validate(model: Crema) -> dict[str, float]:
        return {"accuracy": 0.9 if len(data.given) <= 4 else 0.5}

    data = Questions(items(), cut=6)
    with pytest.raises(CutError):
        trainer(tmp_path, data, validate=validate).run()
    resumed = trainer(tmp_path, validate=lambda model: {"accuracy": 0.5})
    resumed.run()
    best = from_pretrained(tmp_path / "model", backbone=resumed.model.backbone)
    assert resumed.best == 0.9
    assert moved(own(resumed.model), best)


def test_validation_is_every_so_many_epochs_and_the_last(tmp_path):
    run = trainer(tmp_path, epochs=5, validate_every=2, validate=lambda model: {"accuracy": 0.5})
    run.run()
    epochs = of_kind(tmp_path, "epoch")
    assert [line["epoch"] for line in epochs if "validation" in line] == [1, 3, 4]


@pytest.mark.parametrize("strategy", ["sequential", "joint"])
def test_bf16_stays_near_fp32(tmp_path, strategy):
    losses = {}
    for precision in ("fp32", "bf16"):
        run = trainer(tmp_path / precision, strategy=strategy, precision=precision, lr=1e-3)
        run.run()
        losses[precision] = torch.tensor([s["loss"] for s in of_kind(tmp_path / precision, "step")])
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
    assert torch.allclose(losses["bf16"], losses["fp32"], rtol=0.02)
    assert not torch.equal(losses["bf16"], losses["fp32"])


def test_bf16_trains_the_q_former_behind_a_sense_that_has_exited(tmp_path):
    """A weight that autocast has cast without a gradient must not be reused where one is due."""
    run = trainer(
        tmp_path,
        Questions(items(4, PRESENCE[:1])),
        strategy="joint",
        qformer="always",
        precision="bf16",
        epochs=1,
        exit={"enabled": True},
    )
    run.exits.exited["video"] = 0  # it goes first, without a gradient
    before = own(run.model)
    run.run()
    matrices = {n for n in before if n.startswith("qformer") and before[n].ndim == 2}
    assert matrices
    assert matrices <= moved(before, run.model)


def test_clipping_bounds_the_step(tmp_path):
    """Plain gradient descent moves by at most lr times the clipped norm."""
    run = trainer(
        tmp_path,
        strategy="joint",
        optimizer="sgd",
        lr=1.0,
        schedule="constant",
        weight_decay=0.0,
        clip=1e-3,
        batch_size=10,
        epochs=1,
    )
    before = own(run.model)
    run.run()
    after = own(run.model)
    distance = (
        sum(float((after[n].float() - before[n].float()).square().sum()) for n in before) ** 0.5
    )
    assert distance == pytest.approx(1e-3, rel=0.01)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    run = trainer(tmp_path)
    with torch.no_grad():
        run.model.backbone.llm.get_input_embeddings().weight.fill_(float("nan"))
    before = own(run.model)
    with pytest.raises(CremaError, match=r"the loss of step 0 \(video\) is nan: lower train\.lr"):
        run.run()
    assert moved(before, run.model) == set()


def test_the_number_of_threads_is_the_run_s_alone(tmp_path):
    seen = []

    def validate(model: Crema) -> dict[str, float]:
        seen.append(torch.get_num_threads())
        return {"accuracy": 0.5}

    assert torch.get_num_threads() == 1
    trainer(tmp_path / "a", threads=2, epochs=1, validate=validate).run()
    assert (seen, torch.get_num_threads()) == ([2], 1)
    with pytest.raises(CutError):
        trainer(tmp_path / "b", Questions(items(), cut=1), threads=2).run()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("qformer", "parts"),
    [("frozen", {"adapters", "fusion"}), ("alignment", {"adapters", "fusion", "qformer"})],
)
def test_alignment_comes_first_and_is_logged(tmp_path, qformer, parts):
    run = trainer(
        tmp_path,
        Questions(items(8, PRESENCE[:1])),
        epochs=0,
        qformer=qformer,
        alignment={"epochs": 2, "batch_size": 3, "random_rows": 20},
    )
    before = own(run.model)
    run.run()
    lines = log(tmp_path)
    assert [(s["kind"], s["epoch"], s["step"]) for s in lines] == [
        ("align", i // 3, i) for i in range(6)
    ]
    assert {n.partition(".")[0] for n in moved(before, run.model)} == parts
    assert not any(p.requires_grad for p in run.model.qformer.parameters())


def test_the_configuration_is_untouched(tmp_path):
    run = trainer(tmp_path, epochs=1)
    before = dataclasses.replace(run.config)
    run.run()
    assert run.config == before
    assert isinstance(run.config, Config)

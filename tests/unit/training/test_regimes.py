"""Ways to train: senses withheld, sub-steps in shuffled order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import EXIT, assert_same_run, items, of_kind, trainer

import tiny
from open_crema.data.sampler import shuffled
from open_crema.data.sense_dropout import withhold
from open_crema.training.optimizer import build_optimizer, set_rate
from tiny import CutError, Questions

SENSES = ("video", "audio", "flow")
PRESENCE = (
    {"video": 2, "audio": 2, "flow": 2},
    {"video": 3, "flow": 3},
    {"audio": 1},
    {"video": 1, "audio": 2, "flow": 1},
)
RANDOM = {"kind": "random", "rate": 0.4}
STRUCTURED = {"kind": "structured", "rate": 0.8}
DROPOUTS = {"random": RANDOM, "structured": STRUCTURED, "kept": {**RANDOM, "keep": ["audio"]}}
dropouts = pytest.mark.parametrize("dropout", DROPOUTS.values(), ids=DROPOUTS)
strategies = pytest.mark.parametrize("strategy", ["sequential", "joint"])


def run(out: Path, data: Questions | None = None, **train: Any):
    data = data or Questions(items(10, PRESENCE))
    return trainer(out, data, **{"senses": SENSES, "batch_size": 2, "accumulate": 2, **train})


@strategies
@dropouts
def test_sense_dropout_is_a_plain_loop_that_masks_by_hand(tmp_path, strategy, dropout):
    """Each step from the weights of the step before, every pass run whole, masks set in place."""
    still = {"model": {"qformer": {"dropout": 0.0}, "lora": {"dropout": 0.0}}}
    options = {"strategy": strategy, "optimizer": "sgd", "schedule": "constant", "epochs": 2}
    made = run(tmp_path / "run", sense_dropout=dropout, **still, **options)
    model = run(tmp_path / "plain", **still).model
    made.run()
    config, data = made.config.train, Questions(items(10, PRESENCE))
    stepper = build_optimizer(model, config)
    set_rate(stepper, config.lr)
    model.train()
    expected, step, masked = [], 0, 0
    for epoch in range(2):
        batches = list(data.batches(2, training=True, epoch=epoch, seed=3))
        for start in range(0, len(batches), 2):
            group = batches[start : start + 2]
            kept = withhold(group, config.sense_dropout, SENSES, seed=3, epoch=epoch, step=step)
            for batch, left in zip(group, kept, strict=True):
                for sense, x in batch.senses.items():
                    there = (
                        left.senses[sense].present if sense in left.senses else x.present & False
                    )
                    masked += int((x.present & ~there).sum())
                    x.mask[~there] = False  # the features are there, and never attended
            counts = [sum(len(t) for own in model.targets(b) for t in own) for b in group]
            weights = torch.tensor(counts) * 1.0
            there = [s for s in SENSES if any(s in model.senses_in(b) for b in group)]
            for turn in there if strategy == "sequential" else ["all"]:
                total = sum(
                    model(b).loss * w for b, w in zip(group, weights / weights.sum(), strict=True)
                )
                expected.append((step, turn, total.item()))
                total.backward()
                for name in SENSES:
                    if turn not in ("all", name):
                        model.adapters[name].zero_grad()
                stepper.step()
                stepper.zero_grad()
            step += 1
    found = [(s["step"], s["sense"], s["loss"]) for s in of_kind(tmp_path / "run", "step")]
    assert masked > 10
    assert [f[:2] for f in found] == [e[:2] for e in expected]
    assert [f[2] for f in found] == pytest.approx([e[2] for e in expected], rel=1e-4)


@pytest.mark.parametrize(
    ("strategy", "dropout"), [("sequential", STRUCTURED), ("joint", RANDOM)], ids=["seq", "joint"]
)
def test_a_run_with_senses_withheld_goes_on_as_if_it_had_not_been_cut(tmp_path, strategy, dropout):
    options = {
        "strategy": strategy,
        "sense_dropout": dropout,
        "order": "shuffled",
        "exit": EXIT,
        "checkpoint_every": 1,
        "alignment": {"epochs": 1, "batch_size": 4},
    }
    whole = run(tmp_path / "whole", **options)
    whole.run()
    for cut in (5, 10):  # three batches are the alignment's
        with pytest.raises(CutError):
            run(tmp_path / str(cut), Questions(items(10, PRESENCE), cut=cut), **options).run()
        resumed = run(tmp_path / str(cut), **options)
        resumed.run()
        assert_same_run(resumed, whole)


def test_a_sense_withheld_from_a_whole_step_has_no_sub_step_nor_gradient(tmp_path):
    full = [tiny.item(i, video=2, audio=2, flow=2) for i in range(8)]
    seen = {}
    for strategy in ("sequential", "joint"):
        options = {"strategy": strategy, "epochs": 4, "sense_dropout": STRUCTURED}
        made = run(tmp_path / strategy, Questions(full), **options)
        made.run()
        steps: dict[int, set[str]] = {}
        for line in of_kind(tmp_path / strategy, "step"):
            own = [line["sense"]] if strategy == "sequential" else line["gradient"]
            steps.setdefault(line["step"], set()).update(own)
            gradients = (
                [line["gradient"]] if strategy == "sequential" else line["gradient"].values()
            )
            assert all(g > 0 for g in gradients)
        seen[strategy] = [steps[i] for i in range(made.step)]
    assert seen["sequential"] == seen["joint"]
    assert len({frozenset(own) for own in seen["joint"]}) > 3


def test_sub_steps_come_in_an_order_of_their_mini_batch(tmp_path):
    full = [tiny.item(i, video=2, audio=2, flow=2) for i in range(6)]
    steps: dict[str, dict[int, list[str]]] = {"fixed": {}, "shuffled": {}}
    losses = {}
    for order, found in steps.items():
        options = {"accumulate": 1, "epochs": 4, "senses": ("flow", "video", "audio")}
        run(tmp_path / order, Questions(full), order=order, **options).run()
        lines = of_kind(tmp_path / order, "step")
        for line in lines:
            found.setdefault(line["step"], []).append(line["sense"])
        losses[order] = [line["loss"] for line in lines]
    assert set(map(tuple, steps["fixed"].values())) == {("flow", "video", "audio")}
    assert steps["shuffled"] == {s: shuffled(SENSES, 3, s) for s in range(12)}
    assert len(set(map(tuple, steps["shuffled"].values()))) > 3
    assert losses["fixed"] != losses["shuffled"]


def test_the_alignment_is_given_fewer_senses_too(tmp_path):
    stage = {"alignment": {"epochs": 2, "batch_size": 4}, "epochs": 0}
    losses = []
    for place, dropout in (("with", RANDOM), ("without", {})):
        run(tmp_path / place, sense_dropout=dropout, **stage).run()
        losses.append([line["loss"] for line in of_kind(tmp_path / place, "align")])
    assert len(losses[0]) == len(losses[1]) == 6
    assert losses[0] != losses[1]


def test_validation_has_every_sense(tmp_path):
    """What is withheld is the training batches' own: the data set gives all there is."""
    data = Questions(items(8, PRESENCE[:1]))
    run(tmp_path, data, sense_dropout={"kind": "random", "rate": 0.9}).run()
    assert all(bool(x.present.all()) for _, batch in data.given for x in batch.senses.values())
    assert all(set(batch.senses) == set(SENSES) for _, batch in data.given)

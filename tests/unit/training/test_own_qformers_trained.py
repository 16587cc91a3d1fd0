"""The paper's baselines in the same trainer: strategies, early exit, resumption."""

from __future__ import annotations

import pytest
import torch
from test_loop import EXIT, items, of_kind, outcome

import tiny
from open_crema import config
from open_crema.errors import ConfigError
from open_crema.model.files import from_pretrained
from open_crema.training.early_exit import gradient_figure
from open_crema.training.loop import Trainer
from tiny import CutError, Questions

SENSES = ("video", "audio")


def trainer(out, data=None, **train) -> Trainer:
    model = tiny.crema(*SENSES, qformer={"own": "each"}, fusion={"kind": "concat"}, dropout=0.1)
    said = {
        "model": config.to_dict(model.config),
        "train": {"epochs": 2, "batch_size": 3, "lr": 1e-2, "warmup_steps": 1, **train},
    }
    return Trainer(model, config.from_dict(said), data or Questions(items()), out)


def own(model, sense: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.adapter(sense).own.parameters()])


@pytest.mark.parametrize("strategy", ["sequential", "joint"])
def test_every_own_qformer_moves_and_the_shared_one_stays(tmp_path, strategy):
    made = trainer(tmp_path, strategy=strategy)
    start = {s: own(made.model, s) for s in SENSES}
    shared = {n: t.clone() for n, t in made.model.qformer.state_dict().items()}
    saved = made.run()
    trained = from_pretrained(saved, backbone=tiny.backbone())
    for sense in SENSES:
        assert not torch.equal(own(trained, sense), start[sense])
        assert torch.equal(own(trained, sense), own(made.model, sense))
    assert not torch.equal(own(trained, "video"), own(trained, "audio"))
    assert all(torch.equal(t, shared[n]) for n, t in trained.qformer.state_dict().items())
    names = {"all"} if strategy == "joint" else set(SENSES)
    assert {line["sense"] for line in of_kind(tmp_path, "step")} == names


@pytest.mark.parametrize("strategy", ["sequential", "joint"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path, strategy):
    whole = trainer(tmp_path / "whole", strategy=strategy, checkpoint_every=1)
    whole.run()
    cut = trainer(
        tmp_path / "cut", Questions(items(), cut=3), strategy=strategy, checkpoint_every=1
    )
    with pytest.raises(CutError):
        cut.run()
    trainer(tmp_path / "cut", strategy=strategy, checkpoint_every=1).run()
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("strategy", "metric"), [("sequential", "lora-l2"), ("joint", "mmqa-mean-abs")]
)
def test_senses_exit_by_either_metric(tmp_path, strategy, metric):
    watch = {**EXIT, "metric": metric, "temperature": 1e-6}
    made = trainer(tmp_path, strategy=strategy, exit=watch, epochs=4)
    made.run()
    assert made.exits.exited == {"video": 1, "audio": 1}, "every gradient is above 1e-6 of another"
    assert made.epochs == 2
    last = of_kind(tmp_path, "epoch")[-1]
    assert set(last["exited"]) == set(SENSES)


def test_the_released_metric_is_over_what_lora_would_have_updated():
    model = tiny.crema(*SENSES, qformer={"own": "each"})
    model.train()
    model(tiny.batch(tiny.item(0, video=2, audio=2))).loss.backward()
    layers = model.adapter("audio").own.layers
    parts = [w.grad for x in layers for w in (x.attention.query.weight, x.attention.value.weight)]
    expected = float(torch.cat([g.flatten() for g in parts]).norm())
    assert gradient_figure(model.adapter("audio"), "lora-l2") == pytest.approx(expected)
    assert expected > 0


@pytest.mark.parametrize("stage", ["alignment", "always"])
def test_a_shared_qformer_that_nobody_uses_is_not_to_be_trained(stage):
    strategy = {"strategy": "joint", "qformer": stage}
    with pytest.raises(ConfigError, match=rf"train\.qformer={stage} trains the Q-Former.*frozen"):
        config.from_dict({"model": {"qformer": {"own": "each"}}, "train": strategy})


def test_a_new_sense_starts_as_the_shared_one_or_as_another_senses_own():
    model = tiny.crema(*SENSES, qformer={"own": "each"})  # stirred: each has moved
    shared = torch.cat([p.detach().flatten() for p in model.qformer.parameters()])
    model.add_sense("flow", tiny.WIDTHS["flow"])
    model.add_sense("depth", tiny.WIDTHS["depth"], like="video")
    assert torch.equal(own(model, "flow"), shared)
    assert torch.equal(own(model, "depth"), own(model, "video"))
    assert not torch.equal(own(model, "video"), shared)
    fresh = tiny.crema(*SENSES, qformer={"own": "each"}, stirred=False)
    assert torch.equal(own(fresh, "video"), own(fresh, "audio"))

"""Whole training runs of the published loop: losses, weights, gradient norms and exits."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden.official import OURS, Golden, batch_of, build, to_ours
from open_crema.config import ExitConfig, TrainConfig, from_dict
from open_crema.training.early_exit import EarlyExit, gradient_figure
from open_crema.training.optimizer import build_optimizer
from open_crema.training.strategy import joint, sequential


@pytest.fixture(scope="module")
def golden(trace_file: Path) -> Golden:
    return Golden.read(trace_file)


def test_trace(golden: Golden) -> None:
    info = golden.info
    assert info["error"] is None
    if info["accum"] != 1:
        pytest.skip("the released accumulation is broken; ours has its own tests")
    is_sequential = "-seq" in info["task"]
    watched = "gradsel-es" in info["task"]
    model = build(golden, golden.group("init/"))
    batches = [
        batch_of(golden, golden.group(f"raw{i}/"), golden.group(f"batch{i}/"))
        for i in range(info["iters"])
        if golden.group(f"raw{i}/")
    ]
    optimizer = build_optimizer(
        model,
        from_dict(
            {
                "optimizer": info["optimizer"],
                "lr": info["lr"],
                "weight_decay": info["weight_decay"] if info["optimizer"] == "adamw" else 0.0,
                "betas": info["betas"],
            },
            schema=TrainConfig,
        ),
    )
    exits = EarlyExit(
        ExitConfig(
            enabled=watched,
            metric="lora-l2",
            history="last-step" if is_sequential else "epoch-mean",
            temperature=info["es_temperature"],
            first_epoch=info["lazy_epoch"],
            joint="observe",
        )
    )
    senses = [OURS[m] for m in golden.modalities]
    recorded = iter(info["steps"])
    for epoch in range(info["epochs"]):
        for iteration in range(info["iters"]):
            batch = batches[iteration % len(batches)]
            subs = (
                sequential(model, [batch], exits.live(senses))
                if is_sequential
                else joint(model, [batch])
            )
            for sub in subs:
                step = next(recorded)
                place = f"epoch {epoch}, iteration {iteration}, {step['modality']}"
                assert (step["epoch"], step["iter"]) == (epoch, iteration)
                expected = "joint" if sub.sense is None else sub.sense
                assert OURS.get(step["modality"].removesuffix("-skip"), "joint") == expected, place
                assert abs(sub.loss.item() - step["loss"]) <= 1e-4, place
                sub.loss.backward()
                live = senses if sub.sense is None else [sub.sense]
                norms = [gradient_figure(model.adapters[s], "lora-l2") for s in live]
                if step.get("gradsel_norm"):
                    assert norms == pytest.approx(step["gradsel_norm"], rel=1e-3), place
                if watched:
                    for sense in live:
                        exits.observe(sense, model.adapters[sense])
                optimizer.step()
                optimizer.zero_grad()
        exits.end_epoch(epoch)
        check_epoch(golden, model, exits, epoch)
    assert next(recorded, None) is None


def check_epoch(golden: Golden, model, exits: EarlyExit, epoch: int) -> None:
    info = golden.info
    record = info["epoch_records"][epoch]
    assert record["epoch"] == epoch
    weights = golden.group(f"after_epoch{epoch}/")
    tolerance = 1e-6 if info["optimizer"] == "sgd" else 1e-3
    for name, theirs in to_ours(model, golden.modalities, weights).items():
        worst = (model.get_parameter(name) - theirs).abs().max().item()
        assert worst <= tolerance, f"{name} after epoch {epoch}: off by {worst:.2e}"
    for m in golden.modalities:
        sense = OURS[m]
        ticker = record["es_ticker"].get(m, record["es_ticker"].get(f"{m}-skip", False))
        assert (sense in exits.exited) == ticker, f"{m} after epoch {epoch}"
        when = record["post_es_ticker"].get(m, -1)
        assert exits.exited.get(sense, -1) == when, f"{m}: exit epoch"
        theirs = record["history"].get(m, record["history"].get(f"{m}-skip", []))
        ours = exits.history.get(sense, [])
        assert ours == pytest.approx(theirs[: len(ours)], rel=1e-3, abs=1e-12), m
        assert not any(theirs[len(ours) :]), "after its exit the released history appends zeros"

"""Optimizer groups and schedules against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

import tiny
from open_crema.config import TrainConfig
from open_crema.training.optimizer import WARMUP_START, build_optimizer, schedule, set_rate


def test_matrices_decay_and_vectors_do_not_and_the_frozen_is_left_out():
    model = tiny.crema("video", "audio", "point")
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.07))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    found = {n: decay.pop(id(p)) for n, p in model.named_parameters() if id(p) in decay}
    assert not decay
    assert set(found) == {n for n, _ in model.named_parameters() if n[:3] in ("ada", "fus")}
    for name, own in found.items():
        vector = name.endswith(("bias", "norm.weight"))
        assert own == (0.0 if vector else 0.07), name
    assert found["adapters.audio.queries"] == 0.07
    assert found["adapters.audio.lora.0.query.b"] == 0.07
    assert found["fusion.blocks.audio"] == 0.07
    assert found["fusion.bias"] == 0.0


def test_adamw_is_the_published_one():
    optimizer = build_optimizer(tiny.crema("video"), TrainConfig(betas=(0.8, 0.99), lr=0.3))
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.99), 1e-8, 0.3)


def test_sgd_is_plain():
    optimizer = build_optimizer(tiny.crema("video"), TrainConfig(optimizer="sgd", lr=0.3))
    assert type(optimizer) is torch.optim.SGD
    assert {g["momentum"] for g in optimizer.param_groups} == {0}
    parameter = optimizer.param_groups[0]["params"][0]
    before = parameter.detach().clone()
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    expected = before - 0.3 * (1 + 0.05 * before)
    assert torch.allclose(parameter, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_has_no_gradient_neither_moves_nor_decays(kind):
    model = tiny.crema("video", "audio", "flow")
    optimizer = build_optimizer(model, TrainConfig(optimizer=kind, lr=0.1, weight_decay=0.5))
    batch = tiny.batch(tiny.item(1, video=2, audio=1))
    for _ in range(2):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        model(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        still = "flow" in name or not parameter.requires_grad
        assert torch.equal(parameter, before[name]) == still, name


def rates(steps_per_epoch: int, upto: int, **config) -> list[float]:
    rate = schedule(TrainConfig(**config), steps_per_epoch)
    return [rate(step) for step in range(upto)]


def half_cosine(share: float, high: float = 1.0, low: float = 0.0) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def test_constant():
    assert rates(3, 9, lr=0.1, schedule="constant", warmup_steps=4) == [0.1] * 9


def test_cosine_rises_then_falls_over_the_whole_run():
    found = rates(5, 10, lr=1.0, min_lr=0.1, schedule="cosine", warmup_steps=4, epochs=2)
    rise = [WARMUP_START + (1 - WARMUP_START) * s / 4 for s in range(4)]
    fall = [half_cosine(s / 6, low=0.1) for s in range(6)]
    assert found == pytest.approx(rise + fall, rel=1e-12)
    assert found[4] == 1.0
    rate = schedule(TrainConfig(lr=1.0, min_lr=0.1, schedule="cosine", warmup_steps=4, epochs=2), 5)
    assert rate(10) == pytest.approx(0.1)
    assert rate(1000) == pytest.approx(0.1), "past its end it stays low"


def test_the_released_schedule():
    # hand-computed: 4 epochs of 3 steps, warm-up of 2 steps from 1e-8
    found = rates(3, 12, lr=2e-4, min_lr=1e-5, schedule="epoch-cosine", warmup_steps=2, epochs=4)
    first = [1e-8, 1e-8 + (2e-4 - 1e-8) / 2, 2e-4]
    later = [1e-5 + 1.9e-4 * share for share in (0.8535533905932737, 0.5, 0.14644660940672624)]
    assert found == pytest.approx([*first, *(r for r in later for _ in range(3))], rel=1e-9)


def test_the_released_warm_up_is_cut_off_by_the_end_of_its_epoch():
    found = rates(2, 4, lr=1.0, schedule="epoch-cosine", warmup_steps=1000, epochs=4)
    assert found[:2] == pytest.approx([1e-8, 1e-3], rel=1e-4)
    assert found[2:] == pytest.approx([half_cosine(0.25)] * 2)


def test_our_warm_up_may_last_longer_than_an_epoch_or_the_run():
    found = rates(2, 4, lr=1.0, schedule="cosine", warmup_steps=8, epochs=2)
    assert found == pytest.approx([1e-8, 0.125, 0.25, 0.375], rel=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "epoch-cosine"])
def test_no_warm_up_starts_at_the_full_rate(kind):
    assert rates(4, 1, lr=0.5, schedule=kind, warmup_steps=0)[0] == 0.5


def test_set_rate_reaches_every_group():
    optimizer = build_optimizer(tiny.crema("video"), TrainConfig())
    set_rate(optimizer, 0.125)
    assert [g["lr"] for g in optimizer.param_groups] == [0.125, 0.125]

"""Checkpoints: whole or not there, exact, and named when they cannot be used."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from open_crema.config import TrainConfig
from open_crema.errors import WeightsError
from open_crema.model.crema import Crema
from open_crema.storage import read_tensors
from open_crema.training import checkpoint
from open_crema.training.optimizer import build_optimizer

BATCH = tiny.batch(tiny.item(1, video=2, audio=1), tiny.item(2, video=1))


def step(model: Crema, optimizer: torch.optim.Optimizer) -> None:
    model(BATCH).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(**options) -> tuple[Crema, torch.optim.Optimizer]:
    model = tiny.crema("video", "audio")
    optimizer = build_optimizer(model, TrainConfig(lr=0.01, **options))
    step(model, optimizer)
    return model, optimizer


def own(model: Crema) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("backbone.")}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_is_restored_goes_on_exactly(tmp_path, kind):
    model, optimizer = trained(optimizer=kind)
    checkpoint.save(tmp_path, 1, model, optimizer, {"best": 0.5})
    other = tiny.crema("video", "audio", seed=9)
    fresh = build_optimizer(other, TrainConfig(lr=0.01, optimizer=kind))
    step(other, fresh)  # what it had learnt is forgotten
    place = checkpoint.latest(tmp_path)
    assert checkpoint.read_state(place) == {"step": 1, "best": 0.5}
    checkpoint.restore(place, other, fresh)
    for _ in range(2):
        step(model, optimizer)
        step(other, fresh)
    expected, found = own(model), own(other)
    assert all(torch.equal(expected[n], found[n]) for n in expected)


def test_moments_of_what_was_never_trained_stay_absent(tmp_path):
    model = tiny.crema("video", "audio")
    optimizer = build_optimizer(model, TrainConfig())
    checkpoint.save(tmp_path, 0, model, optimizer, {})
    checkpoint.restore(checkpoint.latest(tmp_path), model, optimizer)
    assert dict(optimizer.state) == {}


def test_the_frozen_llm_is_not_in_it(tmp_path):
    checkpoint.save(tmp_path, 1, *trained(), {})
    names = read_tensors(checkpoint.latest(tmp_path) / "model.safetensors").keys()
    assert {n.partition(".")[0] for n in names} == {"adapters", "fusion", "qformer"}


def test_only_the_newest_is_kept(tmp_path):
    model, optimizer = trained()
    (tmp_path / ".step-00000001.new-123").mkdir()  # of a process that was killed
    for number in (1, 9, 10, 100_000_000):
        checkpoint.save(tmp_path, number, model, optimizer, {})
        assert [p.name for p in tmp_path.iterdir()] == [f"step-{number:08d}"]
        assert checkpoint.read_state(checkpoint.latest(tmp_path))["step"] == number


def test_no_checkpoint(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("writer", ["write_tensors", "write_json"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one(tmp_path, monkeypatch, writer):
    model, optimizer = trained()
    checkpoint.save(tmp_path, 1, model, optimizer, {})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    real = getattr(checkpoint, writer)

    def full_disk(path: Path, data: object) -> None:
        real(path, data)
        assert checkpoint.latest(tmp_path).name == "step-00000001"
        if path.name != "model.safetensors":
            raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, writer, full_disk)
    with pytest.raises(WeightsError, match="no space"):
        checkpoint.save(tmp_path, 2, model, optimizer, {})
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    checkpoint.restore(checkpoint.latest(tmp_path), model, optimizer)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "gone", "foreign", "shape"])
def test_damage_is_named_and_changes_nothing(tmp_path, name, damage):
    model, optimizer = trained()
    checkpoint.save(tmp_path, 1, model, optimizer, {})
    place = checkpoint.latest(tmp_path)
    path = place / name
    tensors = read_tensors(path)
    if damage in ("empty", "cut"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if damage == "cut" else 0])
    elif damage == "gone":
        path.unlink()
    elif damage == "foreign":
        save_file({**tensors, "adapters.smell.queries|exp_avg": torch.ones(1)}, path)
    else:
        key = next(n for n, t in tensors.items() if t.ndim == 2)
        save_file({**tensors, key: tensors[key][:1].clone()}, path)
    step(model, optimizer)
    weights, moments = own(model), copy.deepcopy(list(optimizer.state.values()))
    with pytest.raises(WeightsError) as error:
        checkpoint.restore(place, model, optimizer)
    assert str(path) in str(error.value)
    assert "--fresh" in str(error.value)
    assert all(torch.equal(weights[n], t) for n, t in own(model).items())
    for before, after in zip(moments, optimizer.state.values(), strict=True):
        assert all(torch.equal(before[part], after[part]) for part in before)


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"step": 1'])
def test_a_state_that_cannot_be_read(tmp_path, text):
    checkpoint.save(tmp_path, 1, *trained(), {})
    path = checkpoint.latest(tmp_path) / "state.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(WeightsError) as error:
        checkpoint.read_state(path.parent)
    assert str(path) in str(error.value)
    assert "--fresh" in str(error.value)

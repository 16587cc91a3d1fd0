"""Checkpoints: whole or not there, exact, and passed over by name when they are damaged."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import faults
import tiny
from open_crema.config import TrainConfig
from open_crema.errors import WeightsError
from open_crema.model.crema import Crema
from open_crema.storage import read_tensors, sweep
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


def save(folder: Path, step: int, state: dict[str, object], *what, stage: str = "step") -> Path:
    checkpoint.save(folder, stage, step, *(what or trained()), state)
    return folder / f"{stage}-{step:08d}"


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_is_restored_goes_on_exactly(tmp_path, kind):
    model, optimizer = trained(optimizer=kind)
    save(tmp_path, 1, {"best": 0.1 + 0.2}, model, optimizer)
    other = tiny.crema("video", "audio", seed=9)
    fresh = build_optimizer(other, TrainConfig(lr=0.01, optimizer=kind))
    step(other, fresh)  # what it had learnt is forgotten
    found = checkpoint.latest(tmp_path)
    assert (found.stage, found.step, found.state) == ("step", 1, {"best": 0.1 + 0.2})
    checkpoint.restore(found, other, fresh)
    for _ in range(2):
        step(model, optimizer)
        step(other, fresh)
    expected, found = own(model), own(other)
    assert all(torch.equal(expected[n], found[n]) for n in expected)


def test_moments_of_what_was_never_trained_stay_absent(tmp_path):
    model = tiny.crema("video", "audio")
    optimizer = build_optimizer(model, TrainConfig())
    save(tmp_path, 0, {}, model, optimizer)
    checkpoint.restore(checkpoint.latest(tmp_path), model, optimizer)
    assert dict(optimizer.state) == {}


def test_the_frozen_llm_is_not_in_it(tmp_path):
    names = read_tensors(save(tmp_path, 1, {}) / "model.safetensors").keys()
    assert {n.partition(".")[0] for n in names} == {"adapters", "fusion", "qformer"}


def test_the_last_two_are_kept_in_the_order_of_a_run(tmp_path):
    model, optimizer = trained()
    (tmp_path / ".step-00000001.new-0123456789ab").mkdir()  # of a process that was killed
    (tmp_path / "step-notes").mkdir()
    before = "step-notes"
    for stage, number in (("align", 7), ("align", 11), *(("step", n) for n in (0, 9, 10, 10**8))):
        now = save(tmp_path, number, {}, model, optimizer, stage=stage).name
        assert {p.name for p in tmp_path.iterdir()} == {"step-notes", before, now}
        found = checkpoint.latest(tmp_path)
        assert (found.stage, found.step) == (stage, number)
        before = now
    checkpoint.discard(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-notes"]


def test_no_checkpoint(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "nowhere") is None


def in_a_fork(folder: Path) -> Callable[[], None]:
    """Writes the third checkpoint, which replaces another run's third and ends the first."""
    model, optimizer = trained()
    return lambda: checkpoint.save(folder, "step", 3, model, optimizer, {"n": 3})


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("three")
    for number in (1, 2, 3):
        save(place, number, {"n": number})
    return place


@pytest.mark.parametrize("replaced", [False, True])
def test_killed_at_any_point_of_its_writing(tmp_path, three, replaced):
    for k in itertools.count(1):
        place = shutil.copytree(three, tmp_path / str(k))
        if not replaced:
            shutil.rmtree(place / "step-00000003")
        before = {p.name for p in place.iterdir()}
        came_so_far = faults.killed(in_a_fork(place), at=k)
        sweep(place)
        names = {p.name for p in place.iterdir()}
        assert before <= names | {"step-00000001"}
        assert names <= before | {"step-00000003"}
        found = checkpoint.latest(place)
        assert found.state == {"n": found.step}
        if not came_so_far:
            break
    assert found.step == 3
    assert k > 15


def test_a_full_disk_at_any_point_leaves_the_others(tmp_path, three):
    codes = []
    for k in itertools.count(1):
        place = shutil.copytree(three, tmp_path / str(k))
        shutil.rmtree(place / "step-00000003")
        codes.append(faults.full_disk(in_a_fork(place), at=k))
        if codes[-1] == 0:
            break
        sweep(place)
        assert {p.name for p in place.iterdir()} >= {"step-00000002"}
        assert checkpoint.latest(place).step in (2, 3)
    assert codes == [2] * (len(codes) - 1) + [0]
    assert len(codes) > 10


FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
DAMAGE = {
    "empty": lambda p: p.write_bytes(b""),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b" "),
    "first bit": lambda p: flipped(p, 0),
    "some bit": lambda p: flipped(p, p.stat().st_size // 2),
    "last bit": lambda p: flipped(p, p.stat().st_size - 1),
    "gone": Path.unlink,
    "foreign": lambda p: p.write_text('{"step": 1}'),
    "a list": lambda p: p.write_text("[]"),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
}


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_one_is_passed_over_by_name(tmp_path, three, caplog, name, damage):
    place = shutil.copytree(three, tmp_path / "c")
    path = place / "step-00000003" / name
    DAMAGE[damage](path)
    found = checkpoint.latest(place)
    if path == place / "step-00000003" / "state.json" and damage in ("longer", "last bit"):
        assert found.step in (2, 3)  # white space after the object means nothing
    else:
        assert found.step == 2
        assert str(path) in caplog.text
        assert "going on from step-00000002" in caplog.text
    assert (place / "step-00000003").exists(), "nothing is removed before its place is taken"
    DAMAGE["gone"](place / "step-00000002" / name)
    if found.step == 2:
        with pytest.raises(WeightsError, match="--fresh") as error:
            checkpoint.latest(place)
        assert str(path) in str(error.value)


def test_what_was_passed_over_is_removed_when_the_run_goes_on(tmp_path, three):
    place = shutil.copytree(three, tmp_path / "c")
    DAMAGE["some bit"](place / "step-00000003" / "model.safetensors")
    model, optimizer = trained()
    found = checkpoint.latest(place)
    checkpoint.restore(found, model, optimizer)
    checkpoint.discard_newer(found)
    assert [p.name for p in place.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("senses", [("video",), ("video", "audio", "flow")])
def test_another_model_is_refused_and_left_as_it_is(tmp_path, senses):
    place = save(tmp_path, 1, {})
    model = tiny.crema(*senses)
    optimizer = build_optimizer(model, TrainConfig())
    before = own(model)
    with pytest.raises(WeightsError) as error:
        checkpoint.restore(checkpoint.latest(tmp_path), model, optimizer)
    assert str(place / "model.safetensors") in str(error.value)
    assert "--fresh" in str(error.value)
    assert all(torch.equal(before[n], t) for n, t in own(model).items())


def test_moments_of_another_stage_are_refused(tmp_path):
    model, optimizer = trained()
    save(tmp_path, 1, {}, model, optimizer)
    fewer = torch.optim.AdamW(model.fusion.parameters())
    with pytest.raises(WeightsError, match=r"optimizer.safetensors: .* is not of this model"):
        checkpoint.restore(checkpoint.latest(tmp_path), model, fewer)
    assert dict(fewer.state) == {}

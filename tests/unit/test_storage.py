"""Durable files: whole or not there, whenever the writer ends."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest
import torch

import faults
from faults import no_waiting_for_the_disk  # noqa: F401
from open_crema import storage
from open_crema.errors import CremaError, WeightsError
from open_crema.storage import recover, remove, replacing, sweep, write_json, write_tensors


def snapshot(folder: Path) -> dict[str, bytes]:
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}


def write(folder: Path, number: int) -> None:
    with replacing(folder) as new:
        write_json(new / "a.json", {"number": number})
        (new / "sub").mkdir()
        write_tensors(new / "sub" / "t.safetensors", {"t": torch.full((3,), float(number))})
        (new / "note.txt").write_text(str(number))


@pytest.fixture
def contents(tmp_path) -> list[dict[str, bytes]]:
    found = []
    for number in (0, 1):
        write(tmp_path / "made" / str(number), number)
        found.append(snapshot(tmp_path / "made" / str(number)))
    shutil.rmtree(tmp_path / "made")
    return found


@pytest.mark.parametrize("replaced", [False, True])
def test_a_writer_killed_at_any_point_leaves_the_old_or_the_new_folder(
    tmp_path, contents, replaced
):
    old, new = contents
    for k in itertools.count(1):
        place = tmp_path / str(k) / "model"
        if replaced:
            write(place, 0)
        came_so_far = faults.killed(lambda place=place: write(place, 1), at=k)
        recover(place)
        found = snapshot(place)
        assert found in ((old if replaced else {}), new), f"at point {k}"
        beside = list(place.parent.iterdir()) if place.parent.exists() else []
        assert beside == [place] * place.exists(), f"left at point {k}"
        if not came_so_far:
            break
        write(place, 1)
        assert snapshot(place) == new
    assert found == new
    assert k > 15


@pytest.mark.parametrize("replaced", [False, True])
def test_a_full_disk_is_a_clear_error_and_leaves_the_old_folder(tmp_path, contents, replaced):
    old, new = contents
    codes = []
    for k in itertools.count(1):
        place = tmp_path / str(k) / "model"
        if replaced:
            write(place, 0)
        codes.append(faults.full_disk(lambda place=place: write(place, 1), at=k))
        recover(place)
        assert snapshot(place) in ((old if replaced else {}), new), f"at point {k}"
        if codes[-1] == 0:
            break
    assert codes == [2] * (len(codes) - 1) + [0]
    assert len(codes) > 10


def test_one_killed_in_the_middle_of_a_recovery_loses_nothing(tmp_path, contents):
    old, _ = contents
    for k in itertools.count(1):
        place = tmp_path / str(k) / "model"
        write(place, 0)
        place.rename(place.with_name(".model.old-0123456789ab"))
        (place.parent / ".model.new-0123456789ab" / "sub").mkdir(parents=True)
        (place.parent / ".model.lock-0123456789ab").touch()
        came_so_far = faults.killed(lambda place=place: recover(place), at=k)
        recover(place)
        assert snapshot(place.parent) == {f"model/{name}": old[name] for name in old}
        if not came_so_far:
            break
    assert k > 3


def test_what_a_live_writer_is_about_stays(tmp_path):
    place = tmp_path / "model"
    write(place, 0)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with replacing(place) as new:
            write_json(new / "a.json", {})
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for _ in range(3):
        recover(place)
        sweep(tmp_path)
    write(place, 1)  # meanwhile another one writes
    assert {p.name.split("-")[0] for p in tmp_path.iterdir()} == {
        "model",
        ".model.new",
        ".model.lock",
    }
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert set(snapshot(place)) == {"a.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_only_leftovers_are_swept(tmp_path):
    own = [".model.new-1", ".model.newer-0123456789ab", "model.new-0123456789ab", ".model"]
    for name in own:
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(own)
    sweep(tmp_path / "nowhere")
    recover(tmp_path / "nowhere" / "model")


def test_a_failure_to_move_the_new_model_in_puts_the_old_one_back(tmp_path, monkeypatch):
    place = tmp_path / "m"
    with replacing(place) as new:
        (new / "a").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".new-" in self.name and target == place:
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(WeightsError), replacing(place) as new:
        (new / "a").write_text("new")
    assert snapshot(tmp_path) == {"m/a": b"old"}


def test_an_interrupt_between_the_two_renames_puts_the_old_model_back(tmp_path, monkeypatch):
    place = tmp_path / "m"
    with replacing(place) as new:
        (new / "a").write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if ".new-" in self.name and target == place:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(place) as new:
        (new / "a").write_text("new")
    assert snapshot(tmp_path) == {"m/a": b"old"}


def test_where_nothing_can_be_moved_any_more_the_old_model_is_still_found(tmp_path, monkeypatch):
    place = tmp_path / "m"
    with replacing(place) as new:
        (new / "a").write_text("old")
    rename = Path.rename

    def stuck(self: Path, target: Path) -> Path:
        if ".old-" in target.name:
            return rename(self, target)
        raise OSError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stuck)
        with pytest.raises(CremaError), replacing(place) as new:
            (new / "a").write_text("new")
    recover(place)
    assert snapshot(tmp_path) == {"m/a": b"old"}


def test_a_folder_is_removed_as_a_whole(tmp_path):
    for k in itertools.count(1):
        place = tmp_path / "m"
        write(place, 0)
        came_so_far = faults.killed(lambda place=place: remove(place), at=k)
        assert len(snapshot(place)) in (0, 3)
        if not came_so_far:
            break
        remove(place)
        assert not place.exists()
    assert k > 3
    remove(place)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match=r"file.model: cannot be written \("):
        write(tmp_path / "file" / "model", 0)
    full = storage.SafetensorError("I/O error: No space left on device (os error 28)")
    assert "free some space" in str(storage.unwritable(tmp_path, full))

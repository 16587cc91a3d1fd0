"""Durable files: whole or not there, whenever the writer ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from open_crema.errors import CremaError
from open_crema.storage import replacing


def snapshot(folder: Path) -> dict[str, bytes]:
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}


def test_what_an_earlier_writer_of_the_same_number_left_is_swept(tmp_path):
    place = tmp_path / "m"
    with replacing(place) as left:
        pass
    left.mkdir()
    (left / "stale").write_text("x")
    with replacing(place) as new:
        (new / "whole").write_text("y")
    assert snapshot(place) == {"whole": b"y"}


def test_a_failure_to_move_the_new_model_in_puts_the_old_one_back(tmp_path, monkeypatch):
    place = tmp_path / "m"
    with replacing(place) as new:
        (new / "a").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise PermissionError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((OSError, CremaError)), replacing(place) as new:
        (new / "a").write_text("new")
    assert snapshot(place) == {"a": b"old"}


def test_an_interrupt_between_the_two_renames_puts_the_old_model_back(tmp_path, monkeypatch):
    place = tmp_path / "m"
    with replacing(place) as new:
        (new / "a").write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(place) as new:
        (new / "a").write_text("new")
    assert snapshot(place) == {"a": b"old"}

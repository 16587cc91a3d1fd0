"""Tables of studies, and which questions each study asks."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from open_crema import reproduce
from open_crema.errors import ConfigError
from open_crema.reproduce.table import Count, Table
from open_crema.senseqa.types import TYPES, needing


def row(correct: int, n: int, chance: float) -> dict[str, float]:
    return {"correct": correct, "n": n, "chance": chance}


def test_counts_of_types_add_up():
    count = Count.of({"a": row(3, 4, 0.5), "b": row(1, 6, 0.2), "c": row(0, 9, 0)}, ["a", "b"])
    assert (count.right, count.n) == (4, 10)
    assert count.rate == pytest.approx(40)
    assert count.chance == "32"  # (4 x 0.5 + 6 x 0.2) / 10
    assert str(count) == "40 (17 - 69)"


def test_a_table_is_text_markdown_and_json(tmp_path):
    table = Table("Title", ["sense", "N"], [["audio", "20"], ["flow", "8"]], "A note.")
    said = Console(file=io.StringIO(), width=60)
    said.print(table.shown())
    assert "audio" in said.file.getvalue()
    table.write(tmp_path / "deep" / "name")
    assert json.loads((tmp_path / "deep" / "name.json").read_text())["rows"][1] == ["flow", "8"]
    lines = (tmp_path / "deep" / "name.md").read_text().splitlines()
    assert lines[2:6] == ["| sense | N |", "| --- | --- |", "| audio | 20 |", "| flow | 8 |"]


def test_types_are_those_that_need_a_sense():
    assert needing("audio", "video")
    for name in needing("audio", "video"):
        assert "audio" in TYPES[name].needs
        assert set(TYPES[name].needs) <= {"video", "audio"}
    more = set(needing("audio", "video", "thermal")) - set(needing("audio", "video"))
    assert more
    assert all({"audio", "thermal"} <= set(TYPES[name].needs) for name in more)


def test_an_unknown_study_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="no study 'fusoin' of senseqa: did you mean 'fusion'"):
        reproduce.find("fusoin")

"""The datasheet has every type with its needs, a row of the audit a sense, and a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from open_crema.senseqa.sets import Group
from open_crema.senseqa.types import TYPES, VERSION

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "senseqa.md").read_text(encoding="utf-8")
AUDIT = [
    [cell.strip() for cell in row.split("|")[1:-1]]
    for row in PAGE.partition("<!-- audit -->")[2].partition("<!-- end -->")[0].strip().splitlines()
]


def test_it_is_of_this_version() -> None:
    assert f"## Types (version {VERSION})" in PAGE


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_described_and_shown(name: str) -> None:
    kind = TYPES[name]
    question = Group(kind, "val", 0, 0, 4, 2).questions[0]
    row = f"| `{name}` | {', '.join(kind.needs)} | {', '.join(kind.flips)} | {question.text} |"
    assert row in PAGE
    assert (DOCS / "senseqa" / f"{name}.webp").stat().st_size > 10_000
    assert f"](senseqa/{name}.webp)" in PAGE


def test_every_type_is_audited_for_every_sense_that_it_flips() -> None:
    header, _, *rows = AUDIT
    assert header[:3] == ["type", "sense withheld", "questions"]
    audited = [(row[0], row[1]) for row in rows]
    assert audited == [(name, sense) for name, kind in TYPES.items() for sense in kind.flips]
    for row in rows:
        found = dict(zip(header, row, strict=True))
        assert int(found["questions"]) >= 2000
        assert found["pairs without"] == "0.0"
        assert (found["closed"], found["verdict"]) == ("yes", "solved")
        for column in ("blind", "without", "with", "pairs with"):
            assert re.fullmatch(r"[\d.]+ \([\d.]+-[\d.]+\)", found[column])

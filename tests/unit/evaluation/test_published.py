"""The paper's numbers, against the paper's own text where it is there."""

import re
from pathlib import Path

import pytest

from open_crema.evaluation import published

PAPER = Path(__file__).resolve().parents[4] / "shared" / "paper"
TABLES = sorted({row.table for row in published.rows()})
# What follows a table that no other table follows at once.
AFTER = {7: "\nTable 8:", 14: "\nAppendix B", 16: "\nB.1 ", 17: "\nB.5 ", 18: "\nB.6 "}
WIDE = (1, 2, 3)  # printed one row a line


@pytest.fixture(scope="module")
def text():
    files = sorted(PAPER.glob("001_*.txt"))
    if not files:
        pytest.skip("the paper's text is not beside the project")
    return files[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("number", TABLES)
def test_each_number_stands_in_the_table_of_the_paper(text, number):
    start = text.rindex(f"\nTable {number}:")
    stop = text.find(AFTER.get(number, f"\nTable {number + 1}:"), start + 1)
    printed = text[start : stop if stop > start else start + 4000]
    printed = re.sub(r"similar-to\\sim", "~", printed.replace(" M", "M"))
    there = set(re.findall(r"~?\d+(?:\.\d+)?[KMB]?", printed))
    for row in (r for r in published.rows() if r.table == number):
        assert set(row.values.values()) <= there, row


@pytest.mark.parametrize("number", WIDE)
def test_the_values_of_a_row_stand_in_their_order(text, number):
    """A number in a wrong column is easily missed where there are many."""
    lines = [re.sub(r" (- )+", " ", " ".join(line.split())) for line in text.splitlines()]
    for row in (r for r in published.rows() if r.table == number):
        values = " ".join(row.values.values())
        assert any(values in line for line in lines), row


def test_units():
    row = next(r for r in published.rows() if r.values.get("epochs") == "~13")
    assert (row.number("epochs"), row.number("trainable")) == (13, 38e6)
    assert row.number("GFLOPs") is None
    totals = [r.number("total") for r in published.rows() if r.method == "GPT-3"]
    assert totals == [175e9]

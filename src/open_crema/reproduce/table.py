"""A table of results that people read on a terminal and in Markdown, and programs as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich.table

from open_crema.evaluation import metrics


@dataclass(frozen=True)
class Table:
    """rows: texts, as many as there are columns. note: what a reader must know."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def shown(self) -> rich.table.Table:
        table = rich.table.Table(title=self.title, caption=self.note or None)
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def write(self, place: Path) -> None:
        """``place.json`` and ``place.md``."""
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".json").write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        place.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")


@dataclass(frozen=True)
class Count:
    """Answers of a group: right ones, all, and how many a guess gets right."""

    right: int
    n: int
    guessed: float

    @classmethod
    def of(cls, types: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Count:
        """Of the rows of these types in a results file."""
        rows = [types[name] for name in names]
        return cls(
            sum(row["correct"] for row in rows),
            sum(row["n"] for row in rows),
            sum(row["chance"] * row["n"] for row in rows),
        )

    @property
    def rate(self) -> float:
        """Per cent."""
        return 100 * self.right / self.n

    @property
    def chance(self) -> str:
        return f"{100 * self.guessed / self.n:.0f}"

    def __str__(self) -> str:
        low, high = metrics.wilson(self.right, self.n)
        return f"{self.rate:.0f} ({100 * low:.0f} - {100 * high:.0f})"


def spread(counts: Sequence[Count]) -> str:
    """One count with its interval; of several (one a seed) mean and standard deviation."""
    if len(counts) == 1:
        return str(counts[0])
    rates = [count.rate for count in counts]
    return f"{statistics.mean(rates):.0f} +- {statistics.stdev(rates):.0f}"

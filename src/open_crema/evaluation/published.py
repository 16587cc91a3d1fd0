"""The paper's numbers as data: Tables 1 to 7 and 12 to 18, every printed row.

The data are ``assets/published.yaml``. What is printed and cannot all be true is kept as printed;
``crema cost --all-paper`` says where it contradicts itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

LETTERS = {
    "V": "video",
    "A": "audio",
    "F": "flow",
    "D": "depth",
    "N": "normal",
    "P": "point",
    "T": "touch",
    "H": "thermal",
}
_SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "GiB": 2.0**30}


@dataclass(frozen=True)
class Printed:
    """A size as the paper prints it, with its rounding: ``Printed("3.8M").value == 3.8e6``."""

    text: str

    @property
    def value(self) -> float:
        """In parameters, GFLOPs or bytes, as the column has it."""
        return float(self._digits) * _SCALES[self.text[len(self._digits) :]]

    @property
    def step(self) -> float:
        """One of its last digit."""
        decimals = len(self._digits.partition(".")[2])
        return float(10.0**-decimals * _SCALES[self.text[len(self._digits) :]])

    @property
    def _digits(self) -> str:
        return self.text.rstrip("KMBGi")

    def says(self, value: float) -> bool:
        """Whether it is the value, rounded or cut off (Table 18 does the latter)."""
        return -0.5 * self.step <= value - self.value < self.step


@dataclass(frozen=True)
class PublishedRow:
    """One data set's part of a printed row.

    table: its number. line: of the printed row in the table, from 1; two rows of one line are two
    data sets (Tables 6, 7, 17, 18). method, variant: the row's label. values: column -> number as
    printed (accuracies in per cent), without what is not printed. trainable, total: parameters.
    gflops: multiply-accumulates of one sample in units of 1e9 (the paper counts one as one).
    memory: of training. config: the file in configs/paper (without .yaml) that is this row; None
    for other systems.
    """

    table: int
    line: int
    method: str
    dataset: str
    senses: tuple[str, ...]
    values: Mapping[str, float]
    variant: str = ""
    trainable: Printed | None = None
    total: Printed | None = None
    gflops: Printed | None = None
    memory: Printed | None = None
    config: str | None = None

    @property
    def letters(self) -> str:
        """As printed: "V, F, D"."""
        by_name = {name: letter for letter, name in LETTERS.items()}
        return ", ".join(by_name[sense] for sense in self.senses)


_SIZES = ("trainable", "total", "gflops", "memory")


@cache
def rows() -> tuple[PublishedRow, ...]:
    """All of them, in printed order."""
    text = (files("open_crema") / "assets" / "published.yaml").read_text(encoding="utf-8")
    found = []
    for number, table in yaml.safe_load(text).items():
        line = 0
        for entry in table["rows"]:
            line += not entry.pop("same_line", False)
            found.append(_row(number, line, table, entry))
    return tuple(found)


def table(number: int) -> tuple[PublishedRow, ...]:
    """One table's rows; empty for a table that is not here (8 to 11)."""
    return tuple(row for row in rows() if row.table == number)


def of_config(name: str) -> tuple[PublishedRow, ...]:
    """The rows that a file of configs/paper (without .yaml) is."""
    return tuple(row for row in rows() if row.config == name)


def _row(number: int, line: int, table: Mapping[str, Any], entry: dict[str, Any]) -> PublishedRow:
    columns = zip(table["columns"], entry["values"], strict=True)
    return PublishedRow(
        table=number,
        line=line,
        method=entry["method"],
        dataset=entry.get("dataset", table.get("dataset")),
        senses=tuple(LETTERS[letter] for letter in entry["senses"]),
        values={column: float(value) for column, value in columns if value is not None},
        variant=entry.get("variant", ""),
        config=entry.get("config"),
        **{size: Printed(entry[size]) for size in _SIZES if size in entry},
    )

"""The numbers of a page: rates of each set of senses, confusion of answers, strength of gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from open_crema.data.sample import normalise
from open_crema.evaluation.metrics import wilson
from open_crema.evaluation.page.cases import BLIND, Case, Suite
from open_crema.evaluation.page.found import Result
from open_crema.modality import canonical

ALL = "all"
OTHER = "other"
_MOST_ANSWERS = 10  # of a confusion table; the rarer ones are counted together


@dataclass(frozen=True)
class Cell:
    """A rate in [0, 1] with its Wilson interval (None for an expected rate) over n samples."""

    rate: float
    interval: tuple[float, float] | None
    n: int
    pairs: Cell | None = None


@dataclass(frozen=True)
class Row:
    """label: the set of senses, or the guess. guess: whether it is none of the model's answers.
    cells: column -> rate; a type of which nothing was scored is not there."""

    label: str
    senses: tuple[str, ...]
    guess: bool
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """columns: "all" and the types."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def has_pairs(self) -> bool:
        return any(cell.pairs for row in self.rows for cell in row.cells.values())


def rates(suite: Suite) -> Table:
    """Chance, majority and blind as in the results of the most senses, then each set of senses."""
    full = _groups(suite.fullest)
    columns = list(dict.fromkeys(name for r in reversed(suite.results) for name in _groups(r)))
    rows = [
        Row("chance", (), True, {name: _chance(group) for name, group in full.items()}),
        _known("majority", full, "majority"),
    ]
    if all(result.senses for result in suite.results):
        rows.append(_known("blind", full, "blind"))
    for result, label in zip(suite.results, suite.labels, strict=True):
        cells = {name: _accuracy(group) for name, group in _groups(result).items()}
        label = label.replace(BLIND, "blind", 1) if not result.senses else label
        rows.append(Row(label, result.senses, False, cells))
    return Table(tuple(columns), tuple(row for row in rows if row.cells))


def _groups(result: Result) -> dict[str, Mapping[str, Any]]:
    types = result.summary["types"]
    return {ALL: result.summary, **(types if len(types) > 1 else {})}


def _chance(group: Mapping[str, Any]) -> Cell:
    return Cell(float(group["chance"]), None, int(group["n"]), _pairs(group, "chance"))


def _known(label: str, groups: Mapping[str, Mapping[str, Any]], key: str) -> Row:
    """Of a rate that not every evaluation has. Its pairs: of blind as recorded."""
    cells = {}
    for name, group in groups.items():
        if group.get(key) is not None:
            n = int(group["n"])
            correct = min(n, round(float(group[key]) * n))
            cells[name] = Cell(float(group[key]), wilson(correct, n), n, _pairs(group, key))
    return Row(label, (), True, cells)


def _accuracy(group: Mapping[str, Any]) -> Cell:
    low, high = map(float, group["interval"])
    return Cell(float(group["accuracy"]), (low, high), int(group["n"]), _pairs(group, "accuracy"))


def _pairs(group: Mapping[str, Any], key: str) -> Cell | None:
    """Over the pairs of all senses."""
    known = [p for p in group.get("pairs", {}).values() if int(p["n"]) and p.get(key) is not None]
    n = sum(int(p["n"]) for p in known)
    if not n:
        return None
    both = sum(float(p[key]) * int(p["n"]) for p in known)
    interval = None if key == "chance" else wilson(min(n, round(both)), n)
    return Cell(both / n, interval, n)


@dataclass(frozen=True)
class Confusion:
    """counts[i][j]: how often answers[i] was said to be predictions[j], where j counts answers and
    then, perhaps, what is none of them."""

    type: str
    answers: tuple[str, ...]
    predictions: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    right: int
    n: int


def confusions(cases: Sequence[Case]) -> list[Confusion]:
    """For each type, of what was said with the most senses."""
    by_type: dict[str, list[Case]] = {}
    for case in cases:
        by_type.setdefault(case.type, []).append(case)
    return [_confusion(name, own) for name, own in sorted(by_type.items())]


def _confusion(name: str, cases: Sequence[Case]) -> Confusion:
    # What accepts several answers was answered by whichever of them was said.
    said = [normalise(case.fullest.prediction) for case in cases]
    asked = []
    for case, prediction in zip(cases, said, strict=True):
        accepted = list(map(normalise, case.answers))
        asked.append(prediction if prediction in accepted else accepted[0])
    frequent = [answer for answer, _ in Counter(asked).most_common(_MOST_ANSWERS)]
    answers = sorted(frequent) + ([OTHER] if set(asked) - set(frequent) else [])
    predictions = sorted(frequent) + ([OTHER] if set(said) - set(frequent) else [])
    counts = Counter(
        (a if a in frequent else OTHER, p if p in frequent else OTHER)
        for a, p in zip(asked, said, strict=True)
    )
    return Confusion(
        type=name,
        answers=tuple(answers),
        predictions=tuple(predictions),
        counts=tuple(tuple(counts[a, p] for p in predictions) for a in answers),
        right=sum(case.fullest.correct for case in cases),
        n=len(cases),
    )


@dataclass(frozen=True)
class GateTable:
    """label: the set of senses. rows: type -> mean share of each sense, over frames and samples."""

    label: str
    senses: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]


def gate_table(suite: Suite) -> GateTable | None:
    """Of the most senses for which gates were recorded; None where there are none."""
    for result, label in zip(reversed(suite.results), reversed(suite.labels), strict=True):
        sums: dict[str, Counter[str]] = {}
        counts: Counter[str] = Counter()
        for said in result.predictions.values():
            if said.gates:
                for name in (ALL, said.type):
                    counts[name] += 1
                    for sense, shares in said.gates.items():
                        own = sums.setdefault(name, Counter())
                        own[sense] += sum(shares) / max(len(shares), 1)  # type: ignore[assignment]
        if sums:
            senses = canonical(sense for own in sums.values() for sense in own)
            names = [ALL, *sorted(n for n in sums if n != ALL)] if len(sums) > 2 else [ALL]
            return GateTable(
                label,
                tuple(senses),
                {name: {s: sums[name][s] / counts[name] for s in senses} for name in names},
            )
    return None

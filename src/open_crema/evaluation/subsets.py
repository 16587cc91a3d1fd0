"""A model on several sets of its senses: which sets, their files, and the missing-sense matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from open_crema.config import Config
from open_crema.errors import ConfigError, CremaError, did_you_mean
from open_crema.evaluation import result
from open_crema.evaluation.result import Evaluation, Row
from open_crema.modality import canonical
from open_crema.model.crema import Crema
from open_crema.storage import write_json

Subset = tuple[str, ...]

BLIND = "blind"
_LIMIT = 64


def name_of(senses: Sequence[str]) -> str:
    """The name of a set of senses, and of its results folder: ``video+audio``, or ``blind``."""
    return "+".join(canonical(senses)) or BLIND


def choose_subsets(which: str, senses: Sequence[str]) -> list[Subset]:
    """Sets of a model's senses, each once and in canonical order.

    which: "all" (every set, the empty one too), "drop-one" (all senses, and all minus one each),
    "single" (each alone), "add-one" (the primary sense alone, with one other each, and all), or a
    list as in "video,video+audio,blind".

    Raises ConfigError for a sense that is not there (naming the nearest), a list with a gap, and
    for "all" of more than 64 sets.
    """
    ways: Mapping[str, Callable[[Subset], Iterable[Sequence[str]]]] = {
        "all": _all,
        "drop-one": _drop_one,
        "single": _single,
        "add-one": _add_one,
    }
    known = tuple(canonical(senses))
    if which in ways:
        return unique(ways[which](known))
    chosen = []
    for text in which.split(","):
        names = [name.strip() for name in text.split("+")]
        if names == [BLIND]:
            names = []
        for name in names:
            if name not in known:
                hint = did_you_mean(name, [*known, BLIND, *ways])
                raise ConfigError(
                    f"--subsets {which!r}: no sense {name!r}; {hint}write {', '.join(ways)}, or a "
                    f"list as in {known[0]},{name_of(known)} of {', '.join(known)} and {BLIND}"
                )
        chosen.append(names)
    return unique(chosen)


def unique(subsets: Iterable[Sequence[str]]) -> list[Subset]:
    """Each set once, where it comes first."""
    return list(dict.fromkeys(tuple(canonical(senses)) for senses in subsets))


def _all(senses: Subset) -> Iterator[Subset]:
    if 2 ** len(senses) > _LIMIT:
        raise ConfigError(
            f"--subsets all: {len(senses)} senses have {2 ** len(senses)} subsets, more than "
            f"{_LIMIT}; choose drop-one, single or add-one, list the subsets, or name fewer "
            "senses by --senses"
        )
    for size in range(len(senses) + 1):
        yield from combinations(senses, size)


def _drop_one(senses: Subset) -> Iterator[Subset]:
    yield senses
    for left_out in senses:
        yield tuple(s for s in senses if s != left_out)


def _single(senses: Subset) -> Iterator[Subset]:
    for sense in senses:
        yield (sense,)


def _add_one(senses: Subset) -> Iterator[Subset]:
    primary, *others = senses
    yield (primary,)
    for other in others:
        yield (primary, other)
    yield senses


def rows(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Plain data: the summary of each, and ``folder``, where its files are."""
    return [{"folder": name_of(e.senses), **e.summary()} for e in evaluations]


def write_subsets(
    evaluations: Sequence[Evaluation],
    folder: str | Path,
    *,
    config: Config,
    model: Crema,
    data: str | Path,
) -> Path:
    """Writes the files of :func:`~open_crema.evaluation.result.write` into a folder a subset below
    ``folder`` and, last, ``subsets.json``: the list of :func:`rows`.

    Raises CremaError where the folder cannot be written, DataError as ``result.write`` does.
    """
    folder = Path(folder)
    target = folder / "subsets.json"
    try:
        target.unlink(missing_ok=True)
        for evaluation in evaluations:
            place = folder / name_of(evaluation.senses)
            result.write(evaluation, place, config=config, model=model, data=data)
        part = folder / "subsets.json.part"
        write_json(part, rows(evaluations))
        part.replace(target)
    except OSError as error:
        raise CremaError(f"{folder}: the results cannot be written ({error})") from None
    return target


@dataclass(frozen=True)
class _Column:
    """cells: a text for each subset; below: for each line of what the subsets are compared to."""

    header: str
    cells: Sequence[str]
    below: Sequence[str]

    @property
    def width(self) -> int:
        """Characters, with padding and border."""
        lines = (*self.header.split("\n"), *self.cells, *self.below)
        return max(map(len, lines)) + 3


def matrix(evaluations: Sequence[Evaluation], width: int = 80) -> list[Table]:
    """The missing-sense matrix: a row a subset, columns for all questions and for each type.

    evaluations: of the same samples. width: characters of a line; what does not fit into one table
    goes on in the next. Below the subsets come chance, the most frequent training answer, the same
    model without any sense, and the number of questions.
    """
    first, last = evaluations[0], evaluations[-1]
    overall = [e.overall for e in evaluations]
    types = [e.types for e in evaluations]
    # Evaluated as a subset, the blind row stands among them already.
    blind = () not in [e.senses for e in evaluations]
    below = _below(overall[0], blind)
    labels = _Column("senses", [name_of(e.senses) for e in evaluations], list(below))
    columns = [_rates("overall", overall, blind)]
    intervals = [f"{_percent(r.interval[0])} - {_percent(r.interval[1])}" for r in overall]
    columns.append(_Column("95 %\ninterval", intervals, [""] * len(below)))
    if any(row.pairs for row in overall):
        columns.append(_pairs(overall, len(below)))
    for name in types[0]:
        # A long name is broken where it may be, since there may be dozens of them.
        header = (name or "(no type)").replace("_", "_\n")
        columns.append(_rates(header, [row[name] for row in types], blind))
    tables = [_table(labels, block) for block in _blocks(columns, width - labels.width - 1)]
    tables[0].title = "accuracy with subsets of the senses, in %"
    skipped = "; ".join(f"{count} {reason}" for reason, count in first.reasons.items())
    notes = [
        f"expected {first.expected} = scored {len(first.predictions)} + skipped "
        f"{len(first.skipped)}" + (f" ({skipped})" if skipped else "")
    ]
    for sense, why in {k: v for e in (first, last) for k, v in e.absent.items()}.items():
        notes.append(f"without {sense}: " + "; ".join(f"{n} {r}" for r, n in why.items()))
    tables[-1].caption = Text("\n".join(notes))
    return tables


def _below(row: Row, blind: bool) -> dict[str, str]:
    found = {"chance": _percent(row.chance)}
    if row.majority is not None:
        found["majority"] = _percent(row.majority)
    if blind and row.blind is not None:
        found[BLIND] = _percent(row.blind)
    return {**found, "N": str(row.n)}


def _rates(header: str, column: Sequence[Row], blind: bool) -> _Column:
    below = _below(column[0], blind)
    return _Column(header, [_percent(r.accuracy) for r in column], list(below.values()))


def _pairs(column: Sequence[Row], below: int) -> _Column:
    cells = []
    for row in column:
        n = sum(pair.n for pair in row.pairs.values())
        correct = sum(pair.correct for pair in row.pairs.values())
        cells.append(f"{_percent(correct / n)} ({n})" if n else "-")
    return _Column("pairs (N)\nboth right", cells, [""] * below)


def _blocks(columns: Sequence[_Column], width: int) -> Iterator[list[_Column]]:
    block: list[_Column] = []
    for column in columns:
        if block and sum(c.width for c in block) + column.width > width:
            yield block
            block = []
        block.append(column)
    yield block


def _table(labels: _Column, columns: Sequence[_Column]) -> Table:
    table = Table()
    table.add_column(labels.header, no_wrap=True)
    for column in columns:
        table.add_column(Text(column.header), justify="right", no_wrap=True)
    for cells in zip(labels.cells, *(c.cells for c in columns), strict=True):
        table.add_row(*cells)
    table.add_section()
    for cells in zip(labels.below, *(c.below for c in columns), strict=True):
        table.add_row(*cells, style="dim")
    return table


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"

"""The paper's numbers beside our own: the same columns, and why they may not be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from open_crema.data.sample import Sample
from open_crema.evaluation.published import LETTERS, OURS, rows
from open_crema.evaluation.result import Evaluation, row_of
from open_crema.tasks import Task

_TUNED, _ZERO_SHOT = (1, 2, 3, 4, 12, 13), (5, 15)
_ZERO_SHOT_COLUMN, _INSIDE = "zero-shot", "in-vocabulary"


def beside(task: Task, samples: Sequence[Sample], found: Evaluation) -> dict[str, Any] | None:
    """For results.json: ``differs``, why the protocol is not the paper's ("" where it is), our
    rates by the paper's columns, and the rows of its tables for this task. None where the paper
    does not have the task."""
    if not task.published:
        return None
    zero_shot = found.training is not None and bool(found.training.zero_shot)
    tables = _ZERO_SHOT if zero_shot else _TUNED
    columns = {name: list(types) for name, types in task.columns.items()}
    ours = {}
    for name, types in columns.items():
        kept = [p for p in found.predictions if not types or p.type in types]
        if kept:
            row = row_of(kept, ())
            ours[name] = {"n": row.n, "strict": row.accuracy, "lenient": row.lenient}
    return {
        "differs": task.differs(samples),
        "model": "the paper's models are built on BLIP-2 with Flan-T5 XL, 4.1B parameters",
        "zero_shot": zero_shot,
        "ours": ours,
        "inside": found.overall.inside if found.overall.outside else None,
        "rows": [
            {
                "table": row.table,
                "method": row.method,
                "senses": row.letters,
                "values": {k: v for k, v in row.values.items() if k in _columns(task)},
            }
            for row in rows()
            if row.task == task.published and row.table in tables
        ],
    }


def _columns(task: Task) -> set[str]:
    return {*task.columns, _ZERO_SHOT_COLUMN, _INSIDE}


def table(found: Mapping[str, Any], senses: Sequence[str]) -> Table:
    """For people: a row a column of the paper's, with our rates and those of its models of the same
    senses; where it has none of these, of its own models."""
    named = {name: letter for letter, name in LETTERS.items()}
    letters = {named.get(sense, "?") for sense in senses}
    same = [row for row in found["rows"] if set(row["senses"]) == letters]
    shown = same or [row for row in found["rows"] if row["method"].startswith(OURS)]
    grid = Table(title="beside the paper, in %", title_justify="left")
    grid.add_column("")
    for name in ("N", "strict", "lenient"):
        grid.add_column(name, justify="right")
    for row in shown:
        head = f"{row['method']}\n{row['senses']}, Table {row['table']}"
        grid.add_column(head, justify="right")
    for name, own in found["ours"].items():
        theirs = [_printed(row["values"], name) for row in shown]
        mine = (str(own["n"]), _percent(own["strict"]), _percent(own["lenient"]))
        grid.add_row(name, *mine, *theirs)
    if any(_INSIDE in row["values"] for row in shown):
        theirs = [row["values"].get(_INSIDE, "-") for row in shown]
        grid.add_row(_INSIDE, "", _percent(found["inside"]), "-", *theirs)
    grid.caption = Text("\n".join(_notes(found)))
    return grid


def _printed(values: Mapping[str, str], name: str) -> str:
    """Table 5 has the average alone, under another name."""
    other = values.get(_ZERO_SHOT_COLUMN, "-") if name in ("Avg", "Acc") else "-"
    return values.get(name, other)


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["rows"]:
        yield "the paper has no zero-shot results on this task"
        return
    yield f"{found['model']}; its scores are the released code's, the lenient ones"
    if found["differs"]:
        yield f"not comparable: {found['differs']}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"

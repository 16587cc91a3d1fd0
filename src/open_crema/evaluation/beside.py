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
_ZERO_SHOT_COLUMN = "zero-shot"


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
    return {*task.columns, _ZERO_SHOT_COLUMN, "in-vocabulary"}


def table(found: Mapping[str, Any], senses: Sequence[str]) -> Table:
    """For people: our rates in a row each for strict and lenient, and the paper's below."""
    named = {name: letter for letter, name in LETTERS.items()}
    letters = "".join(named.get(sense, "?") for sense in senses)
    printed = {name for row in found["rows"] for name in row["values"]}
    columns = [name for name in found["ours"] if name in printed or not printed]
    extra = [name for name in (_ZERO_SHOT_COLUMN, "in-vocabulary") if name in printed]
    shown = Table(title="beside the paper, in %", title_justify="left")
    for name in ("table", "method", "senses"):
        shown.add_column(name)
    for name in (*columns, *extra):
        shown.add_column(name, justify="right")
    whole = list(found["ours"].values())[-1] if found["ours"] else {}
    for score in ("strict", "lenient"):
        cells = [_percent(found["ours"][name][score]) for name in columns]
        cells += [
            _percent(whole.get(score) if name == _ZERO_SHOT_COLUMN else found["inside"])
            if score == "strict" or name == _ZERO_SHOT_COLUMN
            else "-"
            for name in extra
        ]
        shown.add_row("here", score, letters, *cells, style="bold", end_section=score == "lenient")
    for row in found["rows"]:
        cells = [row["values"].get(name, "-") for name in (*columns, *extra)]
        style = "" if row["method"].startswith(OURS) else "dim"
        shown.add_row(str(row["table"]), row["method"], row["senses"], *cells, style=style)
    shown.caption = Text("\n".join(_notes(found)))
    return shown


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['model']}; its scores are the released code's, the lenient ones"
    if found["differs"]:
        yield f"not comparable: {found['differs']}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"

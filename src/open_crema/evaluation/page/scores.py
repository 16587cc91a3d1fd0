"""Plain tables of a page: the two scores, the paper's numbers, lost senses, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from open_crema.evaluation.page.found import Result
from open_crema.evaluation.published import LETTERS


@dataclass(frozen=True)
class Grid:
    """columns: the first is that of the rows' names. strong: which rows are our own."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[int, ...] = ()


def grids(result: Result) -> list[Grid]:
    """Of one evaluation; results of earlier versions have none. Raises KeyError, TypeError or
    ValueError for entries of another shape."""
    summary, made = result.summary, []
    if summary.get("scores"):
        made.append(_two(summary))
    if summary.get("published", {}).get("rows"):
        made.append(_published(summary["published"], result.senses))
    return made


def _two(summary: Mapping[str, Any]) -> Grid:
    scores, difficulty = summary["scores"], summary.get("difficulty") or {}
    types = summary["types"] if len(summary["types"]) > 1 else {}
    rows = {"all": summary, **types, **summary.get("groups", {})}
    rows |= {name: difficulty[name] for name in ("easy", "hard") if difficulty.get(name)}
    notes = [f"Strict: {scores['strict']}. Lenient: {scores['lenient']}."]
    if difficulty:
        notes.append(f"Easy: right in {difficulty['by']}.")
    if summary.get("outside"):
        without = f"; {_percent(summary['inside'])} without them" if summary["inside"] else ""
        notes.append(f"{summary['outside']} answers are none of the candidates{without}.")
    return Grid(
        "Two scores",
        " ".join(notes),
        ("type", "N", "chance", "strict", "95 %, by clip", "lenient"),
        tuple(
            (
                name or "(no type)",
                str(row["n"]),
                _percent(row["chance"]),
                _percent(row["accuracy"]),
                " – ".join(map(_percent, row["bootstrap"])),
                _percent(row["lenient"]),
            )
            for name, row in rows.items()
        ),
        (0,),
    )


def _published(found: Mapping[str, Any], senses: Sequence[str]) -> Grid:
    letters = "".join(k for sense in senses for k, name in LETTERS.items() if name == sense)
    columns = list(found["ours"])
    ours = tuple(
        (f"here, {score}", letters, "", *(_percent(found["ours"][c][score]) for c in columns))
        for score in ("strict", "lenient")
    )
    theirs = tuple(
        (
            str(row["method"]),
            str(row["senses"]),
            str(row["table"]),
            *(str(row["values"].get(c, "–")) for c in columns),
        )
        for row in found["rows"]
    )
    differs = f" Not comparable: {found['differs']}." if found["differs"] else ""
    caption = f"The paper's scores are the lenient ones; {found['model']}.{differs}"
    head = ("method", "senses", "table", *columns)
    return Grid("Beside the paper", caption, head, (*ours, *theirs), (0, 1))


def lost(content: Mapping[str, Any]) -> Grid:
    """Of a dropout.json. Raises as :func:`grids` does."""
    random = [
        (
            f"each with probability {row['rate']:g}",
            _percent(row["accuracy"]),
            " – ".join(map(_percent, row["interval"])),
        )
        for row in content["random"]
    ]
    structured = [
        (
            f"{row['missing']} of {len(content['senses'])}",
            _percent(row["accuracy"]),
            f"{_percent(row['least'])} – {_percent(row['most'])}",
        )
        for row in content["structured"]
    ]
    caption = (
        "Exact, from the answers under every subset. First each sense of each question lost on its "
        "own, with the 95 % interval; then so many whole senses, with the least and the most."
    )
    head = ("lost", "accuracy", "range")
    return Grid("When senses go missing", caption, head, (*random, *structured))


def compared(content: Mapping[str, Any]) -> Grid:
    """Of a compare.json. Raises as :func:`grids` does."""
    rows = {"all, strict": content["strict"], "all, lenient": content["lenient"]}
    rows |= content["types"]
    return Grid(
        "Comparison",
        f"A: {content['a']}. B: {content['b']}. p: by changing signs of clips' differences.",
        ("questions", "N", "A", "B", "B − A", "95 %", "p"),
        tuple(
            (
                name,
                str(row["n"]),
                _percent(row["a"]),
                _percent(row["b"]),
                f"{100 * row['difference']:+.1f}",
                " to ".join(f"{100 * x:+.1f}" for x in row["interval"]),
                f"{row['p']:.3f}",
            )
            for name, row in rows.items()
            if row is not None
        ),
        (0,),
    )


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f}"

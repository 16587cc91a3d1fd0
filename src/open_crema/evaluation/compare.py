"""Two evaluations of the same questions: how much better one is, and whether that is chance.

Questions are paired by their ids and drawn by clip: those about one clip are not independent.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from open_crema.errors import CremaError
from open_crema.evaluation import metrics

_DRAWS = 10_000
_READ = ("id", "type", "question", "answers", "correct")
_EXACT = 12  # clips whose signs can all be tried


@dataclass(frozen=True)
class Difference:
    """Of B to A, over n questions. both, only_a, only_b, neither: are right. p: how often a
    difference as large would be seen if the two were exchangeable on each clip; interval: of the
    difference at 95 %, by drawing clips anew."""

    n: int
    a: float
    b: float
    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Comparison:
    """strict: over all questions and by type; lenient: over all (None where one has no such score).
    only_a, only_b: questions that the other one has not scored."""

    a: str
    b: str
    strict: Difference
    types: Mapping[str, Difference]
    lenient: Difference | None
    only_a: int
    only_b: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Of two results folders, as ``crema eval`` writes them.

    Raises CremaError where one holds no predictions, or where the two are not about the same
    questions.
    """
    first, second = read_predictions(Path(a)), read_predictions(Path(b))
    common = [name for name in first if name in second]
    if not common:
        raise CremaError(
            f"{a} and {b} have no question in common: compare results on one data file"
        )
    for name in common:
        for field in ("question", "answers"):
            if first[name][field] != second[name][field]:
                raise CremaError(
                    f"question {name!r} has another {field.rstrip('s')} in {a} than in {b}: "
                    "these are results on different data"
                )
    clips = [str(first[name].get("clip", name)) for name in common]

    def difference(kept: Sequence[int], key: str) -> Difference:
        rows = [(first[common[i]][key], second[common[i]][key]) for i in kept]
        return _difference(rows, [clips[i] for i in kept])

    everything = range(len(common))
    types = sorted({first[name]["type"] for name in common} - {""})
    lenient = all(isinstance(p.get("lenient"), bool) for p in (*first.values(), *second.values()))
    return Comparison(
        a=str(a),
        b=str(b),
        strict=difference(everything, "correct"),
        types={
            name: difference([i for i in everything if first[common[i]]["type"] == name], "correct")
            for name in types
        },
        lenient=difference(everything, "lenient") if lenient else None,
        only_a=len(first) - len(common),
        only_b=len(second) - len(common),
    )


def _difference(rows: Sequence[tuple[bool, bool]], clips: Sequence[str]) -> Difference:
    n = len(rows)
    counts = {key: rows.count(key) for key in itertools.product((True, False), repeat=2)}
    right = np.array(rows, dtype=np.float64)
    gained = right[:, 1] - right[:, 0]
    _, place = np.unique(np.array(clips), return_inverse=True)
    by_clip = np.bincount(place, gained).astype(np.float64)
    same = bool((gained == gained[0]).all())
    interval = (
        (float(gained[0]), float(gained[0]))
        if same
        else metrics.bootstrap(gained.tolist(), place.tolist())
    )
    return Difference(
        n=n,
        a=float(right[:, 0].mean()),
        b=float(right[:, 1].mean()),
        both=counts[True, True],
        only_a=counts[True, False],
        only_b=counts[False, True],
        neither=counts[False, False],
        difference=float(gained.mean()),
        interval=interval,
        p=permutation(by_clip),
    )


def permutation(sums: npt.NDArray[np.float64]) -> float:
    """The share of sign changes of these sums that make the total as far from 0 as it is; of all
    of them for up to 12 that are not 0, else of 10,000 drawn ones and the one that is."""
    moved = sums[sums != 0]
    seen = abs(moved.sum()) - 1e-9
    if len(moved) <= _EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(moved))))
        totals = signs @ moved if len(moved) else np.zeros(1)
        return float((abs(totals) >= seen).mean())
    random = np.random.default_rng(0)
    count = 0
    for start in range(0, _DRAWS, 500):
        signs = random.choice((1.0, -1.0), (min(500, _DRAWS - start), len(moved)))
        count += int((abs(signs @ moved) >= seen).sum())
    return (count + 1) / (_DRAWS + 1)


def read_predictions(folder: Path) -> dict[str, dict[str, Any]]:
    """The scored predictions of a results folder, or of its file, by id. Raises CremaError where
    there is none, or where a line is no prediction."""
    path = folder / "predictions.jsonl" if folder.is_dir() else folder
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise CremaError(f"{path}: no such file; give a results folder of crema eval") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CremaError(f"{path}: cannot be read ({error})") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            if "reason" in said:  # a sample without a score
                continue
            missing = [name for name in _READ if name not in said]
        except (ValueError, TypeError, RecursionError) as error:
            raise CremaError(f"{path}, line {number}: not a prediction ({error})") from None
        if missing:
            raise CremaError(f"{path}, line {number}: not a prediction: no {missing[0]!r}")
        found[said["id"]] = said
    if not found:
        raise CremaError(f"{path}: holds no scored prediction")
    return found


def table(found: Comparison) -> Table:
    """For people."""
    shown = Table(title=f"A: {found.a}\nB: {found.b}", title_justify="left")
    shown.add_column("questions")
    for name in ("N", "A", "B", "B - A", "95 %", "p", "only A", "only B"):
        shown.add_column(name, justify="right")
    rows = [("all, strict", found.strict)]
    if found.lenient is not None:
        rows.append(("all, lenient", found.lenient))
    for i, (name, one) in enumerate((*rows, *found.types.items())):
        low, high = one.interval
        shown.add_row(
            Text(name),
            str(one.n),
            f"{100 * one.a:.1f}",
            f"{100 * one.b:.1f}",
            f"{100 * one.difference:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            f"{one.p:.3f}",
            str(one.only_a),
            str(one.only_b),
            end_section=i == len(rows) - 1,
        )
    notes = ["rates in %; only A, only B: questions that only that one has right"]
    if found.only_a or found.only_b:
        notes.append(
            f"not compared: {found.only_a} questions of A alone, {found.only_b} of B alone"
        )
    shown.caption = Text("\n".join(notes))
    return shown

"""Accuracy when senses go missing: exact, from the answers under every subset of the senses.

Random: each sense of each sample is lost on its own with probability r, so that a subset S of n
senses is left with probability (1-r)^|S| r^(n-|S|). Structured: k whole senses are missing, any as
likely as any other. Neither needs a draw, as every subset has been answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from open_crema.errors import CremaError
from open_crema.evaluation import metrics
from open_crema.evaluation.result import Evaluation
from open_crema.storage import write_json

RATES = tuple(i / 10 for i in range(11))


@dataclass(frozen=True)
class Point:
    """accuracy: the mean over samples of how likely each is right. interval: at 95 %, by drawing
    clips anew."""

    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Missing:
    """Of all subsets of so many senses: the mean, and the least and the most that one has."""

    accuracy: float
    least: float
    most: float
    subsets: int


@dataclass(frozen=True)
class Dropout:
    """random: rate -> point. structured: number of missing senses -> what is left."""

    senses: tuple[str, ...]
    random: Mapping[float, Point]
    structured: Mapping[int, Missing]

    def to_dict(self) -> dict[str, Any]:
        return {
            "senses": list(self.senses),
            "random": [{"rate": rate, **asdict(p)} for rate, p in self.random.items()],
            "structured": [{"missing": k, **asdict(m)} for k, m in self.structured.items()],
        }


def dropout(evaluations: Sequence[Evaluation]) -> Dropout | None:
    """None where not every subset of the most senses has been answered."""
    by_senses = {frozenset(one.senses): one for one in evaluations}
    full = max(by_senses, key=len)
    n = len(full)
    if n < 2 or len([s for s in by_senses if s <= full]) < 2**n:
        return None
    clips = [p.clip for p in evaluations[0].predictions]
    right = {s: [p.correct for p in one.predictions] for s, one in by_senses.items()}

    def point(rate: float) -> Point:
        weights = {s: (1 - rate) ** len(s) * rate ** (n - len(s)) for s in right}
        values = [sum(weights[s] * right[s][i] for s in right) for i in range(len(clips))]
        values = [min(max(value, 0.0), 1.0) for value in values]
        return Point(sum(values) / len(values), metrics.bootstrap(values, clips))

    structured = {}
    for k in range(n + 1):
        rates = [one.accuracy for s, one in by_senses.items() if s <= full and len(s) == n - k]
        structured[k] = Missing(sum(rates) / len(rates), min(rates), max(rates), len(rates))
    senses = next(one.senses for one in evaluations if frozenset(one.senses) == full)
    return Dropout(senses, {rate: point(rate) for rate in RATES}, structured)


def write(found: Dropout, folder: str | Path) -> None:
    """``dropout.json`` and ``dropout.png``. Raises CremaError where they cannot be written."""
    folder = Path(folder)
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rates, points = list(found.random), list(found.random.values())
    left.plot(rates, [100 * p.accuracy for p in points], marker="o", markersize=3)
    lows, highs = zip(*(p.interval for p in points), strict=True)
    left.fill_between(rates, [100 * x for x in lows], [100 * x for x in highs], alpha=0.2)
    left.set(xlabel="share of senses lost at random", ylabel="accuracy, %")
    counts, missing = list(found.structured), list(found.structured.values())
    right.plot(counts, [100 * m.accuracy for m in missing], marker="o", markersize=3)
    right.fill_between(
        counts, [100 * m.least for m in missing], [100 * m.most for m in missing], alpha=0.2
    )
    right.set(xlabel="senses missing (band: least and most)", xticks=counts)
    for ax in (left, right):
        ax.grid(alpha=0.3)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / "dropout.png", dpi=120)
        write_json(folder / "dropout.json", found.to_dict())
    except OSError as error:
        raise CremaError(f"{folder}: the curves cannot be written ({error})") from None


def table(found: Dropout) -> Table:
    """For people."""
    shown = Table(title="accuracy when senses go missing, in %", title_justify="left")
    shown.add_column("lost")
    for name in ("accuracy", "95 %", "least - most"):
        shown.add_column(name, justify="right")
    for rate in RATES[::2]:
        one = found.random[rate]
        low, high = one.interval
        shown.add_row(
            f"each with probability {rate:.1f}",
            f"{100 * one.accuracy:.1f}",
            f"{100 * low:.1f} - {100 * high:.1f}",
            "",
            end_section=rate == RATES[-1],
        )
    for k, own in found.structured.items():
        shown.add_row(
            f"{k} of {len(found.senses)}",
            f"{100 * own.accuracy:.1f}",
            "",
            f"{100 * own.least:.1f} - {100 * own.most:.1f}",
        )
    return shown

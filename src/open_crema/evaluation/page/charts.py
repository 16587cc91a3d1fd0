"""Curves of a training log as SVG paths that stretch to any width; texts stand beside them in HTML.

Coordinates of paths are 0 to 1000 both ways, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from open_crema.evaluation.page.found import Log, is_number
from open_crema.modality import canonical

_SIDE = 1000
_POINTS = 240  # of a curve
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """path: the smoothed curve; dots: places (percent from left and top) of single figures. last:
    its last value as text."""

    name: str
    path: str
    dots: tuple[tuple[float, float], ...]
    last: str


@dataclass(frozen=True)
class Tick:
    """place: percent from the left, or from the top."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """marks: vertical lines with a text."""

    title: str
    note: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    marks: tuple[Tick, ...] = ()

    @property
    def summary(self) -> str:
        """For who does not see it."""
        ends = ", ".join(f"{s.name} ends at {s.last}" for s in self.series)
        return f"{self.title}: {self.y_label} by {self.x_label}; {ends}"


@dataclass(frozen=True)
class Indicator:
    """A sense's early-exit indicator (paper 3.3) of one epoch: its gradient over the mean of those
    before; None in the first epoch."""

    epoch: int
    gradient: float
    ratio: float | None
    exits: bool


def charts(log: Log) -> list[Chart]:
    """Those for which the log has figures."""
    drawn = [_losses(log), _gradients(log), _validation(log), _alignment(log)]
    return [chart for chart in drawn if chart is not None]


def _losses(log: Log) -> Chart | None:
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in log.of("step"):
        sense = str(line.get("sense", "all"))
        curves.setdefault(sense, []).append((line["step"], line["loss"]))
    return _chart("Training loss", "", "step", "loss", _named(curves))


def _gradients(log: Log) -> Chart | None:
    curves = _named(_by_sense(log))
    spread = [v for points in curves.values() for _, v in points if v > 0]
    logarithmic = bool(spread) and max(spread) > 20 * min(spread)
    note = "Dots: means of epochs, which early exit compares."
    means = {
        sense: [(middle, mean) for _, middle, mean in _epoch_means(log, sense)] for sense in curves
    }
    exits = {s: end for s, end in _exits(log).items() if s in curves}
    return _chart(
        "Gradient by sense",
        note if any(len(dots) > 1 for dots in means.values()) else "",
        "step",
        "gradient",
        curves,
        dots=means,
        marks=exits,
        logarithmic=logarithmic,
    )


def indicators(log: Log) -> dict[str, list[Indicator]]:
    """sense -> its indicator of each epoch, where there are two or more."""
    exited = _exited(log)
    found: dict[str, list[Indicator]] = {}
    for sense in _named(_by_sense(log)):
        past: list[float] = []
        rows = []
        for epoch, _, mean in _epoch_means(log, sense):
            before = sum(past) / len(past) if past else 0.0
            ratio = mean / before if before > 0 else None
            rows.append(Indicator(epoch, mean, ratio, exited.get(sense) == epoch))
            past.append(mean)
        if len(rows) > 1:
            found[sense] = rows
    return found


def _validation(log: Log) -> Chart | None:
    points = [
        (line["epoch"] + 1, 100 * line["validation"]["accuracy"])
        for line in log.of("epoch")
        if isinstance(line.get("validation"), dict)
        and is_number(line["validation"].get("accuracy"))
    ]
    curves = {"accuracy": points} if points else {}
    return _chart("Validation", "", "epochs done", "accuracy, %", curves, dots=curves)


def _alignment(log: Log) -> Chart | None:
    points = [(n, line["loss"]) for n, line in enumerate(log.of("align"))]
    curves = {"alignment": points} if points else {}
    return _chart("Alignment stage", "", "step", "loss", curves)


def _by_sense(log: Log) -> dict[str, list[tuple[float, float]]]:
    """The gradients of each sense by step, of sequential and of joint training."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in log.of("step"):
        given = line.get("gradient")
        own = given if isinstance(given, Mapping) else {str(line.get("sense", "all")): given}
        for sense, value in own.items():
            if value is not None and is_number(value):
                curves.setdefault(sense, []).append((line["step"], value))
    return curves


def _epoch_means(log: Log, sense: str) -> list[tuple[int, float, float]]:
    """Epoch, the step in its middle, and the mean gradient of each epoch."""
    epoch_of = {line["step"]: line["epoch"] for line in log.of("step")}
    epochs: dict[int, list[tuple[float, float]]] = {}
    for step, value in _by_sense(log)[sense]:
        epochs.setdefault(epoch_of[step], []).append((step, value))
    return [
        (epoch, sum(s for s, _ in own) / len(own), sum(v for _, v in own) / len(own))
        for epoch, own in sorted(epochs.items())
    ]


def _exits(log: Log) -> dict[str, float]:
    """sense -> the last step in which it was trained, for those that have left."""
    last: dict[int, float] = {}
    for line in log.of("step"):
        last[line["epoch"]] = line["step"]
    return {sense: last[epoch] for sense, epoch in _exited(log).items() if epoch in last}


def _exited(log: Log) -> dict[str, int]:
    """sense -> the epoch after which it left."""
    found: dict[str, int] = {}
    for line in log.of("epoch"):
        exited = line.get("exited")
        found |= exited if isinstance(exited, dict) else {}
    return found


def _named(curves: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    return {sense: curves[sense] for sense in canonical(curves)}


def _chart(
    title: str,
    note: str,
    x_label: str,
    y_label: str,
    curves: Mapping[str, Points],
    *,
    dots: Mapping[str, Points] | None = None,
    marks: Mapping[str, float] | None = None,
    logarithmic: bool = False,
) -> Chart | None:
    if not any(curves.values()):
        return None
    smooth = {name: _smooth(points) for name, points in curves.items()}
    every = [p for points in (*smooth.values(), *(dots or {}).values()) for p in points]
    floor = min((y for _, y in every if y > 0), default=1.0)

    def height(y: float) -> float:
        return math.log10(max(y, floor)) if logarithmic else y

    x_low, x_high = min(x for x, _ in every), max(x for x, _ in every)
    y_low, y_high = min(height(y) for _, y in every), max(height(y) for _, y in every)
    if not logarithmic:
        y_low = min(0.0, y_low)
    x_high, y_high = max(x_high, x_low + 1), y_high if y_high > y_low else y_low + 1

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - x_low) / (x_high - x_low), 1 - (height(y) - y_low) / (y_high - y_low)

    def path(points: Points) -> str:
        places = (at(x, y) for x, y in points)
        return "M" + "L".join(f"{_SIDE * x:.0f} {_SIDE * y:.0f}" for x, y in places)

    def percent(points: Points) -> tuple[tuple[float, float], ...]:
        return tuple((round(100 * x, 2), round(100 * y, 2)) for x, y in (at(*p) for p in points))

    y_values = _decades(y_low, y_high) if logarithmic else _nice(y_low, y_high, 4)
    return Chart(
        title=title,
        note=note,
        x_label=x_label,
        y_label=y_label + (", logarithmic" if logarithmic else ""),
        x_ticks=tuple(
            Tick(round(100 * at(v, floor)[0], 2), _text(v))
            for v in _nice(x_low, x_high, 5, whole=True)
        ),
        y_ticks=tuple(Tick(round(100 * at(x_low, v)[1], 2), _text(v)) for v in y_values),
        series=tuple(
            Series(name, path(points), percent((dots or {}).get(name, ())), _text(points[-1][1]))
            for name, points in smooth.items()
        ),
        marks=tuple(
            Tick(round(100 * at(x, floor)[0], 2), f"{name} exits")
            for name, x in (marks or {}).items()
        ),
    )


def _smooth(points: Points) -> Points:
    """A running mean over a fortieth of the curve, at no more than _POINTS places."""
    wide = max(1, len(points) // 40)
    if wide == 1:
        return points
    total = [0.0]
    for _, y in points:
        total.append(total[-1] + y)
    places = sorted({round(i * (len(points) - 1) / (_POINTS - 1)) for i in range(_POINTS)})
    means = []
    for i in places:
        low, high = max(0, i - wide // 2), min(len(points), i + wide // 2 + 1)
        means.append((points[i][0], (total[high] - total[low]) / (high - low)))
    return means


def _nice(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Round numbers between two, about so many."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 10, 100 ..., with 2 and 5 of each where there are few; logarithms in, numbers out."""
    steps = (1.0,) if high - low > 2 else (1.0, 2.0, 5.0)
    numbers = [m * 10.0**n for n in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    return [n for n in numbers if low <= math.log10(n) <= high]


def _text(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"

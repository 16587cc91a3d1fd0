"""Early exit at inference as a curve: what each threshold of confidence costs and how often it is
right, from one evaluation of every prefix of the senses in the order of their cost.

The rule is that of ``crema ask --confidence``: senses are read one by one, cheapest first, until
the answer's probability is above the threshold. A sense that a sample lacks makes no round.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Source
from open_crema.errors import CremaError, DataError
from open_crema.evaluation.metrics import wilson
from open_crema.evaluation.result import Evaluation, Prediction
from open_crema.evaluation.subsets import Subset, name_of, unique
from open_crema.modality import canonical
from open_crema.sense_costs import SenseCosts, cheapest_first, cost_key
from open_crema.storage import write_json

SHOWN = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)  # thresholds of the table and the picture


@dataclass(frozen=True)
class Prices:
    """seconds: what each sense is expected to take on this machine, cheapest first (in the unit of
    a modality's relative cost where none was measured). measured: those that were."""

    seconds: Mapping[str, float]
    measured: Subset

    @property
    def order(self) -> Subset:
        return tuple(self.seconds)

    @property
    def primary(self) -> str:
        """The first one in canonical order: video, if there."""
        return canonical(self.seconds)[0]

    @property
    def prefixes(self) -> list[Subset]:
        """The first sense, the first two, ..., all; each in canonical order."""
        order = self.order
        return [tuple(canonical(order[:n])) for n in range(1, len(order) + 1)]

    @property
    def subsets(self) -> list[Subset]:
        """What :func:`exit_curve` needs to be evaluated: the primary sense, and the prefixes."""
        return unique([(self.primary,), *self.prefixes])

    @property
    def unit(self) -> str:
        return "seconds" if self.measured else "relative cost"


def prices(dataset: FeatureDataset, senses: Sequence[str], costs: SenseCosts) -> Prices:
    """What the senses of a data set cost, by what has been measured.

    A sense is priced as what makes it for most samples (its reader, or the expert that makes it
    from the video); one that no sample has is left out. Raises DataError where none is left.
    """
    makers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in dataset.samples:
        for sense in senses:
            source = dataset.extractor.source(sample, sense)
            if isinstance(source, Source):
                makers[sense][cost_key(sense, source.maker)] += 1
    if not makers:
        raise DataError(
            "no question names media of the model's senses: there is no order of cost to exit by"
        )
    keys = {sense: makers[sense].most_common(1)[0][0] for sense in canonical(makers)}
    seconds = costs.expected(keys)
    return Prices(
        {sense: seconds[sense] for sense in cheapest_first(keys, seconds)},
        tuple(sense for sense, key in keys.items() if costs.measured(key) is not None),
    )


@dataclass(frozen=True)
class Round:
    """A sample answered with one sense more than in the round before. seconds: the price of the
    senses that it has got; senses: their number."""

    confidence: float
    correct: bool
    seconds: float
    senses: int


@dataclass(frozen=True)
class Outcome:
    """Rates over all samples; interval: Wilson's at 95 %. seconds, senses: means a sample."""

    n: int
    correct: int
    accuracy: float
    interval: tuple[float, float]
    seconds: float
    senses: float


def outcomes(samples: Sequence[Sequence[Round]]) -> Iterator[tuple[float, Outcome]]:
    """``(threshold, outcome)`` in rising order, from the rounds of each sample (at least one).

    A sample stops at the first round whose confidence is above the threshold, or else at its last.
    Each outcome holds up to the next threshold; the first threshold is 0, the others are
    confidences of the samples. Raises ValueError for no samples.
    """
    at = [0] * len(samples)
    chosen = [rounds[0] for rounds in samples]
    correct = sum(r.correct for r in chosen)
    seconds, senses = math.fsum(r.seconds for r in chosen), sum(r.senses for r in chosen)
    # A sample leaves a round once the threshold reaches all of its confidences so far.
    leaves = []
    for i, rounds in enumerate(samples):
        highest = 0.0
        for r in rounds[:-1]:
            highest = max(highest, r.confidence)
            leaves.append((highest, i))
    threshold = 0.0
    for reached, i in sorted(leaves):
        if reached > threshold:
            yield threshold, _outcome(len(samples), correct, seconds, senses)
            threshold = reached
        old, new = samples[i][at[i]], samples[i][at[i] + 1]
        at[i] += 1
        correct += new.correct - old.correct
        seconds += new.seconds - old.seconds
        senses += new.senses - old.senses
    yield threshold, _outcome(len(samples), correct, seconds, senses)


def _outcome(n: int, correct: int, seconds: float, senses: int) -> Outcome:
    return Outcome(n, correct, correct / n, wilson(correct, n), seconds / n, senses / n)


@dataclass(frozen=True)
class ExitCurve:
    """thresholds, outcomes: as of :func:`outcomes`. fixed: what sets of senses give and cost that
    do not depend on the answer: the primary sense alone, and every prefix."""

    prices: Prices
    thresholds: tuple[float, ...]
    outcomes: tuple[Outcome, ...]
    fixed: Mapping[Subset, Outcome]
    expected: int
    skipped: Mapping[str, int]

    def at(self, threshold: float) -> Outcome:
        """What ``ask --confidence threshold`` would give; ValueError below 0."""
        if not threshold >= 0:
            raise ValueError(f"threshold {threshold} is below 0")
        return self.outcomes[bisect_right(self.thresholds, threshold) - 1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the content of ``exit_curve.json``."""
        points = zip(self.thresholds, self.outcomes, strict=True)
        return {
            "order": list(self.prices.order),
            "unit": self.prices.unit,
            "price": dict(self.prices.seconds),
            "measured": list(self.prices.measured),
            "expected": self.expected,
            "scored": self.outcomes[0].n,
            "skipped": dict(self.skipped),
            "fixed": [{"given": list(given), **asdict(o)} for given, o in self.fixed.items()],
            "points": [{"threshold": threshold, **asdict(o)} for threshold, o in points],
        }


def exit_curve(evaluations: Sequence[Evaluation], paid: Prices) -> ExitCurve:
    """evaluations: of the same samples and with confidences, one for each of the prices' subsets;
    others are passed over. Raises KeyError where one is missing."""
    by_senses = {e.senses: e for e in evaluations}
    prefixes = [by_senses[senses] for senses in paid.prefixes]
    samples = [
        _rounds(said, paid.seconds) for said in zip(*(e.predictions for e in prefixes), strict=True)
    ]
    thresholds, points = zip(*outcomes(samples), strict=True)
    fixed = {}
    for senses in paid.subsets:
        given = [_round(p, paid.seconds) for p in by_senses[senses].predictions]
        ((_, fixed[senses]),) = outcomes([[r] for r in given])
    first = prefixes[0]
    return ExitCurve(paid, thresholds, points, fixed, first.expected, first.reasons)


def _rounds(said: Sequence[Prediction], seconds: Mapping[str, float]) -> list[Round]:
    """Those of one sample; one that has no sense at all has the last, on its question alone."""
    told: tuple[str, ...] = ()
    found = []
    for prediction in said:
        if prediction.senses != told:
            found.append(_round(prediction, seconds))
        told = prediction.senses
    return found or [_round(said[-1], seconds)]


def _round(said: Prediction, seconds: Mapping[str, float]) -> Round:
    if said.confidence is None:
        raise ValueError(f"sample {said.id!r} was answered without a confidence")
    paid = math.fsum(seconds.get(sense, 0.0) for sense in said.senses)
    return Round(said.confidence, said.correct, paid, len(said.senses))


def write_curve(curve: ExitCurve, folder: str | Path) -> Path:
    """Writes ``exit_curve.png`` and ``exit_curve.json``; CremaError where that cannot be done."""
    folder = Path(folder)
    target = folder / "exit_curve.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        draw(curve).savefig(folder / "exit_curve.png", format="png", dpi=120)
        part = folder / "exit_curve.json.part"
        write_json(part, curve.to_dict())
        part.replace(target)
    except OSError as error:
        raise CremaError(f"{folder}: the results cannot be written ({error})") from None
    return target


def draw(curve: ExitCurve) -> Figure:
    """Accuracy against mean cost, with the interval as a band, thresholds along the curve, and the
    sets of senses that do not depend on the answer beside it."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.subplots()
    cost = [o.seconds for o in curve.outcomes]
    low, high = ([100 * o.interval[side] for o in curve.outcomes] for side in (0, 1))
    ax.fill_between(cost, low, high, alpha=0.15, linewidth=0)
    ax.plot(cost, [100 * o.accuracy for o in curve.outcomes], label="exit when sure enough")
    room = (cost[-1] - cost[0]) / 20  # a label's; the last threshold is that of all senses
    labelled = -math.inf
    for p in SHOWN:
        point = curve.at(p)
        where = (point.seconds, 100 * point.accuracy)
        if point.seconds - labelled > room and (p == 0 or cost[-1] - point.seconds > room):
            labelled = point.seconds
            ax.plot(*where, "o", color="tab:blue", markersize=4)
            ax.annotate(f"{p:g}", where, xytext=(0, 7), textcoords="offset points", ha="center")
    costs = [o.seconds for o in curve.fixed.values()]
    rates = [100 * o.accuracy for o in curve.fixed.values()]
    ax.plot(costs, rates, "s", color="tab:orange", markersize=5, label="always the same senses")
    names = _fixed_names(curve)
    for name, x, y in zip(names, costs, rates, strict=True):
        ax.annotate(name, (x, y), xytext=(5, -12), textcoords="offset points", fontsize="small")
    note = "seconds" if curve.prices.measured else "relative, not measured here"
    ax.set(
        xlabel=f"mean cost of the senses of a question ({note})",
        ylabel="accuracy, %",
        title=f"early exit at inference, N = {curve.outcomes[0].n}; numbers: confidence threshold",
    )
    ax.margins(x=0.18, y=0.12)
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
    return figure


def _fixed_names(curve: ExitCurve) -> list[str]:
    """Short ones: a prefix is named by what it has more than the one before."""
    order = curve.prices.order
    added = {curve.prices.prefixes[n]: f"+ {sense}" for n, sense in enumerate(order) if n}
    names = [added.get(given, name_of(given)) for given in curve.fixed]
    if len(order) > 1:
        names[-1] += " (all)"
    return names


def table(curve: ExitCurve) -> Table:
    """A few thresholds of the curve, and the sets of senses that do not depend on the answer."""
    shown = Table(title="early exit at inference; rates in %")
    shown.add_column("exit above")
    for name in ("accuracy", "95 % interval", f"mean {curve.prices.unit}", "mean senses"):
        shown.add_column(name, justify="right")
    for p in SHOWN:
        shown.add_row(f"{p:g}", *_cells(curve.at(p)))
    shown.add_section()
    for name, outcome in zip(_fixed_names(curve), curve.fixed.values(), strict=True):
        shown.add_row(f"always {name}", *_cells(outcome))
    n, skipped = curve.outcomes[0].n, sum(curve.skipped.values())
    order = ", ".join(f"{sense} {price:.3g}" for sense, price in curve.prices.seconds.items())
    shown.caption = (
        f"expected {curve.expected} = scored {n} + skipped {skipped}\n"
        f"{curve.prices.unit} of each sense, in order: {order}"
    )
    if guessed := [s for s in curve.prices.order if s not in curve.prices.measured]:
        shown.caption += f"\nnot measured on this machine (`crema ask` does): {', '.join(guessed)}"
    return shown


def _cells(outcome: Outcome) -> list[str]:
    low, high = outcome.interval
    return [
        f"{100 * outcome.accuracy:.1f}",
        f"{100 * low:.1f} - {100 * high:.1f}",
        f"{outcome.seconds:.3f}",
        f"{outcome.senses:.2f}",
    ]

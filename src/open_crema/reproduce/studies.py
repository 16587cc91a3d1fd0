"""The studies, each a function of the bench that gives tables.

A claim is what the paper says or the base promises; the table shows whether it holds here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from open_crema import experiment
from open_crema.errors import ConfigError, did_you_mean
from open_crema.evaluation.exit_curve import SHOWN
from open_crema.evaluation.subsets import BLIND, name_of
from open_crema.reproduce import training, ways
from open_crema.reproduce.bench import Bench
from open_crema.reproduce.table import Count, Table
from open_crema.senseqa.types import IN_TIME, TYPES, needing
from open_crema.storage import read_json


@dataclass(frozen=True)
class Study:
    """claim: what is put to the test. run: gives the tables."""

    claim: str
    run: Callable[[Bench], Iterator[Table]]


def find(name: str) -> Study:
    """The study of that name. Raises ConfigError that names the nearest one."""
    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES)
        raise ConfigError(f"no study {name!r} of senseqa: {hint}known: {', '.join(STUDIES)}")
    return STUDIES[name]


def _senses(bench: Bench) -> Iterator[Table]:
    every = bench.senses
    head = ["type", "N", "chance", "blind", "video", "video + sense", "all", "all but the sense"]
    rows, sums = [], []
    for sense in every[1:]:
        types = needing(sense, "video")
        without = [s for s in every if s != sense]
        shown = [(), ("video",), ("video", sense), every, without]
        scores = bench.scored(f"senses-{sense}", types, shown)
        for name in types:
            rows.append(_row(name, [scores[name_of(s)]["types"] for s in shown], [name]))
        columns = [scores[name_of(s)]["types"] for s in shown]
        row = _row(f"all of {sense}", columns, types)
        rows.append(row)
        alone, both = (Count.of(scores[name_of(s)]["types"], types) for s in shown[1:3])
        sums.append([sense, str(both.n), str(alone), str(both), f"{both.rate - alone.rate:+.0f}"])
    yield Table(
        "Questions that need a sense",
        head,
        rows,
        "Right answers in % (95 % Wilson interval); clips of seeds never seen; one base.",
    )
    yield Table("What each sense adds", ["sense", "N", "video", "video + sense", "points"], sums)


def _video(bench: Bench) -> Iterator[Table]:
    every, types = bench.senses, needing("video")
    shown = [(), ("video",), *(("video", s) for s in every[1:]), every]
    scores = bench.scored("video", types, shown)
    rows = []
    for subset in shown:
        own = scores[name_of(subset)]["types"]
        whole = Count.of(own, types)
        cells = [str(Count.of(own, [name])) for name in types]
        rows.append([name_of(subset), str(whole), *cells])
    chance = Count.of(scores[BLIND]["types"], types)
    yield Table(
        "Questions that video alone answers",
        ["given", "all", *types],
        rows,
        f"N {chance.n}, {chance.n // len(types)} a type; chance {chance.chance}.",
    )


def _missing(bench: Bench) -> Iterator[Table]:
    four = tuple(s for s in training.SENSES if s in bench.senses)
    types = [n for n, kind in TYPES.items() if set(kind.needs) <= set(four)]
    shown = [subset for size in range(len(four) + 1) for subset in combinations(four, size)]
    scores = bench.scored("missing", types, shown)
    groups = {"video": needing("video"), **{s: needing(s, "video") for s in four[1:]}}
    groups |= {"two": tuple(n for n in types if len({*TYPES[n].needs} - {"video"}) > 1)}
    groups = {name: own for name, own in groups.items() if own}
    rows = [
        [name_of(s), *(str(Count.of(scores[name_of(s)]["types"], own)) for own in groups.values())]
        for s in shown
    ]
    first = scores[BLIND]["types"]
    rows.append(["chance", *(Count.of(first, own).chance for own in groups.values())])
    rows.append(["N", *(str(Count.of(first, own).n) for own in groups.values())])
    yield Table(
        f"Every subset of {', '.join(four)}: questions by what they need", ["given", *groups], rows
    )


def _alone(bench: Bench) -> Iterator[Table]:
    rows = []
    for sense in bench.senses[1:]:
        types = needing(sense)
        if not types:
            continue
        shown = [(), (sense,), ("video", sense)]
        scores = bench.scored(f"alone-{sense}", types, shown)
        rows.append(_row(sense, [scores[name_of(s)]["types"] for s in shown], types))
    yield Table(
        "A sense alone, without video, on the types that need nothing else",
        ["sense", "N", "chance", "blind", "alone", "with video"],
        rows,
    )


def _pairs(bench: Bench) -> Iterator[Table]:
    rows = []
    for name, kind in TYPES.items():
        both = [s for s in kind.needs if s != "video"]
        if len(both) < 2 or not set(both) <= set(bench.senses):
            continue
        shown = [(), ("video",), *(("video", s) for s in both), ("video", *both)]
        scores = bench.scored(f"pairs-{name}", [name], shown)
        cells = [str(Count.of(scores[name_of(s)]["types"], [name])) for s in shown]
        count = Count.of(scores[BLIND]["types"], [name])
        rows.append([name, " + ".join(both), str(count.n), count.chance, *cells])
    yield Table(
        "Two senses whose adapters were trained apart, on questions that need both",
        ["type", "needs", "N", "chance", "blind", "video", "+ first", "+ second", "+ both"],
        rows,
    )


def _confidence(bench: Bench) -> Iterator[Table]:
    four = [s for s in training.SENSES if s in bench.senses]
    types = [n for n, k in TYPES.items() if {*k.needs} <= {*four} and n not in IN_TIME]
    place = bench.out / "results" / "confidence"
    if not (place / "exit_curve.json").exists():
        asking = bench.asking("confidence", types, 1)
        experiment.evaluate_subsets(asking, bench.base, curve=True, senses=four, out=place)
    curve = read_json(place / "exit_curve.json", "crema eval --confidence-curve writes it")
    rows = []
    for threshold in SHOWN:
        # Each point holds up to the next one.
        point = [p for p in curve["points"] if p["threshold"] <= threshold][-1]
        rows.append([f"{threshold:g}", *_outcome(point)])
    rows += [[f"always {name_of(o['given'])}", *_outcome(o)] for o in curve["fixed"]]
    yield Table(
        f"Early exit at inference: {', '.join(curve['order'])}, cheapest first",
        ["exit above", "right (95 % interval)", f"mean {curve['unit']}", "mean senses"],
        rows,
        f"N expected {curve['expected']}, scored {curve['scored']}; picture: {place.name}/"
        "exit_curve.png below results.",
    )


def _outcome(said: Mapping[str, Any]) -> list[str]:
    return [
        str(Count(said["correct"], said["n"], 0.0)),
        f"{said['seconds']:.3g}",
        f"{said['senses']:.2f}",
    ]


def _row(
    title: str, columns: Sequence[Mapping[str, Mapping[str, float]]], types: Sequence[str]
) -> list[str]:
    counts = [Count.of(column, types) for column in columns]
    return [title, str(counts[0].n), counts[0].chance, *map(str, counts)]


STUDIES: Mapping[str, Study] = {
    "senses": Study("Each sense answers what only it can.", _senses),
    "video": Study("What video answers is not harmed by a sense that is added.", _video),
    "missing": Study("Every subset of the senses works.", _missing),
    "alone": Study("A sense works without video.", _alone),
    "pairs": Study("Adapters that were trained apart work together.", _pairs),
    "confidence": Study("Senses that are read only when needed cost less.", _confidence),
    "fusion": Study("Self-gated fusion is as good as any, with fewer tokens.", training.fusion),
    "strategy": Study("Senses trained in turn beat all at once.", training.strategy),
    "exit": Study(
        "A sense that stops in time saves training and costs nothing.", training.early_exit
    ),
    "start": Study("A new adapter learns faster from the video's.", training.start),
    "rank": Study("A small rank is enough.", ways.rank),
    "instead": Study("An adapter is as good as what costs more.", ways.instead),
}

"""Whether each type of question is closed to who lacks its sense, and open to who has it.

Simple classifiers answer the questions of one type after another, in a cross-validation over their
groups: from the words alone, from all senses but one that the type needs, and from those that it
needs. What they look at is in `probes`.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from open_crema.errors import ConfigError, CremaError
from open_crema.progress import bar
from open_crema.senseqa.classify import FOREST, LINEAR, answers, open_to, words
from open_crema.senseqa.clips import GroupClips
from open_crema.senseqa.looks import Array, Look
from open_crema.senseqa.probes import PROBES, Probe
from open_crema.senseqa.sets import Group, Question, Spec, groups
from open_crema.senseqa.types import TYPES, VERSION, find

SOLVED, HARD, UNSOLVED = "solved", "hard", "unsolved"
_SURE = 0.95
_ENOUGH = 0.5  # of the pairs, which a solved type's probe surely gets right
_CHUNK = 20  # groups
WITH = "with"

T = TypeVar("T")


@dataclass(frozen=True)
class Rate:
    """A rate, its Wilson interval at 95 %, and the wider one of the whole table (see Audit)."""

    rate: float
    low: float
    high: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, correct: int, total: int, sure: float, *, part: float = 1.0) -> Rate:
        """part: what the rate is multiplied by."""
        found = binomtest(correct, total)
        ends = [found.proportion_ci(level, method="wilson") for level in (_SURE, sure)]
        rates = correct / total, *(end for both in ends for end in (both.low, both.high))
        return cls(*(float(part * rate) for rate in rates))

    def surely_holds(self, rate: float) -> bool:
        """Whether the wider interval has it."""
        return self.lowest - 1e-9 <= rate <= self.highest + 1e-9


@dataclass(frozen=True)
class Row:
    """A type and one sense that it needs.

    chance: of a guess among the options, or the candidates. blind, without, seen: accuracy over the
    questions, from the words, from all but the sense, and from what is needed. without_pairs,
    seen_pairs: over the pairs that differ in the sense, both answers right.
    """

    type: str
    sense: str
    questions: int
    pairs: int
    chance: float
    blind: Rate
    without: Rate
    without_pairs: Rate
    seen: Rate
    seen_pairs: Rate

    @property
    def closed(self) -> bool:
        """Whether nothing speaks against that the rates without the sense are those of chance: it
        is in both of the wider intervals, and no pair is answered."""
        at_chance = all(rate.surely_holds(self.chance) for rate in (self.blind, self.without))
        return at_chance and self.without_pairs.rate == 0

    @property
    def verdict(self) -> str:
        if self.seen_pairs.low > _ENOUGH:
            return SOLVED
        return HARD if self.seen.lowest > self.chance else UNSOLVED


@dataclass(frozen=True)
class Audit:
    """sure: the level of each wider interval, such that all of them hold their rates at 95 %: of
    twice as many rates as there are rows some 5 % leave an interval at 95 % by luck."""

    split: str
    seed: int
    n: int
    sure: float
    rows: tuple[Row, ...]

    @property
    def faults(self) -> list[str]:
        """The types that are not closed, or not solved at all."""
        bad = [row.type for row in self.rows if not row.closed or row.verdict == UNSOLVED]
        return list(dict.fromkeys(bad))

    def json(self) -> dict[str, Any]:
        rows = [{**asdict(r), "closed": r.closed, "verdict": r.verdict} for r in self.rows]
        return {**asdict(self), "version": VERSION, "rows": rows}


@dataclass(frozen=True)
class Seen:
    """The questions of a type, the number of each one's group, and the features of each probe
    (``WITH``, or the sense that is withheld): [n, d] or [n, candidates, d]."""

    type: str
    questions: tuple[Question, ...]
    groups: Array
    features: dict[str, Array]


def audit(
    n: int,
    *,
    seed: int = 0,
    split: str = "val",
    types: Sequence[str] = tuple(TYPES),
    out: Path | None = None,
    workers: int = 0,
) -> Audit:
    """Asks n questions of each type, or a few more to make whole groups.

    out: a folder where features are kept, so that an audit that was cut short goes on with them.
    workers: processes; 0: one for each core that this process may use. They import the program's
    main module, so a script calls this under ``if __name__ == "__main__"``.

    Raises ConfigError for what cannot be asked, and for the split "outside", which nothing may see.
    """
    if split == "outside":
        raise ConfigError("split 'outside' is for checks of others; take train, val or test")
    if workers < 0:
        raise ConfigError(f"{workers} workers: give 1 or more, or 0 for all cores")
    specs = [Spec(split, seed, _whole(n, name), (name,)) for name in map(_named, types)]
    specs = sorted(set(specs), key=lambda spec: list(TYPES).index(spec.types[0]))
    _code()
    tests = 2 * sum(len(find(spec.types[0]).flips) for spec in specs)
    sure = 1 - (1 - _SURE) / tests
    verdicts: list[Future[list[Row]]] = []
    with _executor(workers) as executor, bar() as progress:
        task = progress.add_task("looking", total=sum(s.count for s in specs), note="")
        for spec in specs:
            progress.update(task, note=spec.types[0])
            seen = _collect(spec, executor, out, lambda count: progress.advance(task, count))
            verdicts.append(executor.submit(judge, seen, sure))
        progress.update(task, note="answering")
        rows = tuple(row for future in verdicts for row in future.result())
    return Audit(split, seed, n, sure, rows)


def _named(name: str) -> str:
    return find(name).name


def _whole(n: int, name: str) -> int:
    """The number of questions that fills the last group."""
    size = 1 << len(find(name).flips)
    return size * math.ceil(n / size)


def _collect(
    spec: Spec, executor: Executor, out: Path | None, advance: Callable[[float], None]
) -> Seen:
    """The features of a set of one type, kept or new."""
    name = spec.types[0]
    path = out and out / "features" / f"{name}.npz"
    key = json.dumps([VERSION, _code(), spec.split, spec.seed, spec.count, name])
    if path and (kept := _read(path, key)):
        advance(spec.count)
        return kept
    every = list(groups(spec))
    starts, parts = range(0, len(every), _CHUNK), []
    for start in starts:
        chunk = every[start : start + _CHUNK]
        parts.append(executor.submit(look, chunk))
        parts[-1].add_done_callback(lambda _: advance(spec.count / len(starts)))
    seen = _joined([part.result() for part in parts])
    if path:
        _write(path, key, seen)
    return seen


def look(every: Sequence[Group], probe: Probe | None = None) -> Seen:
    """What the probe of a type sees of groups of it. probe: by default the one in PROBES."""
    name = every[0].kind.name
    probe = probe or PROBES[name]
    questions, numbers, features = [], [], defaultdict(list)
    for group in every:
        memo: dict[Any, Any] = {}
        for clip in GroupClips(group):
            one = Look(clip, memo)
            questions.append(clip.question)
            numbers.append(group.turn)
            features[WITH].append(probe.see(one))
            for sense in group.kind.flips:
                features[sense].append(probe.without(one, sense))
    arrays = {key: np.array(rows, dtype=np.float32) for key, rows in features.items()}
    return Seen(name, tuple(questions), np.array(numbers), arrays)


def _joined(parts: Sequence[Seen]) -> Seen:
    questions = tuple(question for part in parts for question in part.questions)
    features = {
        key: np.concatenate([part.features[key] for part in parts]) for key in parts[0].features
    }
    numbers = np.concatenate([part.groups for part in parts])
    return Seen(parts[0].type, questions, numbers, features)


def judge(seen: Seen, sure: float) -> list[Row]:
    """Answers the questions in all ways; one row for each sense that the type's worlds differ in.

    sure: level of the wider intervals.
    """
    questions, rows = seen.questions, []

    def right(features: Array, kinds: Sequence[str]) -> list[bool]:
        said = answers(questions, features, seen.groups, kinds)
        return [one == q.answer for one, q in zip(said, questions, strict=True)]

    both, probe = (LINEAR, FOREST), PROBES[seen.type]
    with_it = right(seen.features[WITH], (FOREST if probe.forest else LINEAR,))
    asked: dict[int, Array] = {}
    blind: dict[int, list[bool]] = {}
    for sense in find(seen.type).flips:
        features = seen.features[sense]
        form = features.ndim
        if form not in asked:
            asked[form] = words(questions, each=form == 3)
            blind[form] = right(asked[form], both)
        without = right(np.concatenate([asked[form], features], axis=-1), both)
        pairs = _pairs(questions, sense)
        rows.append(
            Row(
                type=seen.type,
                sense=sense,
                questions=len(questions),
                pairs=len(pairs),
                chance=float(np.mean([1 / len(open_to(question)) for question in questions])),
                blind=_of_alike(blind[form], pairs, sure),
                without=_of_alike(without, pairs, sure),
                without_pairs=_of_pairs(without, pairs, sure),
                seen=Rate.of(sum(with_it), len(with_it), sure),
                seen_pairs=_of_pairs(with_it, pairs, sure),
            )
        )
    return rows


def _pairs(questions: Sequence[Question], sense: str) -> list[tuple[int, int]]:
    """Places of the two questions of each pair."""
    found = defaultdict(list)
    for place, question in enumerate(questions):
        found[question.pairs[sense]].append(place)
    return [(one, other) for one, other in found.values()]


def _of_pairs(right: Sequence[bool], pairs: Sequence[tuple[int, int]], sure: float) -> Rate:
    return Rate.of(sum(right[i] and right[j] for i, j in pairs), len(pairs), sure)


def _of_alike(right: Sequence[bool], pairs: Sequence[tuple[int, int]], sure: float) -> Rate:
    """Accuracy over questions of which a pair has the same features, and so the same answer, which
    is right for one of them or for none: it is the pairs that are independent draws."""
    if any(right[i] and right[j] for i, j in pairs):
        return Rate.of(sum(right), len(right), sure)
    return Rate.of(sum(right[i] or right[j] for i, j in pairs), len(pairs), sure, part=0.5)


@cache
def _code() -> str:
    """A name of what features are made by: the code as it is at the beginning."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _read(path: Path, key: str) -> Seen | None:
    """Nothing where they are of another set, of other code, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            questions = tuple(_question(row) for row in json.loads(str(arrays["questions"])))
            features = {
                name.removeprefix("of "): arrays[name] for name in arrays if name[:3] == "of "
            }
            return Seen(questions[0].type, questions, arrays["groups"], features)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _question(row: dict[str, Any]) -> Question:
    lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    return Question(**{**row, **lists})


def _write(path: Path, key: str, seen: Seen) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    questions = json.dumps([asdict(question) for question in seen.questions])
    with part.open("wb") as file:
        arrays = {f"of {name}": array for name, array in seen.features.items()}
        arrays |= {"key": np.array(key), "questions": np.array(questions), "groups": seen.groups}
        np.savez_compressed(file, allow_pickle=False, **arrays)
    part.replace(path)


class _Here(Executor):
    """This process."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    workers = workers or (os.cpu_count() or 1)
    if workers == 1:
        with threadpool_limits(1):
            yield _Here()
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        yield executor
    except BrokenProcessPool:
        raise CremaError(
            "a process of the audit has been killed, perhaps for want of memory; run the same "
            f"command again, with fewer workers than {workers}"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


def _begin() -> None:
    """In each worker. Ctrl-C is the first process's; threads of several would be in each other's
    way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)

"""The answers to a question under each subset of senses, and which questions are worth showing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from open_crema.evaluation.page.found import Result, Said
from open_crema.tasks import jsonl

BLIND = "question only"


@dataclass(frozen=True)
class View:
    """What was said with some senses. label: these senses; probability: of a chosen option."""

    label: str
    senses: tuple[str, ...]
    prediction: str
    correct: bool
    probability: float | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One question. views: from the fewest senses to the most."""

    id: str
    type: str
    question: str
    prompt: str
    options: tuple[str, ...]
    answers: tuple[str, ...]
    views: tuple[View, ...]

    @property
    def differs(self) -> bool:
        """Whether some views are right and some wrong."""
        return len({view.correct for view in self.views}) > 1

    @property
    def fullest(self) -> View:
        return self.views[-1]


@dataclass(frozen=True)
class Suite:
    """Results on one data file, from the fewest senses to the most, with a name for each."""

    path: str
    sha256: str
    results: tuple[Result, ...]
    labels: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def fullest(self) -> Result:
        return self.results[-1]


def label(senses: Sequence[str]) -> str:
    return " + ".join(senses) or BLIND


def suites(results: Sequence[Result]) -> list[Suite]:
    """The results by data file."""
    by_data: dict[str, list[Result]] = {}
    for result in results:
        path, sha256 = result.data
        by_data.setdefault(sha256 or path, []).append(result)
    return [_suite(group) for group in by_data.values()]


def _suite(results: Sequence[Result]) -> Suite:
    plain = [label(r.senses) for r in results]
    labels = [
        f"{name} ({result.name})" if plain.count(name) > 1 else name
        for name, result in zip(plain, results, strict=True)
    ]
    ids = dict.fromkeys(i for result in reversed(results) for i in result.predictions)
    path, sha256 = results[-1].data
    cases = tuple(_case(i, results, labels) for i in ids)
    return Suite(path, sha256, tuple(results), tuple(labels), cases)


def _case(id: str, results: Sequence[Result], labels: Sequence[str]) -> Case:
    views: list[View] = []
    said: Said | None = None
    for result, name in zip(results, labels, strict=True):
        if (said := result.predictions.get(id)) is not None:
            views.append(_view(name, result, said))
    said = next(r.predictions[id] for r in reversed(results) if id in r.predictions)
    if said.blind is not None and all(view.senses for view in views):
        views.insert(0, View(BLIND, (), said.blind, bool(said.blind_correct)))
    return Case(
        id=id,
        type=said.type,
        question=spoken(said.question, said.options),
        prompt=said.question,
        options=said.options,
        answers=said.answers,
        views=tuple(views),
    )


def _view(name: str, result: Result, said: Said) -> View:
    return View(
        label=name,
        senses=result.senses,
        prediction=said.prediction,
        correct=said.correct,
        probability=said.probability,
        absent=said.absent,
        gates=said.gates,
    )


def spoken(prompt: str, options: Sequence[str]) -> str:
    """The question alone, without the prompt that the task writes around it; a prompt of another
    task as it is."""
    mark = "\0"
    around = jsonl.multiple_choice(mark, options) if options else jsonl.open_ended(mark)
    before, _, after = around.partition(mark)
    if prompt.startswith(before) and prompt.endswith(after):
        return prompt[len(before) : len(prompt) - len(after)]
    return prompt


def choose(
    suites: Sequence[Suite], count: int, has_media: Callable[[Suite, Case], bool]
) -> list[tuple[Suite, Case]]:
    """The most telling questions, always the same ones for the same results.

    First those that are right with some senses and wrong with others, of which every third is one
    that the most senses have wrong, as far as there are such; then those whose answers differ
    otherwise; then the rest. Before all that, those whose media are still there. Types take turns.
    """
    by_type: dict[tuple[int, str], list[tuple[Suite, Case]]] = {}
    for number, suite in enumerate(suites):
        for case in suite.cases:
            by_type.setdefault((number, case.type), []).append((suite, case))
    turns: list[tuple[tuple[int, int], tuple[Suite, Case]]] = []
    for place, own in enumerate(by_type.values()):
        ranked = _ranked(own, has_media, place % 3 == 2)
        turns += [((turn, worth), one) for turn, (worth, one) in enumerate(ranked)]
    # In a turn the types with the most telling question come first. A telling question of a later
    # turn goes before one that tells nothing.
    turns.sort(key=lambda turn: (turn[0][1], turn[0][0]))
    return [one for _, one in turns[:count]]


def _ranked(
    cases: Sequence[tuple[Suite, Case]],
    has_media: Callable[[Suite, Case], bool],
    lost_first: bool,
) -> list[tuple[int, tuple[Suite, Case]]]:
    """With how little each tells: 0 is the best."""

    def worth(suite: Suite, case: Case) -> int:
        telling = 0 if case.differs else 1
        if telling and len({view.prediction for view in case.views}) == 1:
            telling = 2
        return telling + (0 if has_media(suite, case) else 3)

    ranked = sorted(((worth(*one), one) for one in cases), key=lambda pair: pair[0])
    best = [pair for pair in ranked if pair[1][1].differs and pair[0] == ranked[0][0]]
    gained = [pair for pair in best if pair[1][1].fullest.correct]
    lost = [pair for pair in best if not pair[1][1].fullest.correct]
    mixed: list[tuple[int, tuple[Suite, Case]]] = []
    while gained or lost:
        due = len(mixed) % 3 == (0 if lost_first else 2)
        mixed.append((lost if (due and lost) or not gained else gained).pop(0))
    return mixed + ranked[len(best) :]

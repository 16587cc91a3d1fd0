"""The result of an evaluation: each prediction, the rates over them, and where they came from."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import open_crema
from open_crema import tasks
from open_crema.config import Config, to_dict
from open_crema.data.dataset import UNUSABLE
from open_crema.data.sample import Sample
from open_crema.errors import CremaError
from open_crema.evaluation import metrics
from open_crema.model.crema import Crema
from open_crema.model.tensors import fingerprint
from open_crema.storage import write_json
from open_crema.tasks import Jsonl, Task
from open_crema.tasks.lenience import LETTER


@dataclass(frozen=True)
class Prediction:
    """What the model said to one sample.

    correct: by the strict score; lenient: by the released code's, of whose choice among options
    letter is (None where the LLM has no tokens for letters). outside: whether the answer is none of
    the candidates, where the question has some. clip: which one it is about, by number; questions
    about one clip are not independent.
    probabilities: of the options, in their order; empty for an open-ended question. senses: those
    that it was given; absent: why it was not given the others. blind: what the same model says to
    the question alone (None where that was not asked). chance: how often a guess is right;
    majority: whether the most frequent training answer is (None without training samples).
    needs, pairs: as the sample states them. gates: assisting sense -> its share of the fused tokens
    of each frame (of the primary sense); empty without assistants and for models without a gate.
    confidence: of the answer, as early exit at inference goes by it (None where nobody asked).
    """

    id: str
    type: str
    question: str
    answers: tuple[str, ...]
    prediction: str
    correct: bool
    options: tuple[str, ...]
    probabilities: tuple[float, ...]
    senses: tuple[str, ...]
    absent: Mapping[str, str]
    blind: str | None
    blind_correct: bool | None
    chance: float
    majority: bool | None
    needs: tuple[str, ...] = ()
    pairs: Mapping[str, str] = field(default_factory=dict)
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    letter: str | None = None
    lenient: bool | None = None
    confidence: float | None = None
    outside: bool = False
    clip: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``options`` pairs each with its probability; a confidence is only there where
        it was asked for, a letter where there are options."""
        offered = zip(self.options, self.probabilities, strict=True)
        plain = asdict(self)
        del plain["probabilities"]
        for name in ("confidence", "letter"):
            if plain[name] is None:
                del plain[name]
        return {**plain, "options": [{"option": o, "probability": p} for o, p in offered]}


@dataclass(frozen=True)
class Skipped:
    """A sample without a score: ``reason`` groups them, ``detail`` is its own message."""

    id: str
    type: str
    question: str
    reason: str
    detail: str
    pairs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PairRow:
    """Rates of the pairs of questions that differ in one sense: how often both are right.

    n: the pairs of which both questions are in the group and have a score; all rates are over
    them, and None where there is none. incomplete: the other pairs, of which a question was
    skipped, is not in the data file or is not in the group. interval: Wilson's at 95 %. chance:
    what independent guesses give, the product of the chances of both questions. blind: what the
    same model gets from the questions alone; 0 where both have the same text and options, since it
    says the same to both (None where that was not asked).
    """

    n: int
    correct: int
    accuracy: float | None
    interval: tuple[float, float] | None
    chance: float | None
    blind: float | None
    incomplete: int


@dataclass(frozen=True)
class Row:
    """Rates of a group of samples; ``interval`` is Wilson's at 95 %, ``bootstrap`` that of drawing
    clips anew, with all their questions.

    lenient: by the released code's score, which is never the accuracy. outside: answers that are
    none of the candidates; inside: the accuracy over the others (None where there are no
    candidates, or nothing is left).
    pairs: sense -> rates of the pairs that differ in it; empty where the data name no pairs.
    """

    n: int
    correct: int
    accuracy: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    lenient: float | None
    outside: int
    inside: float | None
    chance: float
    majority: float | None
    blind: float | None
    pairs: Mapping[str, PairRow]


@dataclass(frozen=True)
class Scores:
    """How answers were scored. strict, lenient: in words. task: its name. order: of its types.
    groups: name -> the types that it is the mean over."""

    task: str
    strict: str
    lenient: str
    order: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, task: Task, samples: Sequence[Sample]) -> Scores:
        options = {bool(sample.options) for sample in samples}
        strict, lenient = [], []
        if True in options:
            strict.append("the option of the highest log-likelihood per token")
            lenient.append(LETTER)
        if False in options:
            strict.append("exact match of the text, normalised")
            lenient.append(task.lenience)
        words = ["; ".join(text) for text in (strict, lenient)]
        return cls(task.name, words[0], words[1], task.types, task.groups)


@dataclass(frozen=True)
class Training:
    """What is known of how the model that was scored came to be.

    epochs: of its last run (alignment included); None where no run is recorded with it (it was
    converted, or saved by other code). data: that run's questions. init: what it started from.
    zero_shot: whether the data of the scored configuration (``data.train``) are not what it was
    trained on; None where that is unknown. untrained: senses that no training had used, and that
    were used all the same.
    """

    epochs: int | None
    data: str | None
    init: str | None
    zero_shot: bool | None
    untrained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """A score with everything behind it. ``predictions`` are in the data set's order. training: of
    the model, where it was read from a folder.

    Raises CremaError unless ``expected`` = scored + skipped and something was scored: there is no
    score for a part of a data set that nobody named.
    """

    senses: tuple[str, ...]
    expected: int
    predictions: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]
    scores: Scores = field(default_factory=lambda: Scores.of(Jsonl(), ()))
    training: Training | None = None

    def __post_init__(self) -> None:
        scored, skipped = len(self.predictions), len(self.skipped)
        if self.expected != scored + skipped:
            raise CremaError(
                f"no score: {self.expected} samples were expected, {scored} were scored and "
                f"{skipped} skipped"
            )
        if not scored:
            counts = ", ".join(f"{n} {reason}" for reason, n in self.reasons.items())
            first = f"; the first: {self.skipped[0].detail}" if skipped else ""
            raise CremaError(
                f"no score: none of {self.expected} samples can be scored ({counts}){first}"
            )

    @property
    def accuracy(self) -> float:
        return self.overall.accuracy

    @property
    def overall(self) -> Row:
        return row_of(self.predictions, self.skipped)

    @property
    def types(self) -> dict[str, Row]:
        """A row for each type of question, by name; empty where no sample has a type."""
        place = {name: i for i, name in enumerate(self.scores.order)}
        names = {p.type for p in self.predictions}
        if names == {""}:
            return {}
        ordered = sorted(names, key=lambda name: (place.get(name, len(place)), name))
        return {name: self._of([name]) for name in ordered}

    @property
    def groups(self) -> dict[str, Row]:
        """A row for each group of types that has a sample, by name."""
        there = {p.type for p in self.predictions}
        groups = self.scores.groups.items()
        return {name: self._of(types) for name, types in groups if there & set(types)}

    def _of(self, types: Sequence[str]) -> Row:
        return row_of(
            [p for p in self.predictions if p.type in types],
            [s for s in self.skipped if s.type in types],
        )

    @property
    def reasons(self) -> dict[str, int]:
        """reason -> number of samples skipped for it."""
        return dict(sorted(Counter(s.reason for s in self.skipped).items()))

    @property
    def absent(self) -> dict[str, dict[str, int]]:
        """sense -> reason -> number of scored samples that do not have it."""
        counts: dict[str, Counter[str]] = {sense: Counter() for sense in self.senses}
        for prediction in self.predictions:
            for sense, reason in prediction.absent.items():
                # Each broken file has a reason of its own; the predictions name it.
                counts[sense][UNUSABLE if reason.startswith(f"{UNUSABLE}: ") else reason] += 1
        return {sense: dict(sorted(c.items())) for sense, c in counts.items() if c}

    def summary(self) -> dict[str, Any]:
        """Plain data: rates over all and by type, and what was expected, scored and skipped."""
        plain = {
            **asdict(self.overall),
            "types": {name: asdict(row) for name, row in self.types.items()},
            "groups": {name: asdict(row) for name, row in self.groups.items()},
            "scores": {name: getattr(self.scores, name) for name in ("task", "strict", "lenient")},
            "expected": self.expected,
            "scored": len(self.predictions),
            "skipped": self.reasons,
            "senses": list(self.senses),
            "absent": self.absent,
        }
        if self.training is not None:
            plain["training"] = asdict(self.training)
        return plain


def write(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    config: Config,
    model: Crema,
    data: str | Path,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``predictions.jsonl`` (scored samples, then skipped ones) and ``results.json``.

    more: other entries of the results.

    The results are the :meth:`Evaluation.summary` and its provenance: seed, configuration, sha256
    of the data file, fingerprints of the model's weights, versions of the code and of the
    libraries that compute. Nothing in them depends on the time, so that equal runs give equal
    files. The results appear last: beside predictions of a broken run there are none.

    Raises DataError where the data file cannot be read, CremaError where the folder cannot be
    written.
    """
    folder = Path(folder)
    results = {**evaluation.summary(), **(more or {}), **provenance(config, model, data)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").unlink(missing_ok=True)
        with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
            for prediction in evaluation.predictions:
                file.write(json.dumps(prediction.to_dict(), ensure_ascii=False) + "\n")
            for skipped in evaluation.skipped:
                file.write(json.dumps(asdict(skipped), ensure_ascii=False) + "\n")
        part = folder / "results.json.part"
        write_json(part, results)
        part.replace(folder / "results.json")
    except OSError as error:
        raise CremaError(f"{folder}: the results cannot be written ({error})") from None
    return folder / "results.json"


def provenance(config: Config, model: Crema, data: str | Path) -> dict[str, Any]:
    """Where a number came from, as plain data."""
    digest = tasks.digest(config.data.task, data)
    return {
        "seed": config.seed,
        "config": to_dict(config),
        "data": {"path": str(data), "sha256": digest},
        "model": {
            "llm": model.backbone.fingerprint,
            "qformer": fingerprint(model.qformer),
            "fusion": fingerprint(model.fusion),
            "adapters": {sense: fingerprint(model.adapters[sense]) for sense in model.senses},
        },
        "code": {
            "open_crema": open_crema.__version__,
            "sha256": _code_digest(),
            **{name: version(name) for name in ("torch", "transformers", "numpy")},
        },
    }


def _code_digest() -> str:
    """sha256 of the package's source files: a version number does not change with every edit."""
    root = Path(open_crema.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content} {path.relative_to(root).as_posix()}\n".encode())
    return digest.hexdigest()


def row_of(predictions: Sequence[Prediction], skipped: Sequence[Skipped]) -> Row:
    """Of one prediction or more."""
    n = len(predictions)
    right, clips = [p.correct for p in predictions], [p.clip for p in predictions]
    correct = sum(right)
    outside = sum(p.outside for p in predictions)
    lenient = [p.lenient for p in predictions if p.lenient is not None]
    majority = [p.majority for p in predictions if p.majority is not None]
    blind = [p.blind_correct for p in predictions if p.blind_correct is not None]
    return Row(
        n=n,
        correct=correct,
        accuracy=correct / n,
        interval=metrics.wilson(correct, n),
        bootstrap=metrics.bootstrap(right, clips),
        lenient=sum(lenient) / n if len(lenient) == n else None,
        outside=outside,
        inside=(correct / (n - outside)) if outside < n else None,
        chance=math.fsum(p.chance for p in predictions) / n,
        majority=sum(majority) / n if majority else None,
        blind=sum(blind) / n if blind else None,
        pairs=_pair_rows(predictions, skipped),
    )


def _pair_rows(predictions: Sequence[Prediction], skipped: Sequence[Skipped]) -> dict[str, PairRow]:
    right = [p.correct for p in predictions]
    asked = all(p.blind_correct is not None for p in predictions)
    blind = [bool(p.blind_correct) for p in predictions]
    guessed = [p.chance for p in predictions]
    rows = {}
    found = metrics.pair_up([p.pairs for p in predictions], [s.pairs for s in skipped])
    for sense, paired in found.items():
        n, correct = len(paired.places), round(paired.both(right))
        rows[sense] = PairRow(
            n=n,
            correct=correct,
            accuracy=correct / n if n else None,
            interval=metrics.wilson(correct, n) if n else None,
            chance=paired.both(guessed) / n if n else None,
            blind=paired.both(blind) / n if n and asked else None,
            incomplete=paired.incomplete,
        )
    return rows

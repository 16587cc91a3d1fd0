"""One question about one thing, and a batch of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor

from open_crema.data.normal import normalise as normalise
from open_crema.errors import DataError
from open_crema.features import Features
from open_crema.modality import canonical


@lru_cache(maxsize=64)  # thousands of questions may share hundreds of candidates
def _normalised(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(normalise, texts))


@dataclass(frozen=True)
class Timing:
    """What a data file states of a media file's place in time; rate None: the file says it itself.

    rate: pictures per second. start: seconds on the video's time line at which it begins.
    """

    rate: float | None = None
    start: float = 0.0


UNTIMED = Timing()


@dataclass(frozen=True)
class Sample:
    """One question.

    media: sense -> path of that sense's own file; "video" also serves the senses that an expert
        can make from it (its sound track, its optical flow).
    question: the whole text for the LLM as the task writes it (Table 11), options included.
    answers: accepted answers, the first is the training target; empty where unknown.
    options: for multiple choice, the texts to choose from; answers then holds the right one.
    timing: sense -> the timing of its file, where the data file states one.
    needs: the senses without which it cannot be answered, as far as the data file says.
    pairs: sense -> name of a pair of questions that differ in that sense alone, in what is given
        and in the answer.
    candidates: for an open-ended question, the answers that it leaves open (two or more); those in
        answers are among them. The model is not shown them.
    captions: sense -> what it shows, in words, one list a part of the clip (parts are equally
        long): word i is what query token i is to say, see :mod:`open_crema.training.align`.
    spoken: for each option what the LLM is to say for it, as in "Option A"; empty: its text.
    clip: what its benchmark calls the thing that it is about; several questions may share it.
    split: the part of its benchmark that it belongs to, as far as its file says.
    """

    id: str
    question: str
    media: Mapping[str, str]
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    type: str = ""
    timing: Mapping[str, Timing] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    pairs: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    captions: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    spoken: tuple[str, ...] = ()
    clip: str = ""
    split: str = ""

    @property
    def target(self) -> str:
        """What the LLM is trained to say. Raises DataError where no answer is known."""
        if not self.answers:
            raise DataError(f"sample {self.id!r} has no answer to train on")
        if self.spoken:
            return self.spoken[self.options.index(self.answers[0])]
        return self.answers[0]

    @property
    def left_open(self) -> frozenset[str]:
        """The candidates as they are compared."""
        return _normalised(self.candidates)

    @property
    def accepted(self) -> frozenset[str]:
        """The right answers as they are compared: options as they are, others normalised."""
        return frozenset(self.answers if self.options else map(normalise, self.answers))


@dataclass(frozen=True)
class ToldQuestion:
    """A question as the LLM reads it."""

    text: str
    answer: str
    type: str = ""


@dataclass(frozen=True)
class Told:
    """A clip in words, for text tuning. captions: sense -> S lists of Q words."""

    captions: Mapping[str, Sequence[Sequence[str]]]
    asked: Sequence[ToldQuestion]


def enter_pairs(sample: Sample, entered: dict[tuple[str, str], list[Sample]]) -> None:
    """Adds a question to ``entered``, (sense, name of a pair) -> its questions so far.

    Raises DataError for the third question of a pair, and for the second that accepts an answer of
    the first: what differs would not be needed to answer both.
    """
    for sense, name in sample.pairs.items():
        others = entered.setdefault((sense, name), [])
        pair = f"pair {name!r} of {sense}"
        if len(others) > 1:
            ids = ", ".join(repr(s.id) for s in (*others, sample))
            raise DataError(f"{pair} has three questions, {ids}; a pair is two")
        for other in others:
            if same := other.accepted & sample.accepted:
                raise DataError(
                    f"{pair}: questions {other.id!r} and {sample.id!r} have the same answer "
                    f"{min(same)!r}; those of a pair must differ"
                )
        others.append(sample)


@dataclass(frozen=True)
class SenseBatch:
    """Features of one sense for a batch. A sample without it has an all-False mask.

    tokens ``[B, S, K, W]``, mask ``[B, S, K]`` bool, times ``[B, S, 2]`` seconds.
    """

    tokens: Tensor
    mask: Tensor
    times: Tensor

    @property
    def segments(self) -> Tensor:
        """``[B, S]`` bool: which segments are real."""
        return self.mask.any(dim=2)

    @property
    def present(self) -> Tensor:
        """``[B]`` bool: which samples have the sense at all."""
        return self.mask.flatten(1).any(dim=1)

    def to(self, device: torch.device | str) -> SenseBatch:
        return SenseBatch(self.tokens.to(device), self.mask.to(device), self.times.to(device))


@dataclass(frozen=True)
class Batch:
    """Questions with the features of whichever senses each of them has.

    others: for each of the samples more questions about the same media, in training with
    ``train.questions``; they share its features. Empty where there are none.
    """

    samples: tuple[Sample, ...]
    senses: Mapping[str, SenseBatch] = field(default_factory=dict)
    others: tuple[tuple[Sample, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def asked(self) -> list[list[Sample]]:
        """All questions about each of the media."""
        others = self.others or ((),) * len(self.samples)
        return [[sample, *more] for sample, more in zip(self.samples, others, strict=True)]

    def only(self, senses: Iterable[str]) -> Batch:
        """The same questions with no more than these senses; ``only([])`` is question-only."""
        wanted = set(senses)
        return replace(self, senses={s: x for s, x in self.senses.items() if s in wanted})

    def where(self, kept: Sequence[Collection[str]]) -> Batch:
        """The same questions, each with no more than its own senses of ``kept``; a sense that no
        sample is left with is not there at all."""
        senses = {}
        for sense, x in self.senses.items():
            rows = torch.tensor([sense in own for own in kept], device=x.mask.device)
            if bool((x.present & rows).any()):
                senses[sense] = replace(x, mask=x.mask & rows[:, None, None])
        return replace(self, senses=senses)

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, senses={s: x.to(device) for s, x in self.senses.items()})


def collate(items: Sequence[tuple[Sample, Mapping[str, Features]]]) -> Batch:
    """Pads each sense to the batch's longest S and K; absent senses become all-False rows."""
    senses = canonical(sense for _, features in items for sense in features)
    return Batch(
        samples=tuple(sample for sample, _ in items),
        senses={s: _pad([features.get(s) for _, features in items]) for s in senses},
    )


def _pad(items: Sequence[Features | None]) -> SenseBatch:
    present = [f for f in items if f is not None]
    segments = max(f.tokens.shape[0] for f in present)
    keys = max(f.tokens.shape[1] for f in present)
    like = present[0].tokens
    tokens = like.new_zeros(len(items), segments, keys, like.shape[2])
    mask = torch.zeros(len(items), segments, keys, dtype=torch.bool)
    times = torch.zeros(len(items), segments, 2, dtype=torch.float64)
    for row, f in enumerate(items):
        if f is not None:
            s, k = f.mask.shape
            tokens[row, :s, :k] = f.tokens
            mask[row, :s, :k] = f.mask
            times[row, :s] = f.times
    return SenseBatch(tokens, mask, times)

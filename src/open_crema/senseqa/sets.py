"""Which questions a set holds: a split, a seed and a number of them name it for ever.

Questions come in groups, one for each type and round: the same words about two or four worlds. A
set's first n questions do not depend on how many more it has, nor does a group on which other types
are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from open_crema.errors import ConfigError, did_you_mean
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.stage import empty
from open_crema.senseqa.types import TYPES, VERSION, Asked, QuestionType, Variant, find

# Groups are drawn from numbers, of which every split has a range of its own. "outside" is for
# checks of others: nothing that is trained or published here may have seen it.
SPLITS = ("train", "val", "test", "outside")
_RANGE, _SEEDS, ROUNDS = 1 << 56, 1 << 24, 1 << 32
FRAMES = 4
_FEWEST, _MOST = 3, 16
OPTIONS = 5  # listed at the most


@dataclass(frozen=True)
class Spec:
    """A set: the first ``count`` questions of a split and seed, of these types (by default all).

    frames: key frames of each clip. Raises ConfigError for what cannot be.
    """

    split: str
    seed: int
    count: int
    types: tuple[str, ...] = tuple(TYPES)
    frames: int = FRAMES

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            hint = did_you_mean(self.split, SPLITS)
            raise ConfigError(f"unknown split {self.split!r}: {hint}known: {', '.join(SPLITS)}")
        if self.count < 1:
            raise ConfigError(f"{self.count} questions: give at least 1")
        if not 0 <= self.seed < _SEEDS:
            raise ConfigError(f"seed {self.seed}: give a number from 0 to {_SEEDS - 1}")
        if not _FEWEST <= self.frames <= _MOST:
            raise ConfigError(f"{self.frames} key frames: give {_FEWEST} to {_MOST}")
        if not self.types:
            raise ConfigError("no type of question: name at least one, or leave them all")
        for name in self.types:
            find(name)
        # In the order of TYPES, each once, so that the set is the same however they are listed.
        object.__setattr__(self, "types", tuple(n for n in TYPES if n in self.types))


def number(split: str, seed: int, turn: int) -> int:
    """The number in the split's range that a round of a seed is drawn from."""
    return SPLITS.index(split) * _RANGE + seed * ROUNDS + turn


@dataclass(frozen=True)
class Question:
    """One question about one clip.

    text: with its situation, if it has one, and without options. options: those of multiple choice;
    candidates: those that an open-ended question leaves open (both with the answer). needs: senses.
    pairs: sense -> the name that this question shares with the one whose clip differs in that sense
    alone, and whose answer is another.
    """

    id: str
    type: str
    text: str
    answer: str
    options: tuple[str, ...]
    candidates: tuple[str, ...]
    needs: tuple[str, ...]
    pairs: dict[str, str]


@dataclass(frozen=True)
class Group:
    """The questions of one type and round. first: how many of them the set takes."""

    kind: QuestionType
    split: str
    seed: int
    turn: int
    frames: int
    first: int

    @property
    def name(self) -> str:
        return f"{self.split}{self.seed}-{self.kind.name}-{self.turn}"

    @cached_property
    def draw(self) -> Draw:
        at = number(self.split, self.seed, self.turn)
        return Draw("senseqa", VERSION, self.kind.name, at)

    @cached_property
    def answers(self) -> tuple[int, int]:
        """Which candidates are right in worlds of even and of odd variants: every ordered pair of
        them once, in random order, before any comes again."""
        kind, choices = self.kind, range(self.kind.choices)
        every = [(a, b) for a in choices for b in choices if a != b]
        block, place = divmod(self.turn, len(every))
        at = number(self.split, self.seed, block)
        return Draw("senseqa", VERSION, kind.name, "answers", at).shuffled(every)[place]

    @cached_property
    def asked(self) -> Asked:
        draw = self.draw
        return self.kind.make(draw.sub("type"), empty(draw, self.frames), *self.answers)

    @property
    def variants(self) -> list[Variant]:
        """Those of all worlds, of which the set takes the first."""
        return [
            tuple(i >> bit & 1 for bit in range(len(self.kind.flips)))
            for i in range(2 ** len(self.kind.flips))
        ]

    @cached_property
    def _form(self) -> tuple[bool, tuple[str, ...]]:
        """Whether it is multiple choice, and its options if it is."""
        draw, candidates = self.draw.sub("form"), self.asked.candidates
        listed = draw.chance(0.5)
        right = [candidates[i] for i in self.answers]
        wrong = draw.shuffled([c for c in candidates if c not in right])
        return listed, tuple(draw.shuffled([*right, *wrong[: OPTIONS - len(right)]]))

    @property
    def options(self) -> tuple[str, ...]:
        """The candidates that are listed where it is multiple choice, or is made to be: five, or
        all where there are fewer, those that are right in one of its worlds among them."""
        return self._form[1]

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        asked, (listed, options) = self.asked, self._form
        found = []
        for variant in self.variants[: self.first]:
            answer = asked.candidates[self.answers[sum(variant) % 2]]
            found.append(
                Question(
                    id=f"{self.name}-{''.join(map(str, variant))}",
                    type=self.kind.name,
                    text=asked.question,
                    answer=answer,
                    options=options if listed else (),
                    candidates=asked.candidates,
                    needs=self.kind.needs,
                    pairs=self._pairs(variant),
                )
            )
        return tuple(found)

    def _pairs(self, variant: Variant) -> dict[str, str]:
        names = {}
        for i, sense in enumerate(self.kind.flips):
            rest = "".join(str(v) for j, v in enumerate(variant) if j != i)
            names[sense] = f"{self.name}-{rest}" if rest else self.name
        return names


def groups(spec: Spec) -> Iterator[Group]:
    """The groups of a set: in every round each of its types once, in random order."""
    left, turn = spec.count, 0
    while left:
        at = number(spec.split, spec.seed, turn)
        # Of all types, so that a round's order is the same whichever of them are made.
        for name in Draw("senseqa", VERSION, "order", at).shuffled(list(TYPES)):
            if name in spec.types and left:
                kind = TYPES[name]
                first = min(2 ** len(kind.flips), left)
                left -= first
                yield Group(kind, spec.split, spec.seed, turn, spec.frames, first)
        turn += 1

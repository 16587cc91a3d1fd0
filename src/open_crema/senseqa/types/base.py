"""What a type of question is: a template, worlds in which its answers differ, and the senses that
tell these worlds apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import Scene

YES_NO = ("yes", "no")
Variant = tuple[int, ...]  # one number, 0 or 1, for each sense in which the worlds differ


@dataclass(frozen=True)
class Asked:
    """One question about several worlds.

    template: the question with a ``{}`` for each slot. candidates: the answers that everything but
    the needed sense leaves open, all equally likely. worlds: two that differ in one sense, or four
    that differ in two.
    """

    template: str
    slots: tuple[str, ...]
    candidates: tuple[str, ...]
    worlds: Mapping[Variant, Scene]
    situation: str = ""

    @property
    def question(self) -> str:
        text = self.template.format(*self.slots)
        return f"{self.situation} {text}" if self.situation else text


Make = Callable[[Draw, Scene, int, int], Asked]


@dataclass(frozen=True)
class QuestionType:
    """One type.

    needs: the senses that it cannot be answered without; of these the worlds differ in ``flips``.
    choices: how many candidates there are. make: ``(draw, scene, a, b) -> Asked``: puts into the
    empty room what is asked about, so that the answer is candidate a in the worlds whose variant
    has an even sum, and candidate b in the others.
    """

    name: str
    needs: tuple[str, ...]
    flips: tuple[str, ...]
    choices: int
    make: Make


def two(first: Scene, second: Scene) -> dict[Variant, Scene]:
    """Worlds that differ in one sense."""
    return {(0,): first, (1,): second}

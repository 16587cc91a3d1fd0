"""What multiple-choice tasks have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from open_crema.data.sample import Sample
from open_crema.tasks import lenience
from open_crema.tasks.base import Task
from open_crema.tasks.prompts import letters


class MultipleChoice(Task):
    """target: what the LLM is to say for an option: "letter" is the released code's ("Option A"),
    "text" the option itself."""

    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"target": ("letter", "text")}
    lenience = lenience.LETTER

    def spoken(self, options: Sequence[str]) -> tuple[str, ...]:
        return letters(options) if self.chosen["target"] == "letter" else ()

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return prediction in sample.answers

"""TouchQA and ThermalQA: the paper's own questions about Touch and Go and Thermal-IM (A.1).

Neither is published as files; ``crema data build`` makes them (:mod:`open_crema.tasks.build`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from open_crema.data.sample import Sample
from open_crema.tasks import lenience
from open_crema.tasks.base import Task
from open_crema.tasks.fields import blank, media_name, named, require, text, whole
from open_crema.tasks.prompts import WORDING, open_ended
from open_crema.tasks.reading import Entry, read_json

_KNOWN = {"video", "question", "answer", "qid", "start", "end", "recording", "split"}


class _Sensed(Task):
    """A list of objects with ``video``, ``qid`` and ``answer`` (a text), as SeViLA's code has its
    json; ``question`` may be missing, as all are the same. asks: the question. given: of the
    prompt. sizes: of the paper's train and test."""

    asks: ClassVar[str]
    given: ClassVar[str]
    sizes: ClassVar[tuple[int, int]]

    files = "train.json and test.json"
    patterns = ("*.json",)
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"wording": WORDING}
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"Acc": ()}
    lenience = lenience.CONTAINED

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        return read_json(path).entries()

    def unknown(self, entry: Entry) -> Sequence[str]:
        return sorted(entry.fields.keys() - _KNOWN)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        question = text(fields.get("question", self.asks), "question")
        for name in ("start", "end"):
            if name in fields:
                whole(fields[name], name)
        answer = require(fields, "answer")
        return Sample(
            id=named(require(fields, "qid"), "qid"),
            question=open_ended(question, self.given, self.chosen["wording"]),
            media={},
            answers=() if blank(answer) else (text(answer, "answer"),),
            needs=self.senses[1:],
            clip=media_name(require(fields, "video"), "video"),
        )

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return lenience.contained(prediction, sample.answers)


class TouchQa(_Sensed):
    name = "touchqa"
    title = "TouchQA (Touch and Go)"
    licence = "CC BY 4.0 (Touch and Go)"
    home = "https://touch-and-go.github.io"
    media = "NAME is the touch, as in 20220410_031604-347: pictures in video/NAME/ and touch/NAME/"
    senses = ("video", "touch")
    asks = "What material is the person touching?"
    given = "the frames and touch map information"
    sizes = (714, 3212)
    published = "TouchQA"
    evaluated_on = ("test", 3212)


class ThermalQa(_Sensed):
    name = "thermalqa"
    title = "ThermalQA (Thermal-IM)"
    licence = "BSD 3-Clause (Thermal-IM)"
    home = "https://github.com/ZitianTang/Thermal-IM"
    media = "NAME is the moment, as in 00012-3: pictures in video/NAME/ and thermal/NAME/"
    senses = ("video", "thermal")
    asks = "What action might have occurred before this video?"
    given = "the frames and thermal heatmap information"
    sizes = (1131, 391)
    published = "ThermalQA"
    evaluated_on = ("test", 391)

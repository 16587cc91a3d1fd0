"""Questions about 3D scenes: SQA3D, ScanQA, and what 3D-LLM has of their kind.

All know the ScanQA layout, a list of objects with ``scene_id``, ``question``, ``answers`` (a list),
mostly ``question_id``, and for SQA3D ``situation``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from open_crema.data.sample import Sample
from open_crema.errors import DataError
from open_crema.tasks import lenience
from open_crema.tasks.base import Task
from open_crema.tasks.fields import FieldError, blank, media_name, named, require, text, texts
from open_crema.tasks.prompts import WORDING, open_ended
from open_crema.tasks.reading import Entry, JsonFile, read_json

_CLASSES = ("What", "Is", "How", "Can", "Which")
_RELEASED = ("what", "how", "can", "is", "which")  # the order in which its code looks for them
_MEDIA = (
    "NAME is the scene's id, as in scene0050_00: point features or a cloud in point/, frames of "
    "the scene in video/, or an RGB-D scene in rgbd/"
)
_KNOWN = {"scene_id", "question", "answers", "question_id", "situation"}
_SCANQA = {"object_ids", "object_names"}
_SQA3D = {
    "alternative_situation",
    "question_type",
    "answer_type",
    "rotation",
    "position",
    "answer_confidence",
}


class _Scenes(Task):
    """given, short: of the prompt."""

    unit = "scenes"
    given: ClassVar[str]
    short: ClassVar[bool]

    def unknown(self, entry: Entry) -> Sequence[str]:
        return sorted(entry.fields.keys() - _KNOWN - _SCANQA - _SQA3D)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        question = text(require(fields, "question"), "question")
        scene = media_name(require(fields, "scene_id"), "scene_id")
        situation = fields.get("situation")
        asked = open_ended(
            question,
            self.given,
            self.chosen["wording"],
            situation="" if blank(situation) else text(situation, "situation"),
            short=self.short,
        )
        # 3D-LLM's files have no ids: the place in the file is one that stays.
        own = fields.get("question_id")
        return Sample(
            id=f"{scene}-line-{entry.number}" if own is None else named(own, "question_id"),
            question=asked,
            media={},
            answers=_answers(fields),
            type=self.type_of(question),
            clip=scene,
        )

    def type_of(self, question: str) -> str:
        return ""

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return lenience.part_of(prediction, sample.answers)


class Sqa3d(_Scenes):
    """The official questions, joined with their annotations by ``question_id``; or the ScanQA
    layout, in which 3D-LLM has them."""

    name = "sqa3d"
    title = "SQA3D"
    licence = "CC BY 4.0; the scenes are ScanNet's (terms of use to be signed)"
    home = "https://sqa3d.github.io"
    files = (
        "v1_balanced_questions_SPLIT_scannetv2.json with v1_balanced_sqa_annotations_SPLIT_"
        "scannetv2.json beside it, for train, val and test"
    )
    patterns = ("*balanced_questions_*.json", "*.json")
    media = _MEDIA
    senses = ("video", "point")
    types = (*_CLASSES, "Others")
    # types: by the first word of a question, or as the released code has it, by the first of What,
    # How, Can, Is, Which that occurs anywhere in it.
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "types": ("first-word", "released"),
        "wording": WORDING,
    }
    given = "the frames and 3D Model information"
    short = True
    published = "SQA3D"
    evaluated_on = ("test", 3519)
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **{name: (name,) for name in types},
        "Avg": (),
    }
    lenience = lenience.PART_OF

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        file = read_json(path)
        if not isinstance(file.content, dict):
            yield from _numbered(file)
            return
        if "annotations" in file.content:
            name = path.name.replace("sqa_annotations", "questions")
            raise DataError(f"{path}: holds the answers; name the file of questions, {name}")
        beside = path.with_name(path.name.replace("questions", "sqa_annotations"))
        if beside == path or not beside.is_file():
            raise DataError(f"{path}: the answers to its questions, {beside.name}, must lie beside")
        known = self._annotations(read_json(beside))
        self.used.add(beside)
        for entry in file.entries("questions"):
            own = entry.fields.get("question_id")
            if own not in known:
                raise DataError(
                    f"{entry.place()}: question_id {own!r} is not in {beside.name}; are both of "
                    "the same split?"
                )
            annotation = known[own]
            if annotation.get("scene_id") != entry.fields.get("scene_id"):
                raise DataError(
                    f"{entry.place()}: scene_id {entry.fields.get('scene_id')!r} is "
                    f"{annotation.get('scene_id')!r} in {beside.name}"
                )
            answers = {"answers": annotation["answers"]}
            yield Entry({**entry.fields, **answers}, entry.place)

    def _annotations(self, file: JsonFile) -> dict[Any, Mapping[str, Any]]:
        found: dict[Any, Mapping[str, Any]] = {}
        for entry in file.entries("annotations"):
            try:
                own = require(entry.fields, "question_id")
                named(own, "question_id")
                require(entry.fields, "answers")
            except FieldError as error:
                raise DataError(f"{entry.place()}: {error}") from None
            if own in found:
                raise DataError(f"{entry.place()}: question_id {own!r} is there twice")
            found[own] = entry.fields
        return found

    def type_of(self, question: str) -> str:
        if self.chosen["types"] == "released":
            words = question.lower()
            return next((w.capitalize() for w in _RELEASED if w in words), "Others")
        first = question.split()[0].capitalize()
        return first if first in _CLASSES else "Others"


class ScanQa(_Scenes):
    """ScanQA's files, and the questions of 3D-LLM's data, which have their layout; for
    pre-training the adapter of points (A.3)."""

    name = "scanqa"
    title = "ScanQA, and the questions of 3D-LLM"
    licence = "CC BY-NC-SA 3.0 (ScanQA), MIT (3D-LLM); the scenes are ScanNet's"
    home = "https://github.com/ATR-DBI/ScanQA and https://github.com/UMass-Foundation-Model/3D-LLM"
    files = "ScanQA_v1.0_train.json and _val.json, or a file of 3D-LLM's in their layout"
    patterns = ("*.json",)
    media = _MEDIA
    senses = ("point",)
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"wording": WORDING}
    given = "3D Model information"
    short = False
    lenience = lenience.PART_OF

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        return _numbered(read_json(path))


def _numbered(file: JsonFile) -> Iterator[Entry]:
    for number, entry in enumerate(file.entries(), start=1):
        yield Entry(entry.fields, entry.place, number)


def _answers(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts, or objects that have one as ``answer`` (SQA3D's annotations); each once, in order. A
    file of a test split may have none."""
    given = fields.get("answers")
    if given is None:
        return ()
    if not isinstance(given, list):
        return texts(given, "answers")  # refuses it
    plain = [
        require(item, "answer") if isinstance(item, dict) else item
        for item in given
        if not blank(item)
    ]
    return tuple(dict.fromkeys(texts(plain, "answers")))

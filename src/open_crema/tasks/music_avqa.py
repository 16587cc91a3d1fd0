"""MUSIC-AVQA: questions about what is heard and seen in videos of musical instruments."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from open_crema.data.sample import Sample
from open_crema.tasks import lenience
from open_crema.tasks.base import Task
from open_crema.tasks.fields import FieldError, blank, media_name, named, require, text, texts
from open_crema.tasks.prompts import WORDING, open_ended
from open_crema.tasks.reading import Entry, read_json

_KINDS = {
    "Audio": ("Counting", "Comparative"),
    "Visual": ("Counting", "Location"),
    "Audio-Visual": ("Existential", "Location", "Counting", "Comparative", "Temporal"),
}
_NEEDS = {"Audio": ("audio",), "Visual": ("video",), "Audio-Visual": ("video", "audio")}
_INSTRUMENTS = (
    "accordion acoustic_guitar bagpipe banjo bassoon cello clarinet congas drum electric_bass erhu "
    "flute guzheng piano pipa saxophone suona trumpet tuba ukulele violin xylophone"
)
_OTHERS = (
    "yes no zero one two three four five six seven eight nine ten left middle right indoor outdoor "
    "simultaneously"
)
ANSWERS = frozenset(
    name.replace("_", " ") for name in ("more_than_ten", *_INSTRUMENTS.split(), *_OTHERS.split())
)
_FIELDS = {
    "video_id",
    "question_id",
    "type",
    "question_content",
    "templ_values",
    "question_deleted",
    "anser",
}
_SLOT = re.compile(r"<[^<>]*>")


class MusicAvqa(Task):
    """``data/json`` and ``data/json_update``, which have the same layout. The key of the answer is
    spelled ``anser``; ``type`` and ``templ_values`` are strings that hold lists."""

    name = "music_avqa"
    title = "MUSIC-AVQA"
    licence = "MIT by its LICENSE file, GPL-3.0 by its README; the videos are YouTube's"
    home = "https://github.com/GeWu-Lab/MUSIC-AVQA"
    files = "avqa-train.json, avqa-val.json, avqa-test.json (of data/json or data/json_update)"
    patterns = ("avqa-*.json", "*.json")
    media = "NAME is the video's id, as in 00000028; the sound is the video's own"
    senses = ("video", "audio")
    types = tuple(f"{of} {kind}" for of, kinds in _KINDS.items() for kind in kinds)
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        of: tuple(f"{of} {kind}" for kind in kinds) for of, kinds in _KINDS.items()
    }
    # "real": recorded videos, whose ids are numbers, which the paper evaluates on; the others were
    # put together of two recordings. slots: "in-order" puts the values into the slots of the
    # question from left to right; "first-in-all" is the released code's, which replaces every slot
    # by the first value, so that a question with two of them is not the one that was asked.
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "split": ("all", "real", "synthetic"),
        "slots": ("in-order", "first-in-all"),
        "wording": WORDING,
    }
    published = "MUSIC-AVQA"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Cnt": ("Audio Counting",),
        "Com": ("Audio Comparative",),
        "Avg.A": groups["Audio"],
        "vCnt": ("Visual Counting",),
        "vLoc": ("Visual Location",),
        "Avg.V": groups["Visual"],
        "Ext": ("Audio-Visual Existential",),
        "Loc": ("Audio-Visual Location",),
        "avCnt": ("Audio-Visual Counting",),
        "avCom": ("Audio-Visual Comparative",),
        "Tem": ("Audio-Visual Temporal",),
        "Avg.AV": groups["Audio-Visual"],
        "Avg": (),
    }
    lenience = lenience.CONTAINED

    def annotation_files(self, path: Path) -> list[tuple[str, Path]]:
        """Of a folder without the files that hold a part of another one, as avqa-train_real.json
        does."""
        found = super().annotation_files(path)
        names = {file.name for _, file in found}
        return [
            (split, file)
            for split, file in found
            if (whole := f"{file.stem.partition('_')[0]}.json") == file.name or whole not in names
        ]

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        return read_json(path).entries()

    def unknown(self, entry: Entry) -> Sequence[str]:
        return sorted(entry.fields.keys() - _FIELDS)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        of, kind = _kind(require(fields, "type"))
        answer = require(fields, "anser")
        question = text(require(fields, "question_content"), "question_content")
        values = texts(_list(require(fields, "templ_values"), "templ_values"), "templ_values")
        asked = self._filled(question, [value.replace("_", " ") for value in values])
        return Sample(
            id=named(require(fields, "question_id"), "question_id"),
            question=open_ended(asked, "the frames and audio information", self.chosen["wording"]),
            media={},
            answers=() if blank(answer) else (text(answer, "anser").replace("_", " "),),
            type=f"{of} {kind}",
            needs=_NEEDS[of],
            clip=media_name(require(fields, "video_id"), "video_id"),
        )

    def _filled(self, question: str, values: Sequence[str]) -> str:
        slots = len(_SLOT.findall(question))
        if slots != len(values):
            raise FieldError(
                f"field 'templ_values' has {len(values)} values for the {slots} slots of "
                f"{question!r}"
            )
        if self.chosen["slots"] == "first-in-all" and values:
            return _SLOT.sub(lambda _: values[0], question)
        left = iter(values)
        return _SLOT.sub(lambda _: next(left), question)

    def parts(self, sample: Sample) -> tuple[str, ...]:
        return ("real",) if sample.clip.isdigit() else ("synthetic",)

    def differs(self, samples: Sequence[Sample]) -> str:
        if any(self.parts(sample) != ("real",) for sample in samples):
            return "the paper evaluates on real videos only: use the option split=real"
        return super().differs(samples)

    def doubts(self, sample: Sample) -> Iterator[str]:
        for answer in sample.answers:
            if answer not in ANSWERS:
                yield f"answer {answer!r} is none of the benchmark's {len(ANSWERS)}"

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return lenience.contained(prediction, sample.answers)


def _kind(value: Any) -> tuple[str, str]:
    given = texts(_list(value, "type"), "type")
    if len(given) != 2 or given[1] not in _KINDS.get(given[0], ()):
        known = "; ".join(f"{of}: {', '.join(kinds)}" for of, kinds in _KINDS.items())
        raise FieldError(f"field 'type' is {list(given)}; known: {known}")
    return given[0], given[1]


def _list(value: Any, name: str) -> Any:
    """What a string holds; a value that is a list already stays."""
    if not isinstance(value, str):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise FieldError(f"field {name!r} must be a string that holds a list, not {value!r}")

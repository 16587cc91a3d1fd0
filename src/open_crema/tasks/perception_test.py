"""PerceptionTest, multiple choice of three: memory, abstraction, physics, semantics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from open_crema.data.sample import Sample
from open_crema.errors import DataError
from open_crema.tasks.choice import MultipleChoice
from open_crema.tasks.fields import (
    FieldError,
    kind,
    media_name,
    named,
    require,
    right_option,
    text,
    texts,
)
from open_crema.tasks.prompts import multiple_choice
from open_crema.tasks.reading import Entry, JsonFile, read_json

_OPTIONS = 3
_AREAS = ("memory", "abstraction", "physics", "semantics")
_KNOWN = {"id", "question", "options", "answer_id", "area", "reasoning", "tag", "video"}


class PerceptionTest(MultipleChoice):
    """The official files, ``{video: {"mc_question": [...]}}``, those of its dataset explorer,
    ``{video: [...]}``; answers may be missing (test)."""

    name = "perception_test"
    title = "PerceptionTest (multiple choice)"
    licence = "CC BY 4.0"
    home = "https://github.com/google-deepmind/perception_test"
    files = "mc_question_train.json, mc_question_valid.json (or all_train.json, all_valid.json)"
    patterns = ("mc_question*.json", "all_*.json", "*.json")
    media = "NAME is the video's id, as in video_5945"
    types = _AREAS
    published = "PerceptionTest"
    evaluated_on = ("val", 5260)
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"Acc": ()}

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        file = read_json(path)
        if not isinstance(file.content, dict):
            raise DataError(
                f"{path}: must be an object of videos, each with its questions, not "
                f"{kind(file.content)}"
            )
        for video, own in file.content.items():
            within = isinstance(own, dict)
            self.named.add(video)
            if within and "mc_question" not in own:
                continue  # a video that only other tasks of the benchmark ask about
            steps = (video, "mc_question") if within else (video,)
            yield from _of_video(file, video, steps)

    def unknown(self, entry: Entry) -> Sequence[str]:
        return sorted(entry.fields.keys() - _KNOWN)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        clip = media_name(fields["video"], "video")
        options = texts(require(fields, "options"), "options")
        if len(options) != _OPTIONS:
            raise FieldError(f"field 'options' has {len(options)}; a question has {_OPTIONS}")
        area = text(require(fields, "area"), "area")
        if area not in _AREAS:
            raise FieldError(f"field 'area' is {area!r}; known: {', '.join(_AREAS)}")
        return Sample(
            id=f"{clip}_{named(require(fields, 'id'), 'id')}",
            question=multiple_choice(text(require(fields, "question"), "question"), options),
            media={},
            answers=right_option(fields.get("answer_id"), "answer_id", options),
            options=options,
            spoken=self.spoken(options),
            type=area,
            clip=clip,
        )


def _of_video(file: JsonFile, video: str, steps: Sequence[str]) -> Iterator[Entry]:
    for entry in file.entries(*steps):
        yield Entry({**entry.fields, "video": video}, entry.place)

"""NExT-QA, multiple choice: why, how, before and after what things happen in videos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from open_crema.data.sample import Sample
from open_crema.errors import DataError
from open_crema.tasks.choice import MultipleChoice
from open_crema.tasks.fields import (
    FieldError,
    media_name,
    named,
    require,
    right_option,
    text,
    whole,
)
from open_crema.tasks.prompts import multiple_choice
from open_crema.tasks.reading import Entry, read_csv, read_json

_MAP = "map_vid_vidorID.json"
_OPTIONS = [f"a{i}" for i in range(5)]
_COLUMNS = ["video", "frame_count", "width", "height", "question", "answer", "qid", "type"]
_CAUSAL, _TEMPORAL, _DESCRIPTIVE = ("CW", "CH"), ("TN", "TC", "TP"), ("DL", "DC", "DO")
_OTHERS = {"num_option", "start", "end", "loc"}


class NextQa(MultipleChoice):
    """The official csv files, and json of SeViLA's layout: a list of objects with ``video``,
    ``question``, ``a0`` to ``a4``, ``answer`` (a number) and ``qid``, which begins with the type.

    The video's folder is that of ``map_vid_vidorID.json``, if that lies beside the file.
    """

    name = "nextqa"
    title = "NExT-QA (multiple choice)"
    licence = "MIT; the videos are VidOR's (YFCC100M)"
    home = "https://github.com/doc-doc/NExT-QA"
    files = f"train.csv, val.csv, test.csv (of dataset/nextqa), with {_MAP} beside them"
    patterns = ("*.csv", "*.json")
    media = f"NAME is the video's id, as in 4010069381, or its path in {_MAP}, 1164/4010069381"
    types = ("CW", "CH", "TN", "TC", "TP", "DL", "DC", "DO")
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Causal": _CAUSAL,
        "Temporal": _TEMPORAL,
        "Descriptive": _DESCRIPTIVE,
    }
    published = "NExT-QA"
    evaluated_on = ("val", 4996)
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "How": ("CH",),
        "Why": ("CW",),
        "Avg.C": _CAUSAL,
        "P&N": ("TP", "TN"),
        "Pre": ("TC",),
        "Avg.T": _TEMPORAL,
        "Cnt": ("DC",),
        "Loc": ("DL",),
        "Otr": ("DO",),
        "Avg.D": _DESCRIPTIVE,
        "Avg": (),
    }

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        super().__init__(options)
        self._folders: dict[str, str] = {}

    def annotation_files(self, path: Path) -> list[tuple[str, Path]]:
        found = super().annotation_files(path)
        return [(split, file) for split, file in found if not file.name.startswith("map_")]

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        self._read_map(path.with_name(_MAP))
        if path.suffix.lower() == ".csv":
            yield from read_csv(path, [*_COLUMNS, *_OPTIONS])
        elif path.suffix.lower() == ".json":
            yield from read_json(path).entries()
        else:
            raise DataError(f"{path}: give a .csv (official) or .json file (SeViLA's layout)")

    def _read_map(self, path: Path) -> None:
        if not path.is_file():
            return
        content = read_json(path).content
        if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
            raise DataError(f"{path}: must be an object that maps ids of videos to their paths")
        self._folders.update(content)
        self.used.add(path)

    def media_names(self, clip: str) -> tuple[str, ...]:
        return (self._folders[clip], clip) if clip in self._folders else (clip,)

    def unknown(self, entry: Entry) -> Sequence[str]:
        known = {*_COLUMNS, *_OPTIONS, *_OTHERS}
        return sorted(entry.fields.keys() - known)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        clip = media_name(require(fields, "video"), "video")
        qid = named(require(fields, "qid"), "qid")
        kind, number = self._kind(fields, qid)
        names = [f"a{i}" for i in range(10) if f"a{i}" in fields]
        options = tuple(text(fields[name], name) for name in names)
        if len(options) < 2 or names != [f"a{i}" for i in range(len(names))]:
            raise FieldError(f"fields 'a0', 'a1', ...: {len(options)} options in order; give 2 up")
        for name in ("frame_count", "width", "height"):
            if name in fields:  # a column that was shifted shows here
                whole(fields[name], name)
        return Sample(
            id=f"{clip}_{number}",
            question=multiple_choice(text(require(fields, "question"), "question"), options),
            media={},
            answers=right_option(require(fields, "answer"), "answer", options),
            options=options,
            spoken=self.spoken(options),
            type=kind,
            clip=clip,
        )

    def _kind(self, fields: Mapping[str, object], qid: str) -> tuple[str, str]:
        """The type of a question, and the rest of its id."""
        kind, number = fields.get("type"), qid
        if kind is None:
            kind, _, number = qid.partition("_")
        if kind not in self.types:
            where = "type" if "type" in fields else "qid"
            raise FieldError(
                f"field {where!r}: the type {kind!r} is none of {', '.join(self.types)}"
            )
        return str(kind), number

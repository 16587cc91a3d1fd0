"""Questions about sounds: VGGSound's classes asked for as words, AudioCaps and AudioCaps-QA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from open_crema.data.sample import Sample, normalise
from open_crema.errors import DataError
from open_crema.tasks import lenience
from open_crema.tasks.base import Task
from open_crema.tasks.fields import FieldError, blank, media_name, text, whole
from open_crema.tasks.prompts import WORDING, open_ended
from open_crema.tasks.reading import Entry, read_csv, read_text

CLASSES = "stat.csv"
# Of the words that the paper adds to it Table 11 has the prompt; the question it does not print.
SOUND_QUESTION = "What is making the sound in the video?"
CAPTION_QUESTION = "What can be heard?"


class VggSound(Task):
    """``train.csv`` and ``test.csv`` of the official repository (file, class; no header), or
    ``vggsound.csv`` (YouTube id, second, class, split). The classes are those of ``stat.csv``, if
    that lies beside, else those that occur.

    The paper's number in brackets leaves answers out that are none of the classes.
    """

    name = "vggsound"
    title = "VGGSound, as open questions"
    licence = "CC BY 4.0 (the list); the videos are YouTube's"
    home = "https://github.com/hche11/VGGSound"
    files = f"train.csv and test.csv, or vggsound.csv, with {CLASSES} beside"
    patterns = ("vggsound.csv", "t*.csv")
    media = "NAME is the YouTube id and the second at which the clip begins, glLQrEijrKg_000300"
    unit = "clips"
    senses = ("video", "audio")
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"wording": WORDING}
    published = "VGGSound"
    evaluated_on = ("test", None)  # how many of the 15,446 videos were left is not said
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"Acc": ()}
    lenience = lenience.CONTAINED

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        super().__init__(options)
        self._classes: tuple[str, ...] = ()

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        first = next(iter(read_text(path).splitlines()), "")
        official = first.count(",") >= 3 and first.rstrip().endswith((",train", ",test"))
        columns = ["id", "start", "class", "split"] if official else ["file", "class"]
        rows = list(read_csv(path, columns, header=False))
        self._classes = self._known(path, rows)
        yield from rows

    def _known(self, path: Path, rows: Sequence[Entry]) -> tuple[str, ...]:
        beside = path.with_name(CLASSES)
        if not beside.is_file():
            return tuple(sorted({entry.fields["class"].strip() for entry in rows} - {""}))
        self.used.add(beside)
        listed = read_csv(beside, ["class", "count", "group"], header=False)
        return tuple(entry.fields["class"].strip() for entry in listed)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        said = fields["class"].strip()
        if said and said not in self._classes:
            raise FieldError(
                f"class {said!r} is none of the {len(self._classes)} in {CLASSES}: was a column "
                "shifted?"
            )
        clip = _file(fields) if "file" in fields else _clip(fields["id"], fields["start"], "start")
        return Sample(
            id=clip,
            question=open_ended(
                SOUND_QUESTION, "the frames and audio information", self.chosen["wording"]
            ),
            media={},
            answers=(said,) if said else (),
            candidates=self._classes if len(self._classes) > 1 else (),
            clip=clip,
            split=fields.get("split", "").strip(),
        )

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return lenience.contained(prediction, sample.answers)


def _file(fields: Mapping[str, str]) -> str:
    """``glLQrEijrKg_000300.mp4`` without its ending."""
    name = media_name(fields["file"], "file")
    stem, _, ending = name.rpartition(".")
    return stem if stem and ending.isalnum() and len(ending) <= 4 else name


def _clip(youtube: str, start: str, name: str) -> str:
    return f"{media_name(youtube, 'youtube_id')}_{whole(start, name):06d}"


class AudioCaps(Task):
    """Captions (``audiocap_id, youtube_id, start_time, caption``), one sample each, for the first
    lessons of an adapter; or AudioCaps-QA, which has ``question`` and ``answer`` columns (A.3).

    Exact match means little for captions: their score is no measure of a model.
    """

    name = "audiocaps"
    title = "AudioCaps and AudioCaps-QA"
    licence = "MIT (the captions); the sounds are YouTube's"
    home = "https://github.com/cdjkim/audiocaps"
    files = "train.csv, val.csv, test.csv (captions), or a csv with columns question and answer"
    patterns = ("*.csv",)
    media = "NAME is the YouTube id and the second at which the clip begins, vfY_TJq7n_U_000130"
    unit = "clips"
    senses = ("audio",)
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"wording": WORDING}
    lenience = lenience.NONE

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        first = next(iter(read_text(path).splitlines()), "")
        asks = "question" in [name.strip() for name in first.split(",")]
        if not asks and "caption" not in first:
            raise DataError(
                f"{path}, line 1: no column 'caption' and no column 'question'; the file must "
                "begin with a row of names"
            )
        wanted = ["question", "answer"] if asks else ["audiocap_id", "start_time", "caption"]
        return read_csv(path, ["youtube_id", *wanted])

    def unknown(self, entry: Entry) -> Sequence[str]:
        known = {"audiocap_id", "youtube_id", "start_time", "caption", "question", "answer"}
        return sorted(entry.fields.keys() - known)

    def sample(self, entry: Entry) -> Sample:
        fields = entry.fields
        asks = "question" in fields
        question = text(fields["question"], "question") if asks else CAPTION_QUESTION
        name = "answer" if asks else "caption"
        clip = media_name(fields["youtube_id"], "youtube_id")
        if "start_time" in fields:
            clip = _clip(fields["youtube_id"], fields["start_time"], "start_time")
        own = fields.get("audiocap_id", "")
        return Sample(
            id=f"{own}-{entry.number}" if asks else text(own, "audiocap_id"),
            question=open_ended(question, "the audio information", self.chosen["wording"]),
            media={},
            answers=() if blank(fields[name]) else (text(fields[name], name),),
            clip=clip,
        )

    def media_names(self, clip: str) -> tuple[str, ...]:
        youtube, _, start = clip.rpartition("_")
        plain = (f"{youtube}_{int(start)}", youtube) if start.isdigit() and youtube else ()
        return (clip, *plain)

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return normalise(prediction) in map(normalise, sample.answers)


__all__ = ["AudioCaps", "VggSound"]

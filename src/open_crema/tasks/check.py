"""What is in a task's files, and what is wrong with them: ``crema data check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from open_crema.data.sample import Sample
from open_crema.errors import DataError, MediaError
from open_crema.media.container import moving_pictures, opened
from open_crema.media.source import CONTAINER_SUFFIXES
from open_crema.tasks.base import TWICE, UNKNOWN, Problem, Reading, Task
from open_crema.tasks.layout import MediaIndex

_ALL = "all types"
_SHOWN = 5


@dataclass(frozen=True)
class Missing:
    """Of one sense. expected: clips that are to have it. missing: those that do not, by reason;
    examples: of each reason the first few."""

    expected: int
    missing: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Check:
    """files: that were read. counts: split (and part of it) -> type -> questions. answers: how
    many distinct. unanswered: questions without an answer. clips: how many the files name; silent:
    of these without a question. candidates: of the answers, where the task has a closed list.
    media: sense -> what is missing, empty where no folder of media was given."""

    task: str
    unit: str
    files: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    questions: int
    clips: int
    silent: int
    answers: int
    candidates: int
    unanswered: int
    problems: tuple[Problem, ...]
    media: Mapping[str, Missing]

    @property
    def broken(self) -> bool:
        """Whether samples are lost."""
        return any(problem.fatal for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "broken": self.broken}


def check(
    task: Task,
    annotations: str | Path,
    media: str | Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Check:
    """Reads all of a task's files, and looks for the media of every clip. Entries that are wrong
    are counted, and the first of each kind named; progress: of the clips looked for.

    Raises DataError where a file cannot be read as a whole, or there is none.
    """
    path = Path(annotations)
    reading = Reading(task, first_only=False)
    for split, file in task.annotation_files(path):
        reading.read(file, split)
        task.used.add(file)
    samples = reading.samples
    if not samples and not reading.problems:
        raise DataError(f"{path}: holds no {task.holds}; give {task.files}")
    clips = {sample.clip or "\0".join(sample.media.values()) for sample in samples}
    silent = len(task.named - clips)
    return Check(
        task=task.name,
        unit=task.unit,
        files=tuple(sorted(map(str, task.used))),
        counts=_counts(task, samples),
        questions=len(samples),
        clips=len(clips) + silent,
        silent=silent,
        answers=len({answer for sample in samples for answer in sample.answers}),
        candidates=len(samples[0].candidates) if samples else 0,
        unanswered=sum(not sample.answers for sample in samples),
        problems=tuple(reading.problems.values()),
        media={} if media is None else _media(task, samples, Path(media), progress),
    )


def _counts(task: Task, samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """In the task's order of types, the sum first."""
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        for part in (sample.split, *(f"{sample.split}, {name}" for name in task.parts(sample))):
            counts.setdefault(part, Counter()).update([_ALL, sample.type])
    order = {name: i for i, name in enumerate((_ALL, *task.types))}
    return {
        part: dict(sorted(own.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))
        for part, own in sorted(counts.items())
    }


def _media(
    task: Task,
    samples: Sequence[Sample],
    root: Path,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Missing]:
    """Of every sense that has a folder, and of those that the task's questions are about."""
    index = None if task.name == "jsonl" else MediaIndex(root)
    placed = {s.clip or s.id: s for s in task.place(samples, root)}
    expected: Counter[str] = Counter()
    lost: dict[str, dict[str, list[str]]] = {}
    for done, (clip, sample) in enumerate(placed.items(), start=1):
        for sense in dict.fromkeys((*sample.media, *task.senses)):
            expected[sense] += 1
            reason = _reason(task, sample, sense, index)
            if reason is not None:
                lost.setdefault(sense, {}).setdefault(reason, []).append(clip)
        if progress is not None:
            progress(done, len(placed))
    return {
        sense: Missing(
            count,
            {reason: len(own) for reason, own in lost.get(sense, {}).items()},
            {reason: own[:_SHOWN] for reason, own in lost.get(sense, {}).items()},
        )
        for sense, count in sorted(expected.items())
    }


def _reason(task: Task, sample: Sample, sense: str, index: MediaIndex | None) -> str | None:
    """Why a clip does not have a sense; None where it does."""
    if sense in sample.media:
        path = Path(sample.media[sense])
        if path.is_dir():
            return None if any(path.iterdir()) else "an empty folder"
        if path.exists():
            return _unusable(path, sense)
        beside = [] if index is None else index.beside(sense, task.media_names(sample.clip))
        if beside:
            return f"only a file that is no {sense} ({beside[0].suffix or beside[0].name})"
        return "no file"
    video = Path(sample.media.get("video", ""))
    if sense == "audio" and video.is_file():
        return _unusable(video, sense)
    if sense == "point" and video.is_dir():  # made of an RGB-D scene
        return None
    return "no file of its own, and no video to make it from"


def _unusable(path: Path, sense: str) -> str | None:
    """By its header alone: thousands of files are looked at."""
    if path.stat().st_size == 0:
        return "an empty file"
    if sense not in ("video", "audio") or path.suffix.lower() not in CONTAINER_SUFFIXES:
        return None
    try:
        with opened(path) as container:
            if sense == "video":
                return None if moving_pictures(container) else "no moving pictures in the file"
            return None if container.streams.audio else "no sound track in the file"
    except MediaError:
        return "a file that cannot be opened as media"


def table(found: Check) -> Group:
    """For people."""
    counted = Table(title=f"{found.task}: questions", title_justify="left")
    counted.add_column("type")
    for part in found.counts:
        counted.add_column(part, justify="right")
    names = list(dict.fromkeys(name for own in found.counts.values() for name in own))
    typed = [name for name in names if name not in ("", _ALL)]
    for name in (*typed, _ALL):
        numbers = [str(own.get(name, 0)) for own in found.counts.values()]
        if name == _ALL and typed:
            counted.add_section()
        counted.add_row(name, *numbers)
    parts: list[Table | Text] = [counted, Text("\n".join(_lines(found)))]
    if found.media:
        senses = Table(title="media, by clip", title_justify="left")
        for name in ("sense", "expected", "there", "missing"):
            senses.add_column(name, justify="left" if name in ("sense", "missing") else "right")
        for sense, own_media in found.media.items():
            lost = sum(own_media.missing.values())
            why = "\n".join(
                f"{count} {reason}: {', '.join(own_media.examples[reason])}"
                + (" ..." if count > len(own_media.examples[reason]) else "")
                for reason, count in own_media.missing.items()
            )
            there = own_media.expected - lost
            senses.add_row(sense, str(own_media.expected), str(there), Text(why or "-"))
        parts.append(senses)
    return Group(*parts)


def _lines(found: Check) -> Iterator[str]:
    without = f" ({found.silent} of them without a question)" if found.silent else ""
    yield f"{found.questions} questions in {found.clips} {found.unit}{without}"
    of = f" of {found.candidates} classes" if found.candidates else ""
    yield f"answers: {found.answers} different ones{of}"
    twice = sum(p.count for p in found.problems if p.text == TWICE)
    unknown = sum(p.count for p in found.problems if p.text.startswith(UNKNOWN))
    yield f"duplicate ids: {twice}; empty answers: {found.unanswered}; unknown fields: {unknown}"
    for file in found.files:
        yield f"read: {file}"
    for problem in found.problems:
        what = "ERROR" if problem.fatal else "note"
        more = " ..." if problem.count > len(problem.places) else ""
        times = "once" if problem.count == 1 else f"{problem.count} times"
        yield f"{what}: {problem.text}: {times}, {'; '.join(problem.places)}{more}"

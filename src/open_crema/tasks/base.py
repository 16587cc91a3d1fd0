"""What a task is: how its files are read, its prompt, its types and its two ways to be right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from open_crema.data.sample import Sample, enter_pairs
from open_crema.errors import ConfigError, DataError, did_you_mean
from open_crema.tasks.fields import FieldError
from open_crema.tasks.layout import MediaIndex
from open_crema.tasks.reading import Entry

SPLITS = {"train": "train", "validation": "val", "test": "test"}  # data.* -> a benchmark's own name
_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
TWICE, UNKNOWN = "an id is given twice", "unknown field"


@dataclass
class Problem:
    """Something wrong with entries of the files. fatal: it has no samples until it is mended.
    places: of the first few. count: of all."""

    text: str
    fatal: bool
    places: list[str] = field(default_factory=list)
    count: int = 0


class Task(ABC):
    """A benchmark.

    title, licence, home: for people. files: what its annotation files are called. patterns: by
    which they are found in a folder, the first that finds any. media: what its media are called
    (the folders are the same for all tasks, see :mod:`open_crema.tasks.layout`). unit: what its
    clips are. senses: those
    that its questions are about, the first of which every clip has. types: of its questions, in
    the order of the paper's columns; groups: name of a mean over several of them -> these. options:
    name -> what it may be, the default first. published: its name in the paper's tables, and
    columns: those -> the types that they are about, of all for none; evaluated_on: the split that
    they are of, and how many questions it has, where that is known. lenience: in what the released
    code's scoring is lenient.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    home: ClassVar[str]
    files: ClassVar[str]
    media: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = "videos"
    senses: ClassVar[tuple[str, ...]] = ("video",)
    types: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    published: ClassVar[str] = ""
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    evaluated_on: ClassVar[tuple[str, int | None]] = ("test", None)
    lenience: ClassVar[str]

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        given = dict(options or {})
        for name, value in given.items():
            if name not in self.options:
                hint = did_you_mean(name, self.options)
                known = ", ".join(self.options) or "none"
                raise ConfigError(
                    f"{self.name} has no option {name!r}: {hint}known: {known}; data.options=null "
                    "leaves out what another file of the configuration says"
                )
            if value not in self.options[name]:
                listed = ", ".join(self.options[name])
                raise ConfigError(f"{self.name}: option {name} is {value!r}; it may be {listed}")
        self.chosen = {name: values[0] for name, values in self.options.items()} | given
        self.used: set[Path] = set()  # files beside the annotations that were read too
        self.named: set[str] = set()  # clips that a file names without a question

    @abstractmethod
    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        """Of one file. Raises DataError where the file as a whole cannot be read."""

    @abstractmethod
    def sample(self, entry: Entry) -> Sample:
        """The question of an entry, without its media. Raises FieldError."""

    @abstractmethod
    def lenient(self, sample: Sample, prediction: str) -> bool:
        """Whether the released code's scoring counts an answer to an open question as right."""

    def unknown(self, entry: Entry) -> Sequence[str]:
        """Names of fields that this task does not know; none of them is read."""
        return ()

    def parts(self, sample: Sample) -> tuple[str, ...]:
        """Parts of a split that it belongs to and that papers report alone."""
        return ()

    def differs(self, samples: Sequence[Sample]) -> str:
        """Why a score of these samples is not what the paper's tables have; "" where it is."""
        split, count = self.evaluated_on
        own = sorted({sample.split for sample in samples})
        if own != [split]:
            return f"the paper evaluates on the {split} split; this is {', '.join(own)}"
        if count is not None and len(samples) != count:
            return f"the paper's {split} split has {count} questions; this is {len(samples)}"
        return ""

    def doubts(self, sample: Sample) -> Iterator[str]:
        """What about a sample is odd and no reason to refuse it."""
        if len(set(sample.options)) < len(sample.options):
            yield "two options of a question have the same text"

    def keeps(self, sample: Sample) -> bool:
        """Whether it belongs to what the options ask for."""
        wanted = self.chosen.get("split", "all")
        return wanted == "all" or wanted in self.parts(sample)

    def media_names(self, clip: str) -> tuple[str, ...]:
        """What a clip's media may be called, without extension, the likeliest first."""
        return (clip,)

    def find_media(self, sample: Sample, index: MediaIndex) -> dict[str, str]:
        """Path of each sense's own file. One that should be there and is not keeps the path where
        it is looked for, so that it is missed by name when it is used."""
        names, found = self.media_names(sample.clip), {}
        for sense in index.senses:
            path = index.find(sense, names)
            if path is None and (sense == self.senses[0] or sense != "video"):
                path = index.expected(sense, names[0])
            if path is not None:
                found[sense] = str(path)
        first = self.senses[0]
        return found if first in found else {**found, first: str(index.expected(first, names[0]))}

    def place(self, samples: Sequence[Sample], root: Path) -> list[Sample]:
        """The samples with the paths of their media. Raises DataError where there is no folder."""
        index, found = MediaIndex(root), dict[str, dict[str, str]]()
        for sample in samples:
            if sample.clip not in found:
                found[sample.clip] = self.find_media(sample, index)
        return [replace(sample, media=found[sample.clip]) for sample in samples]

    def load(
        self,
        path: str | Path,
        *,
        media_root: str | Path | None = None,
        split: str | None = None,
    ) -> list[Sample]:
        """The samples of a file, or of those files of a folder that are of the split.

        media_root: the folder of the media; by default that of the file. Raises DataError naming
        file, line and field for whatever is wrong.
        """
        path = Path(path)
        reading = Reading(self)
        files = self.annotation_files(path)
        if path.is_dir() and split is not None:
            files = [(own, file) for own, file in files if own in (split, "all")]
        for own, file in files:
            reading.read(file, own)
        samples = reading.samples
        if path.is_dir() and split is not None:
            samples = [sample for sample in samples if sample.split == split]
        if not samples:
            what = f" of the {split} split" if split else ""
            raise DataError(f"{path}: holds no {self.holds}{what}; give {self.files}")
        return self.place(samples, Path(media_root) if media_root else _folder(path))

    @property
    def holds(self) -> str:
        return "questions"

    def annotation_files(self, path: Path) -> list[tuple[str, Path]]:
        """(split, file) of a file, or of all files of the task in a folder. Raises DataError where
        there is none."""
        if not path.is_dir():
            return [(self.split_of(path), path)]
        for pattern in self.patterns:
            if found := sorted(path.glob(pattern)):
                return [(self.split_of(file), file) for file in found]
        raise DataError(
            f"{path}: a folder that cannot be read: it holds no annotation file of {self.title}, "
            f"which is {self.files}"
        )

    def split_of(self, path: Path) -> str:
        words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
        return next((_NAMES[word] for word in words if word in _NAMES), "all")


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


@dataclass
class Reading:
    """The samples of a task's files, with all that is wrong with them.

    samples: those that can be used, without media. problems: by their text. seen: split and id ->
    where.
    """

    task: Task
    first_only: bool = True
    samples: list[Sample] = field(default_factory=list)
    problems: dict[str, Problem] = field(default_factory=dict)
    seen: dict[tuple[str, str], tuple[Path, Entry]] = field(default_factory=dict)

    def read(self, path: Path, split: str) -> None:
        """Adds a file. Raises DataError for the first thing that is wrong, if ``first_only``, or
        where the file cannot be read at all."""
        entered: dict[tuple[str, str], list[Sample]] = {}
        for entry in self.task.entries(path, split):
            try:
                sample = self.task.sample(entry)
            except FieldError as error:
                self._note(str(error), entry)
                continue
            sample = replace(sample, split=sample.split or split)
            key = (sample.split, sample.id)
            if key in self.seen:
                other, before = self.seen[key]
                first = before.place()
                first = first.removeprefix(f"{path}, ") if other == path else first
                same = f"id {sample.id!r} is already that of {first}"
                self._note(same, entry, group=TWICE)
                continue
            self.seen[key] = (path, entry)
            try:
                enter_pairs(sample, entered)
            except DataError as error:
                self._note(str(error), entry)
            if not self.first_only:
                for name in self.task.unknown(entry):
                    self._note(f"{UNKNOWN} {name!r}, not read", entry, fatal=False)
                for doubt in self.task.doubts(sample):
                    self._note(doubt, entry, fatal=False)
            if self.task.keeps(sample):
                self.samples.append(sample)

    def _note(self, text: str, entry: Entry, *, fatal: bool = True, group: str = "") -> None:
        if fatal and self.first_only:
            raise DataError(f"{entry.place()}: {text}")
        problem = self.problems.setdefault(group or text, Problem(group or text, fatal))
        if len(problem.places) < _SHOWN:  # a place takes a look at the whole file
            problem.places.append(entry.place() + (f": {text}" if group else ""))
        problem.count += 1


_SHOWN = 3

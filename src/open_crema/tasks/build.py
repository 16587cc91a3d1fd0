"""``crema data build``: TouchQA and ThermalQA, of the files of Touch and Go and of Thermal-IM.

The paper names the questions, the rate of the frames (3 a second) and the sizes of both sets (A.1),
and publishes no files. What it does not say is decided here:

- **TouchQA.** A question for each touch: a run of labelled frames (``label.txt``) of one recording
  and one material, with no gap of more than a second, as the camera and the tactile sensor show it.
- **ThermalQA.** A question for each annotated action: what is seen in the three seconds after its
  end, as long as the recording lasts.
- **Split.** With the authors' ``train.json`` and ``test.json`` in the source, theirs. Else the
  recordings are put in an order that the seed draws, the first questions train and the next ones
  test, as many as the paper has, or in its proportion where there are fewer; so the two share one
  recording at most.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from open_crema.errors import ConfigError, CremaError, DataError, MediaError, SenseAbsent
from open_crema.media import write_image
from open_crema.media.source import DEFAULT_LIMITS, list_images
from open_crema.media.timeline import Floats, Indices
from open_crema.media.video import read_video
from open_crema.storage import write_json
from open_crema.tasks.fields import FieldError, named, require, text, whole
from open_crema.tasks.reading import read_json, read_text
from open_crema.tasks.sensed import ThermalQa, TouchQa, _Sensed

RATE = 3.0  # frames a second of a question's pictures
_AFTER = 3.0  # seconds after an action
_GAP = 1.0  # seconds within one touch
_RATE_OF_PICTURES = 30.0  # of Touch and Go, where only its pictures are there


@dataclass(frozen=True)
class Moment:
    """A question: what of a recording it is about, in seconds from its first picture."""

    name: str
    recording: str
    begin: float
    end: float
    answer: str
    split: str = ""


@dataclass(frozen=True)
class Built:
    """split -> questions; recordings, and left: questions that belong to no split, as there are
    more than the paper has. notes: where it differs from the paper."""

    counts: Mapping[str, int]
    recordings: int
    left: int
    notes: tuple[str, ...]


def build(
    name: str,
    source: str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Writes ``train.json``, ``test.json`` and the pictures of each question into a folder, as the
    task of that name reads them. What is there already of an earlier call stays.

    Raises ConfigError for a name that is none of the two, DataError for a source that is not as it
    should be, MediaError for a recording that cannot be read, CremaError where the folder cannot be
    written.
    """
    if name not in _KINDS:
        raise ConfigError(f"cannot build {name!r}: known: {', '.join(_KINDS)}")
    task, streams, find = _KINDS[name]
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give the one that holds the data set")
    root, moments = find(source)
    given = _given_split(task, source, root)
    found = given or moments
    if not found:
        raise DataError(f"{source}: holds no question of {task.title}")
    chosen = given or _split(found, task.sizes, seed)
    for i, moment in enumerate(chosen):
        for sense, stream in streams.items():
            _write_pictures(root / moment.recording, stream, moment, out / sense / moment.name)
        if progress is not None:
            progress(i + 1, len(chosen))
    counts = {}
    for split in ("train", "test"):
        own = [moment for moment in chosen if moment.split == split]
        counts[split] = len(own)
        try:
            write_json(out / f"{split}.json", [_entry(task, moment) for moment in own])
        except OSError as error:
            raise CremaError(f"{out}: cannot be written ({error})") from None
    notes = [] if given else [f"split drawn with seed {seed}: the paper's is not published"]
    if tuple(counts.values()) != task.sizes:
        notes.append(
            f"the paper has {task.sizes[0]} train and {task.sizes[1]} test questions; this source "
            f"gives {len(found)} in all"
        )
    recordings = len({moment.recording for moment in chosen})
    return Built(counts, recordings, len(found) - len(chosen), tuple(notes))


def _entry(task: type[_Sensed], moment: Moment) -> dict[str, str]:
    return {
        "qid": moment.name,
        "video": moment.name,
        "question": task.asks,
        "answer": moment.answer,
        "recording": moment.recording,
    }


def _split(moments: Sequence[Moment], sizes: tuple[int, int], seed: int) -> list[Moment]:
    def drawn(moment: Moment) -> tuple[bytes, str]:
        text = json.dumps([seed, moment.recording]).encode()
        return hashlib.sha256(text).digest(), moment.name

    ordered = sorted(moments, key=drawn)
    wanted = sum(sizes)
    train = sizes[0]
    if len(ordered) < wanted:
        train = max(1, round(len(ordered) * sizes[0] / wanted))
    return [
        Moment(m.name, m.recording, m.begin, m.end, m.answer, "train" if i < train else "test")
        for i, m in enumerate(ordered[:wanted])
    ]


def _given_split(task: type[_Sensed], source: Path, root: Path) -> list[Moment]:
    """Of the authors' files, whose ``start`` and ``end`` are numbers of frames."""
    found = []
    for split in ("train", "test"):
        path = source / f"{split}.json"
        if not path.is_file():
            return []
        for entry in read_json(path).entries():
            try:
                recording = text(require(entry.fields, "video"), "video")
                begin = whole(require(entry.fields, "start"), "start")
                end = whole(require(entry.fields, "end"), "end")
                answer = text(require(entry.fields, "answer"), "answer")
                if not (root / recording).is_dir():
                    raise FieldError(f"field 'video': {root / recording} is no recording")
            except FieldError as error:
                raise DataError(f"{entry.place()}: {error}") from None
            rate = _rate(root / recording)
            name = f"{recording.replace('/', '_')}-{begin}"
            found.append(Moment(name, recording, begin / rate, (end + 1) / rate, answer, split))
    return found


def _touches(source: Path) -> tuple[Path, list[Moment]]:
    """``category_reference.txt`` (``Name: number``), ``label.txt`` (``RECORDING/FRAME.jpg,number``,
    -1 where it is not known) and the recordings in ``dataset/``."""
    root = source / "dataset" if (source / "dataset").is_dir() else source
    materials = _materials(source / "category_reference.txt")
    path = source / "label.txt"
    labelled: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        frame, _, label = line.rpartition(",")
        recording, _, picture = frame.strip().rpartition("/")
        index = picture.partition(".")[0]
        if not recording or not index.isdigit() or not label.strip().lstrip("-").isdigit():
            raise DataError(f"{place}: {line!r} is not RECORDING/FRAME.jpg,NUMBER")
        if (kind := int(label)) >= 0:
            if kind not in materials:
                raise DataError(f"{place}: {kind} is none of category_reference.txt")
            labelled.setdefault(recording, []).append((int(index), kind))
    moments = []
    for recording, frames in sorted(labelled.items()):
        if not (root / recording).is_dir():
            raise DataError(f"{path}: {recording} is labelled, but {root / recording} is not there")
        rate = _rate(root / recording)
        for run in _runs(sorted(frames), rate):
            (first, kind), (last, _) = run[0], run[-1]
            name = f"{recording.replace('/', '_')}-{first}"
            answer = materials[kind]
            moments.append(Moment(name, recording, first / rate, (last + 1) / rate, answer))
    return root, moments


def _runs(frames: Sequence[tuple[int, int]], rate: float) -> Iterator[list[tuple[int, int]]]:
    run = [frames[0]]
    for before, after in itertools.pairwise(frames):
        if after[1] != before[1] or after[0] - before[0] > _GAP * rate:
            yield run
            run = []
        run.append(after)
    yield run


def _materials(path: Path) -> dict[int, str]:
    """``Synthetic Fabric: 8`` a line; remarks in parentheses and quotes are left out."""
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, colon, rest = line.partition(":")
        if not colon:
            continue
        digits = rest.split("(")[0].strip()
        if not digits.lstrip("-").isdigit():
            raise DataError(f"{path}, line {number}: {line!r} is not NAME: NUMBER")
        found[int(digits)] = name.strip().strip("'\"").strip().lower()
    return found


def _actions(source: Path) -> tuple[Path, list[Moment]]:
    """A folder a recording, with ``annotation.json``: a list of ``start``, ``end`` (seconds),
    ``action``, ``object``."""
    moments = []
    for path in sorted(source.glob("**/annotation.json")):
        recording = path.parent.relative_to(source).as_posix()
        length = _index(path.parent, "RGBT_RGB")[1]
        for i, entry in enumerate(read_json(path).entries()):
            try:
                end = require(entry.fields, "end")
                if isinstance(end, bool) or not isinstance(end, (int, float)) or end < 0:
                    raise FieldError(f"field 'end' must be seconds, not {end!r}")
                action = named(require(entry.fields, "action"), "action").replace("_", " ")
            except FieldError as error:
                raise DataError(f"{entry.place()}: {error}") from None
            if end < length:  # after the last one nothing is seen
                name = f"{recording.replace('/', '_')}-{i}"
                until = min(end + _AFTER, length)
                moments.append(Moment(name, recording, float(end), until, action.lower()))
    return source, moments


_Find = Callable[[Path], tuple[Path, list[Moment]]]
_KINDS: dict[str, tuple[type[_Sensed], dict[str, str], _Find]] = {
    "touchqa": (TouchQa, {"video": "video", "touch": "gelsight"}, _touches),
    "thermalqa": (ThermalQa, {"video": "RGBT_RGB", "thermal": "RGBT_T"}, _actions),
}


def _rate(folder: Path) -> float:
    starts, end = _index(folder, "video" if not (folder / "RGBT_RGB.mp4").exists() else "RGBT_RGB")
    return len(starts) / end


def _pictures(folder: Path, stream: str) -> list[Path]:
    """Those that were extracted of a stream: ``video_frame/``, ``gelsight_frame/``."""
    place = folder / f"{stream}_frame"
    if not place.is_dir():
        return []
    return list_images(place, DEFAULT_LIMITS)


def _index(folder: Path, stream: str) -> tuple[Floats, float]:
    """When each frame of a stream appears, and the end, in seconds."""
    video = folder / f"{stream}.mp4"
    if not video.exists():
        pictures = _pictures(folder, stream)
        if not pictures:
            raise DataError(f"{folder}: holds neither {video.name} nor {stream}_frame/")
        count = len(pictures)
        return np.arange(count) / _RATE_OF_PICTURES, count / _RATE_OF_PICTURES
    index, _ = _read(video, lambda starts, end: np.zeros(1, np.int64))
    return index


def _read(
    video: Path, choose: Callable[[Floats, float], Indices]
) -> tuple[tuple[Floats, float], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    try:
        index, pictures = read_video(video, choose, DEFAULT_LIMITS)
    except SenseAbsent as error:
        raise MediaError(str(error)) from None
    return (index.starts, index.end), pictures


def _write_pictures(folder: Path, stream: str, moment: Moment, target: Path) -> None:
    """Three a second, the first one at the beginning, with ``timestamps.txt``."""
    if target.is_dir():
        return
    times: list[float] = []

    def choose(starts: Floats, end: float) -> Indices:
        count = max(1, round((min(moment.end, end) - moment.begin) * RATE))
        moments = moment.begin + np.arange(count) / RATE
        found = np.searchsorted(starts, moments + 1e-6, side="right") - 1
        kept = np.unique(found.clip(0, len(starts) - 1))
        times.extend((starts[kept] - starts[kept[0]]).tolist())
        return kept

    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        video = folder / f"{stream}.mp4"
        if video.exists():
            _, frames = _read(video, choose)
            for i, frame in enumerate(frames):
                write_image(part / f"{i:04d}.png", frame)
        else:
            files = _pictures(folder, stream)
            for i, at in enumerate(choose(*_index(folder, stream)).tolist()):
                shutil.copyfile(files[at], part / f"{i:04d}{files[at].suffix.lower()}")
        lines = "".join(f"{time:.6f}\n" for time in times)
        (part / "timestamps.txt").write_text(lines, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise CremaError(f"{target}: cannot be written ({error})") from None

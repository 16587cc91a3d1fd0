"""Tasks: what a benchmark's files say, how its questions are put to the LLM, what is right.

``TASKS`` has them by name; a file each tells of one benchmark or of a few that are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from open_crema.data.sample import Sample
from open_crema.errors import ConfigError, DataError, did_you_mean
from open_crema.tasks.base import SPLITS, Task
from open_crema.tasks.jsonl import Jsonl
from open_crema.tasks.music_avqa import MusicAvqa
from open_crema.tasks.nextqa import NextQa
from open_crema.tasks.perception_test import PerceptionTest
from open_crema.tasks.scenes import ScanQa, Sqa3d
from open_crema.tasks.sensed import ThermalQa, TouchQa
from open_crema.tasks.sounds import AudioCaps, VggSound

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        MusicAvqa,
        NextQa,
        Sqa3d,
        PerceptionTest,
        VggSound,
        TouchQa,
        ThermalQa,
        AudioCaps,
        ScanQa,
        Jsonl,
    )
}

__all__ = ["SPLITS", "TASKS", "Jsonl", "Task", "digest", "get", "load"]


_OTHER_NAMES = {"3dllm": "scanqa", "3dllmqa": "scanqa", "audiocapsqa": "audiocaps"}


def get(name: str, options: Mapping[str, str] | None = None) -> Task:
    """A task by its name, in any case, with "-" or "_". Raises ConfigError for an unknown one, and
    for options that it does not have."""
    known = {_plain(task): task for task in TASKS} | _OTHER_NAMES
    if _plain(name) not in known:
        hint = did_you_mean(name, TASKS)
        raise ConfigError(f"unknown task {name!r}: {hint}known: {', '.join(TASKS)}")
    return TASKS[known[_plain(name)]](options)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def digest(task: str, path: str | Path) -> str:
    """sha256 of a data file; of a folder, of the digests of the task's files in it, by name. Raises
    DataError where one cannot be read."""
    path = Path(path)
    try:
        if not path.is_dir():
            return sha256(path.read_bytes()).hexdigest()
        files = sorted(file for _, file in get(task).annotation_files(path))
        each = [f"{sha256(f.read_bytes()).hexdigest()} {f.name}\n" for f in files]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return sha256("".join(each).encode()).hexdigest()


def load(
    task: str,
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    options: Mapping[str, str] | None = None,
    split: str | None = None,
    answers_required: bool = True,
    questions_required: bool = True,
) -> list[Sample]:
    """The samples of a data file, or of the files of a split ("train", "validation", "test") in a
    folder, read as that task reads it.

    media_root: the folder of the media; by default that of the file. options: of the task.
    answers_required, questions_required: whether a line of one's own questions may do without.

    Raises ConfigError for an unknown task and DataError for a broken file.
    """
    found = get(task, options)
    if isinstance(found, Jsonl):
        found.answers_required = answers_required
        found.questions_required = questions_required
    own = None if split is None else SPLITS[split]
    return found.load(path, media_root=media_root, split=own)

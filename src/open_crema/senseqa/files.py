"""A set as a folder of ordinary media and questions, for this program and for any other.

::

    senseqa.json         what it is, and whether it is complete
    questions.jsonl      as docs/data.md has it: all eight senses of every clip
    clips/NAME/          the media of one group of questions, see `group_files`
    official/            the same in the layouts of other data sets, see `layouts`

Whenever its making is cut short, the same command goes on with it, and what comes out is the same
bytes. ``questions.jsonl`` and ``official`` come last: what they name is there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from open_crema import __version__, storage
from open_crema.errors import ConfigError, CremaError, MediaError
from open_crema.progress import bar
from open_crema.senseqa import pool
from open_crema.senseqa.group_files import PART, media_of
from open_crema.senseqa.layouts import Layouts
from open_crema.senseqa.sets import Group, Question, Spec, groups
from open_crema.senseqa.types import TYPES, VERSION, Variant

_FORMAT = "SenseQA folder 1"
_MANIFEST, _LOCK = "senseqa.json", ".lock"
QUESTIONS, CLIPS, OFFICIAL = "questions.jsonl", "clips", "official"


@dataclass(frozen=True)
class Made:
    """clips: those of the set, one a question. bytes: of all the groups' folders; 0 where nothing
    was to be done."""

    clips: int
    bytes: int
    seconds: float
    complete_before: bool


def make(spec: Spec, folder: str | Path, *, workers: int = 0) -> Made:
    """Writes the set, or what is missing of it: one that was cut short, or one of fewer questions.

    workers: processes; 0: one for each core that this process may use. They import the program's
    main module, so a script calls this under ``if __name__ == "__main__"``.

    Raises ConfigError for a folder that holds something else, CremaError where it cannot be
    written, or another process is making it.
    """
    if workers < 0:
        raise ConfigError(f"{workers} workers: give 1 or more, or 0 for all cores")
    begun, place = time.perf_counter(), Path(folder).absolute()
    try:
        if _is_complete(place, spec):
            if (place / _LOCK).exists():
                with suppress(CremaError, OSError), _alone(place):
                    pass  # of a process that was killed just then: it goes
            return Made(spec.count, 0, time.perf_counter() - begun, True)
        with _alone(place):
            _is_complete(place, spec)  # what another process has begun in the meantime
            size = _write(spec, place, workers)
    except MediaError as error:
        raise MediaError(f"{error}; then run the same command again") from None
    except OSError as error:
        raise storage.unwritable(place, error) from None
    return Made(spec.count, size, time.perf_counter() - begun, False)


def _write(spec: Spec, folder: Path, workers: int) -> int:
    """Returns the bytes of the clips."""
    _sweep(folder)
    _write_manifest(folder, spec, complete=False)
    clips, size = folder / CLIPS, 0
    clips.mkdir(exist_ok=True)
    try:
        with bar() as progress:
            task = progress.add_task("making clips", total=spec.count, note="")
            with closing(pool.write_all(groups(spec), clips, workers)) as written:
                for group, held in written:
                    size += held
                    progress.advance(task, group.first)
    finally:
        _sweep(folder)
    _write_questions(spec, folder)
    os.sync()  # once, and not for every file: only now all of it is promised to be there
    _write_manifest(folder, spec, complete=True)
    return size


def _write_questions(spec: Spec, folder: Path) -> None:
    questions, official = (folder / f".{name}{PART}" for name in (QUESTIONS, OFFICIAL))
    layouts = Layouts(spec.split, official)
    with questions.open("w", encoding="utf-8") as file:
        for group in groups(spec):
            for variant, question in zip(group.variants, group.questions, strict=False):
                media = media_of_clip(group, variant)
                file.write(json.dumps(line(question, media), ensure_ascii=False) + "\n")
                layouts.add(group, variant, {sense: folder / media[sense] for sense in media})
    layouts.write()
    questions.replace(folder / QUESTIONS)
    if (folder / OFFICIAL).exists():
        shutil.rmtree(folder / OFFICIAL)
    if official.exists():
        official.rename(folder / OFFICIAL)


def media_of_clip(group: Group, variant: Variant) -> dict[str, str]:
    """Sense -> its file's path in the folder."""
    names = media_of(group, variant)
    return {sense: f"{CLIPS}/{group.name}/{name}" for sense, name in names.items()}


def line(question: Question, media: dict[str, str]) -> dict[str, Any]:
    """The question as the task `jsonl` reads it."""
    choices = "options" if question.options else "candidates"
    return {
        "id": question.id,
        **({"video": media["video"]} if "video" in media else {}),
        "media": {sense: path for sense, path in media.items() if sense != "video"},
        "question": question.text,
        "answer": question.answer,
        choices: getattr(question, choices),
        "type": question.type,
        "needs": question.needs,
        "pairs": question.pairs,
    }


def held(folder: Path) -> Spec:
    """The set that a folder holds. Raises ConfigError where it holds none, or not all of it."""
    path = folder / _MANIFEST
    if not path.exists():
        raise ConfigError(f"{folder}: is no folder of SenseQA ({_MANIFEST} is missing)")
    about = _manifest(path)
    try:
        types = tuple(about["types"])
        spec = Spec(about["split"], about["seed"], about["count"], types, about["frames"])
    except (KeyError, TypeError):
        raise _damaged(path) from None
    if not _is_complete(folder, spec):
        raise ConfigError(f"{folder}: its making was cut short; run `crema data make` on it again")
    return spec


def _described(spec: Spec) -> dict[str, Any]:
    """What a folder's manifest has to say so that this set may be made in it."""
    about = {"format": _FORMAT, "version": VERSION, **asdict(spec), "types": list(spec.types)}
    del about["count"]
    return about


def _write_manifest(folder: Path, spec: Spec, *, complete: bool) -> None:
    part = folder / f".{_MANIFEST}{PART}"
    code = f"open-crema {__version__}"
    about = {**_described(spec), "count": spec.count, "code": code, "complete": complete}
    storage.write_json(part, about)
    part.replace(folder / _MANIFEST)
    storage.flush(folder)


def _is_complete(folder: Path, spec: Spec) -> bool:
    """Whether it holds the whole set. Raises ConfigError where this set may not be made in it; an
    empty or missing folder, or a part of the set, is no error."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; choose another name for the folder")
    there = {entry.name for entry in folder.iterdir()}
    if _MANIFEST not in there:
        if there <= {_LOCK, f".{_MANIFEST}{PART}"}:
            return False
        raise ConfigError(
            f"{folder}: is not empty, and no folder of SenseQA ({_MANIFEST} is missing); choose "
            "another folder"
        )
    held = _manifest(folder / _MANIFEST)
    differing = [name for name, value in _described(spec).items() if held.get(name) != value]
    if differing:
        found, wanted = (_listed(about, differing) for about in (held, _described(spec)))
        raise ConfigError(
            f"{folder}: holds SenseQA of {found}, asked for is {wanted}; choose another folder"
        )
    if held["count"] > spec.count:
        raise ConfigError(
            f"{folder}: is a set of {held['count']} questions, asked for are only {spec.count}; "
            f"take the first {spec.count} lines of {QUESTIONS}, or choose another folder"
        )
    if not held["complete"] or held["count"] < spec.count:
        return False
    clips = {entry.name for entry in (folder / CLIPS).iterdir()} if CLIPS in there else set()
    return QUESTIONS in there and clips.issuperset(group.name for group in groups(spec))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_bytes())
        whole = isinstance(held["count"], int) and isinstance(held["complete"], bool)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise _damaged(path)
    found: dict[str, Any] = held
    return found


def _damaged(manifest: Path) -> ConfigError:
    return ConfigError(f"{manifest}: is damaged; remove the folder, or choose another one")


def _listed(about: dict[str, Any], names: list[str]) -> str:
    said = []
    for name in names:
        value = about.get(name)
        if name == "types" and isinstance(value, list):
            value = "all" if value == list(TYPES) else ", ".join(map(str, value))
        said.append(f"{name} {value}")
    return ", ".join(said)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, for this process alone. Raises CremaError where another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CremaError(
            f"{folder}: another process is making this set; wait until it has ended, or choose "
            "another folder"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _LOCK).unlink()  # while it is held: nobody else is to hold a name that goes
        lock.release()


def _sweep(folder: Path) -> None:
    """Removes what a making that was cut short has left half done."""
    for parent in (folder, folder / CLIPS):
        for left in parent.glob(f".*{PART}"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

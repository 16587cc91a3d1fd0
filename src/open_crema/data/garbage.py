"""Removing from a feature store what nothing can reach any more."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from open_crema.data.entry import DamagedError, decode, unwritable
from open_crema.data.inventory import Copy, contents
from open_crema.data.packing import read_intact
from open_crema.data.shards import Packed, read_shard, write_shard
from open_crema.data.sources import KnownSources, State
from open_crema.data.store import FeatureStore

_STRAY_SECONDS = 3600  # far longer than a write takes

Why = Literal[
    "stray file of a killed writer",
    "set aside as damaged",
    "damaged",
    "of an earlier version",
    "made by another recipe",
    "source gone or changed",
    "a second copy",
    "record of a source that is gone or changed",
]


@dataclass(frozen=True)
class Removed:
    """Something removed. copy: None for a whole file that is no entry. size: bytes."""

    file: Path
    size: int
    why: Why
    copy: Copy | None = None


@dataclass(frozen=True)
class Collected:
    """away: entries kept because their source's folder is not there now."""

    removed: tuple[Removed, ...]
    away: int


def collect(
    store: FeatureStore, *, recipe: int, dry_run: bool = False, gone: bool = False
) -> Collected:
    """Removes what nothing can reach any more; with dry_run, only says what that is.

    An entry stays while its recipe is the given one and each of its sources is there: some recorded
    and unchanged source, or the path in the entry itself, has that content. It also stays while the
    folder of its source is missing or empty, as on a disk that is not mounted, unless ``gone`` says
    that such sources will not come back. Other processes may read and write meanwhile; packing
    waits. Raises CremaError where the folder cannot be written.
    """
    if dry_run:
        return _find(store, recipe, gone)
    try:
        with store.lock():
            found = _find(store, recipe, gone)
            _remove(store, found.removed)
    except OSError as error:
        raise unwritable(store.root, error) from None
    return found


def _find(store: FeatureStore, recipe: int, gone: bool) -> Collected:
    removed = list(_stray(store.root))
    held = contents(store)
    for path, error in held.broken.items():
        if isinstance(error, DamagedError):
            removed.append(Removed(path, _size(path), "damaged"))
    known = KnownSources(store.root / "sources")  # read after the entries: none is newer
    live: dict[str, list[Copy]] = {}
    unreachable: list[Copy] = []
    away = 0
    for copy in held.copies:
        if isinstance(copy.fault, OSError):
            continue  # cannot be judged now
        if copy.label is None:
            removed.append(_entry(copy, "of an earlier version" if copy.is_earlier else "damaged"))
        elif copy.label.about.recipe != recipe:
            removed.append(_entry(copy, "made by another recipe"))
        elif (state := _state(copy, known)) == "gone" or (state == "away" and gone):
            unreachable.append(copy)
        else:
            away += state == "away"
            live.setdefault(copy.key, []).append(copy)
    known.refresh()  # hashing took its time: a writer may have recorded a source by now
    for copy in unreachable:
        if _state(copy, known) == "there":
            live.setdefault(copy.key, []).append(copy)
        else:
            removed.append(_entry(copy, "source gone or changed"))
    for several in live.values():
        if len(several) > 1:
            removed += _superfluous(several)
    for record in known.stale:
        why: Why = "record of a source that is gone or changed"
        removed.append(Removed(record, _size(record), why))
    return Collected(tuple(removed), away)


def _stray(root: Path) -> Iterable[Removed]:
    for path in sorted(root.rglob(".*.part")):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue  # its writer has just finished
        if time.time() - about.st_mtime > _STRAY_SECONDS:
            yield Removed(path, about.st_size, "stray file of a killed writer")
    for path in sorted(root.rglob("*.damaged")):
        yield Removed(path, _size(path), "set aside as damaged")


def _entry(copy: Copy, why: Why) -> Removed:
    return Removed(copy.file, copy.size, why, copy)


def _state(copy: Copy, known: KnownSources) -> State:
    """The worst of its sources'."""
    assert copy.label is not None
    states = {known.state(path, digest) for path, digest in copy.label.about.sources}
    worst: tuple[State, ...] = ("gone", "away", "there")
    return next((state for state in worst if state in states), "there")


def _superfluous(several: list[Copy]) -> Iterable[Removed]:
    """All but the first copy that can be read."""
    kept = False
    for copy in several:
        if kept:
            yield _entry(copy, "a second copy")
            continue
        try:
            decode(copy.key, copy.read())
            kept = True
        except DamagedError:
            yield _entry(copy, "damaged")


def _remove(store: FeatureStore, removed: Iterable[Removed]) -> None:
    """Whole files first: that makes room for the shards that are written again."""
    dead: dict[Path, set[Packed]] = {}
    for one in removed:
        if one.copy is None:
            one.file.unlink(missing_ok=True)
        elif isinstance(one.copy.place, Packed):
            dead.setdefault(one.file, set()).add(one.copy.place)
        else:
            _remove_loose(one.file, one.copy.inode)
    written = set()
    for shard, places in dead.items():
        others = [place for place in read_shard(shard) if place not in places]
        read = {place.key: read_intact(place) for place in others}
        left = {key: data for key, data in read.items() if data is not None}
        if left:
            written.add(write_shard(store.shards.folder, left))
    for shard in set(dead) - written:  # what is left of one may be all that another held
        shard.unlink(missing_ok=True)


def _remove_loose(path: Path, inode: int) -> None:
    """Removes the file that was judged, not one that a writer has put in its place since."""
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return
    if aside.stat().st_ino == inode:
        aside.unlink()
    else:
        os.replace(aside, path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

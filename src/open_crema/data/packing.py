"""Gathering loose entries into shards; the caller holds the store's lock."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from open_crema.data.damage import set_aside, warn_of
from open_crema.data.entry import DamagedError, EarlierVersionError, decode
from open_crema.data.shards import Packed, Shards, write_shard

FULL_BYTES = 128 << 20
FULL_ENTRIES = 8192  # far below what the header of a safetensors file may hold


class _Batch:
    """Entries of the next shard, and the files that it makes superfluous."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.files: list[Path] = []
        self.size = 0

    def add(self, key: str, data: bytes) -> None:
        self.entries[key] = data
        self.size += len(data)

    def has_room(self, size: int, count: int) -> bool:
        return self.size + size <= FULL_BYTES and len(self.entries) + count <= FULL_ENTRIES

    def write(self, folder: Path) -> None:
        shard = write_shard(folder, self.entries)
        for file in self.files:
            if file != shard:  # it may be the one that was just written in a damaged one's place
                file.unlink(missing_ok=True)


def pack(loose: Iterable[tuple[str, Path]], shards: Shards) -> int:
    """See :meth:`open_crema.data.store.FeatureStore.pack`. Raises CremaError, OSError."""
    shards.refresh()
    batch = _Batch()
    packed = 0
    for key, path in sorted(loose):
        data = _read_loose(key, path)
        if data is None:
            continue
        if any(_is(place, data) for place in shards.find(key)):
            path.unlink(missing_ok=True)  # left by a packer that was killed
            continue
        if batch.entries and not batch.has_room(len(data), 1):
            batch.write(shards.folder)
            batch = _Batch()
        batch.add(key, data)
        batch.files.append(path)
        packed += 1
    if batch.entries:
        _join_small(batch, shards)
        batch.write(shards.folder)
    return packed


def _join_small(batch: _Batch, shards: Shards) -> None:
    """Adds the shards that are no larger than the batch: each entry moves few times in all."""
    held: dict[Path, list[Packed]] = {}
    for place in shards.entries():
        held.setdefault(place.shard, []).append(place)
    sizes = {shard: sum(place.length for place in places) for shard, places in held.items()}
    for shard in sorted(held, key=lambda shard: sizes[shard]):
        if sizes[shard] > batch.size or not batch.has_room(sizes[shard], len(held[shard])):
            break
        for place in held[shard]:
            if place.key not in batch.entries and (data := read_intact(place)) is not None:
                batch.add(place.key, data)
        batch.files.append(shard)


def _is(place: Packed, data: bytes) -> bool:
    try:
        return place.read() == data
    except DamagedError:
        return False


def _read_loose(key: str, path: Path) -> bytes | None:
    """The entry's bytes; None where they are damaged, gone, or of an earlier version."""
    try:
        data = path.read_bytes()
        decode(key, data)
        return data
    except (FileNotFoundError, EarlierVersionError):
        return None
    except DamagedError as error:
        set_aside(path, error)
        return None


def read_intact(place: Packed) -> bytes | None:
    """The entry's bytes; None, and a warning that names it, where they are damaged."""
    try:
        data = place.read()
        decode(place.key, data)
        return data
    except DamagedError as error:
        warn_of(place, error)
        return None

"""Shards: many entries of the feature store in one file.

A shard is a safetensors file with one tensor of bytes an entry, named by the entry's key: the entry
as it was when it was loose. The labels stand in the header as well. A shard's name is the sha256 of
its header, so a changed header is noticed; each entry has its own checksum. Shards are never
changed, only replaced by others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from open_crema.data.entry import DamagedError, Label, read_label, unreadable, write_whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Packed:
    """Where an entry stands in a shard, in bytes."""

    key: str
    shard: Path
    start: int
    length: int

    def read(self) -> bytes:
        """The entry's bytes alone. Raises DamagedError where the shard ends before they do."""
        with self.shard.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.length)
        if len(data) < self.length:
            raise DamagedError("the shard is cut short")
        return data


def write_shard(folder: Path, entries: Mapping[str, bytes]) -> Path:
    """Writes a shard of entries by key; when this returns it is safely on disk.

    Raises CremaError where it cannot be written.
    """
    header: dict[str, object] = {
        "__metadata__": {key: read_label(data).to_text() for key, data in entries.items()}
    }
    end = 0
    for key, data in entries.items():
        start, end = end, end + len(data)
        header[key] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / f"{hashlib.sha256(text).hexdigest()}.safetensors"
    write_whole(path, [len(text).to_bytes(8, "little"), text, *entries.values()])
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the loose ones are removed next: the new name must outlive them
    finally:
        os.close(descriptor)
    return path


def read_shard(path: Path) -> dict[Packed, Label]:
    """The entries of a shard, read off its header. Raises DamagedError, OSError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.fstat(file.fileno()).st_size:
            raise DamagedError("its header is cut short")
        text = file.read(length)
    if hashlib.sha256(text).hexdigest() != path.stem:
        raise DamagedError("its header does not match its name")
    header = json.loads(text)
    labels = header.pop("__metadata__")
    found = {}
    for key, tensor in header.items():
        start, end = tensor["data_offsets"]
        packed = Packed(key, path, 8 + length + start, end - start)
        found[packed] = Label.from_text(labels[key])
    return found


_Places = dict[str, tuple[Packed, ...]]


class Shards:
    """The shards in a folder, and which entries they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # By file name, newest first; and by key. Replaced as one, for threads that share this.
        self._known: tuple[_Places, _Places] = ({}, {})
        self._refreshing = threading.Lock()

    def find(self, key: str) -> tuple[Packed, ...]:
        """The places of an entry, newest first, as far as known: see :meth:`refresh`."""
        return self._known[1].get(key, ())

    def refresh(self) -> bool:
        """Looks at the folder again; whether shards have come or gone.

        Names damaged shards in a warning; what they hold counts as missing. Raises CremaError for
        a folder that cannot be read.
        """
        with self._refreshing:
            return self._refresh()

    def _refresh(self) -> bool:
        try:
            names = self._names()
            before, _ = self._known
            if set(names) == set(before):
                return False
            shards = {name: before[name] if name in before else self._read(name) for name in names}
        except OSError as error:
            raise unreadable(self.folder, error) from None
        places: _Places = {}
        for shard in shards.values():
            for packed in shard:
                places[packed.key] = (*places.get(packed.key, ()), packed)
        self._known = shards, places
        return True

    def entries(self) -> Iterable[Packed]:
        for shard in self._known[0].values():
            yield from shard

    def _names(self) -> list[str]:
        """Newest first."""
        while True:
            try:
                with os.scandir(self.folder) as listed:
                    files = [file for file in listed if file.name.endswith(".safetensors")]
            except FileNotFoundError:
                return []
            try:
                dated = [(file.stat().st_mtime_ns, file.name) for file in files]
            except FileNotFoundError:
                continue  # replaced by another just now, which this listing may lack
            return [name for _, name in sorted(dated, reverse=True)]

    def _read(self, name: str) -> tuple[Packed, ...]:
        path = self.folder / name
        try:
            return tuple(read_shard(path))
        except FileNotFoundError:
            return ()
        except DamagedError as error:
            _log.warning("%s: damaged (%s); all its entries are made again", path, error)
            return ()

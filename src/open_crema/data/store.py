"""The feature store: what frozen encoders said of each source, kept by content, never twice.

Layout under the root::

    objects/ab/<key>.safetensors      one loose entry: features, or why the sense is absent
    shards/<digest>.safetensors       many entries that were loose
    sources/<digest of path>.json     the content digest of a file or folder, valid while its size
                                      and modification time stay the same

A key is a digest of everything a result depends on, so nothing is ever updated in place. A result
is written loose, at once; :meth:`FeatureStore.pack` gathers loose entries into shards. Files appear
by rename, and a loose entry or a shard is removed after its entries stand elsewhere: any number of
processes may read, write and pack at once, and a killed one leaves at most a stray ``*.part`` file
that nobody reads, or an entry twice. Every entry carries a checksum that each read verifies.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock

from open_crema.data.damage import set_aside, warn_of
from open_crema.data.entry import (
    About,
    DamagedError,
    EarlierVersionError,
    decode,
    encode,
    unreadable,
    write_whole,
)
from open_crema.data.packing import pack
from open_crema.data.shards import Packed, Shards
from open_crema.data.sources import Check, source_digest
from open_crema.errors import CremaError, SenseAbsent
from open_crema.features import Features

_log = logging.getLogger(__name__)


def feature_key(**parts: str | int | float) -> str:
    """The key of a result, from everything that it depends on. Hexadecimal sha256."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def as_stored(features: Features) -> Features:
    """Features in the store's precision: tokens bfloat16, times float64."""
    tokens = features.tokens.detach().cpu().to(torch.bfloat16).contiguous()
    mask = features.mask.cpu().contiguous()
    return Features(tokens, mask, features.times.to("cpu", torch.float64).contiguous())


class FeatureStore:
    """Content-addressed features on disk.

    Raises CremaError where the folder cannot be read, or not written when something is to be.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.shards = Shards(self.root / "shards")

    def get_or_make(
        self, key: str, make: Callable[[], Features | SenseAbsent], *, about: About
    ) -> Features | SenseAbsent:
        """The result under the key; where there is none, or a damaged one, made and written.

        Features come back as :func:`as_stored` gives them, freshly made or not.
        """
        found = self.get(key)
        if found is None:
            found = make()
            if isinstance(found, Features):
                found = as_stored(found)
            self.put(key, found, about=about)
        return found

    def get(self, key: str) -> Features | SenseAbsent | None:
        """The result under the key, or None. A damaged entry is named in a warning; no result."""
        path = self._object(key)
        try:
            return decode(key, path.read_bytes())[1]
        except (FileNotFoundError, EarlierVersionError):
            pass
        except OSError as error:
            raise unreadable(path, error) from None
        except DamagedError as error:
            set_aside(path, error)
        damaged: dict[Packed, DamagedError] = {}
        while True:
            places = self.shards.find(key)
            for place in places:
                if place in damaged:
                    continue
                try:
                    return decode(key, place.read())[1]
                except FileNotFoundError:
                    continue  # its shard was replaced by another just now
                except OSError as error:
                    raise unreadable(place.shard, error) from None
                except DamagedError as error:
                    damaged[place] = error
            # Another thread may have looked at the folder since the places were asked for.
            if not self.shards.refresh() and self.shards.find(key) == places:
                break
        for place, why in damaged.items():
            warn_of(place, why)
        return None

    def put(self, key: str, result: Features | SenseAbsent, *, about: About) -> None:
        """Writes a result; a reader sees the whole of it or nothing."""
        write_whole(self._object(key), [encode(key, result, about)])

    def loose(self) -> Iterator[tuple[str, Path]]:
        """Key and file of each loose entry, in no special order."""
        for path in (self.root / "objects").glob("??/*.safetensors"):
            yield path.stem, path

    def pack(self) -> int:
        """Gathers loose entries into shards; returns how many. To be called now and then.

        Small shards are joined, so their number stays low however often this is called. Waits for
        another process that packs. Only a tidying: where the folder cannot be written, a warning
        says so and everything is left as it is.
        """
        if next(self.loose(), None) is None:
            return 0
        try:
            with self.lock():
                return pack(self.loose(), self.shards)
        except (CremaError, OSError) as error:
            _log.warning(
                "%s: cannot be packed (%s); its entries stay single files", self.root, error
            )
            return 0

    def lock(self) -> FileLock:
        """What packing and ``crema store gc`` hold; reading and writing need none."""
        return FileLock(self.root / "pack.lock")

    def source_digest(self, path: str | Path, *, check: Check | None = None) -> str:
        """sha256 of a file's content, or of a folder's file names and contents.

        Computed once for each size and modification time; before that, ``check(file, bytes)`` may
        refuse a file. Raises MediaError for what is missing, unreadable or neither a file nor a
        folder.
        """
        return source_digest(self.root / "sources", path, check)

    def _object(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / f"{key}.safetensors"

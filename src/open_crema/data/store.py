"""The feature store: what frozen encoders said of each source, kept by content, never twice.

Layout under the root::

    objects/ab/<key>.safetensors   one entry: features, or the reason why the sense is absent
    sources/<digest of path>.json  the content digest of a file or folder, valid while its size
                                   and modification time stay the same

A key is a digest of everything a result depends on, so nothing is ever updated in place. Objects
appear by rename: any number of processes may write at once, and a killed one leaves at most a
stray ``*.part`` file that nobody reads. Every object carries a checksum that each read verifies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from open_crema.data.entry import (
    About,
    DamagedError,
    EarlierVersionError,
    decode,
    encode,
    write_whole,
)
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

    Raises CremaError where the folder cannot be written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

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
        """The result under the key, or None. A damaged object is set aside with a warning."""
        path = self._object(key)
        try:
            return decode(key, path.read_bytes())[1]
        except (FileNotFoundError, EarlierVersionError):
            return None
        except OSError as error:
            raise CremaError(
                f"{path}: cannot be read from the feature store ({error}); repair it or choose "
                "another folder as data.store"
            ) from None
        except DamagedError as error:
            aside = path.with_suffix(".damaged")
            _log.warning("%s: damaged (%s); moved to %s and made again", path, error, aside.name)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                path.replace(aside)
            return None

    def put(self, key: str, result: Features | SenseAbsent, *, about: About) -> None:
        """Writes a result; a reader sees the whole of it or nothing."""
        write_whole(self._object(key), [encode(key, result, about)])

    def source_digest(self, path: str | Path, *, check: Check | None = None) -> str:
        """sha256 of a file's content, or of a folder's file names and contents.

        Computed once for each size and modification time; before that, ``check(file, bytes)`` may
        refuse a file. Raises MediaError for what is missing, unreadable or neither a file nor a
        folder.
        """
        return source_digest(self.root / "sources", path, check)

    def _object(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / f"{key}.safetensors"

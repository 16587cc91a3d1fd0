"""The feature store: what frozen encoders said of each source, kept by content, never twice.

Layout under the root::

    objects/ab/<key>.safetensors   one result: features, or the reason why the sense is absent
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
import os
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from open_crema.errors import CremaError, MediaError, SenseAbsent
from open_crema.features import Features

Check = Callable[[Path, int], None]

_log = logging.getLogger(__name__)

# A file changed again within its clock tick keeps its time; one this young is not trusted yet.
_SETTLED_NS = 2_000_000_000


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
        self, key: str, make: Callable[[], Features | SenseAbsent]
    ) -> Features | SenseAbsent:
        """The result under the key; where there is none, or a damaged one, made and written.

        Features come back as :func:`as_stored` gives them, freshly made or not.
        """
        found = self.get(key)
        if found is None:
            found = make()
            if isinstance(found, Features):
                found = as_stored(found)
            self.put(key, found)
        return found

    def get(self, key: str) -> Features | SenseAbsent | None:
        """The result under the key, or None. A damaged object is set aside with a warning."""
        path = self._object(key)
        try:
            return _decode(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CremaError(
                f"{path}: cannot be read from the feature store ({error}); repair it or choose "
                "another folder as data.store"
            ) from None
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            aside = path.with_suffix(".damaged")
            _log.warning("%s: damaged (%s); moved to %s and made again", path, error, aside.name)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                path.replace(aside)
            return None

    def put(self, key: str, result: Features | SenseAbsent) -> None:
        """Writes a result; a reader sees the whole of it or nothing."""
        _write(self._object(key), _encode(result, key))

    def source_digest(self, path: str | Path, *, check: Check | None = None) -> str:
        """sha256 of a file's content, or of a folder's file names and contents.

        Computed once for each size and modification time; before that, ``check(file, bytes)`` may
        refuse a file. Raises MediaError for what is missing, unreadable or neither a file nor a
        folder.
        """
        source = Path(path).absolute()
        record_path = self.root / "sources" / f"{_sha256(os.fsencode(source))}.json"
        stamp = _stamp(source)
        record = _read_record(record_path)
        if record is not None and record["stamp"] == stamp:
            return str(record["sha256"])
        digest = _content_digest(source, check)
        if _stamp(source) != stamp:
            raise MediaError(f"{path}: changed while it was read; wait until it is written")
        if time.time_ns() - max(entry[2] for entry in stamp) > _SETTLED_NS:
            record = {"path": str(source), "stamp": stamp, "sha256": digest}
            _write(record_path, json.dumps(record).encode())
        return digest

    def _object(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / f"{key}.safetensors"


def _encode(result: Features | SenseAbsent, key: str) -> bytes:
    if isinstance(result, SenseAbsent):
        tensors: dict[str, Tensor] = {}
        about = {"sense": result.sense, "absent": result.reason}
    else:
        tensors = {"tokens": result.tokens, "mask": result.mask, "times": result.times}
        about = {}
    checksum = _checksum(key, about, tensors)
    data: bytes = save_tensors(tensors, {**about, "checksum": checksum})
    return data


def _decode(data: bytes, key: str) -> Features | SenseAbsent:
    tensors = load_tensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = dict(header["__metadata__"])
    if about.pop("checksum") != _checksum(key, about, tensors):
        raise ValueError("its checksum does not match its content")
    if "absent" in about:
        return SenseAbsent(about["sense"], about["absent"])
    return Features(tensors["tokens"], tensors["mask"], tensors["times"])


def _checksum(key: str, about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([key, sorted(about.items())]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Writes beside the target, then renames over it: atomic, also for concurrent writers."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CremaError(
            f"{path}: the feature store cannot be written ({error}); free some space or "
            "choose another folder as data.store"
        ) from None


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
        return record if {"stamp", "sha256"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def _files(source: Path) -> list[Path]:
    """The files behind a source. Raises MediaError for what is neither a file nor a folder."""
    try:
        mode = source.stat().st_mode
        if stat.S_ISREG(mode):
            return [source]
        if stat.S_ISDIR(mode):
            return sorted(f for f in source.iterdir() if f.is_file() and f.name[0] != ".")
    except FileNotFoundError:
        raise MediaError(f"{source}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{source}: cannot be read ({error})") from None
    raise MediaError(f"{source}: neither a file nor a folder")


def _stamp(source: Path) -> list[list[Any]]:
    """Name, size and modification time of each file; what a recorded digest is valid for."""
    stamp = []
    for file in _files(source):
        try:
            about = file.stat()
        except OSError as error:
            raise MediaError(f"{file}: cannot be read ({error})") from None
        stamp.append([file.name, about.st_size, about.st_mtime_ns])
    if not stamp:
        raise MediaError(f"{source}: an empty folder")
    return stamp


def _content_digest(source: Path, check: Check | None) -> str:
    digest = hashlib.sha256()
    folder = source.is_dir()
    for file in _files(source):
        try:
            if check is not None:
                check(file, file.stat().st_size)
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise MediaError(f"{file}: cannot be read ({error})") from None
        if not folder:
            return content
        digest.update(f"{content} {file.name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

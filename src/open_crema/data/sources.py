"""What a file or folder of media contains, as a digest that is computed once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from open_crema.data.entry import write_whole
from open_crema.errors import MediaError

Check = Callable[[Path, int], None]

# A file changed again within its clock tick keeps its time; one this young is not trusted yet.
_SETTLED_NS = 2_000_000_000


def source_digest(records: Path, path: str | Path, check: Check | None) -> str:
    """See :meth:`open_crema.data.store.FeatureStore.source_digest`. records: their folder."""
    source = Path(path).absolute()
    record_path = records / f"{hashlib.sha256(os.fsencode(source)).hexdigest()}.json"
    stamp = _stamp(source)
    record = _read_record(record_path)
    if record is not None and record["stamp"] == stamp:
        return str(record["sha256"])
    digest = content_digest(source, check)
    if _stamp(source) != stamp:
        raise MediaError(f"{path}: changed while it was read; wait until it is written")
    if time.time_ns() - max(entry[2] for entry in stamp) > _SETTLED_NS:
        record = {"path": str(source), "stamp": stamp, "sha256": digest}
        write_whole(record_path, [json.dumps(record).encode()])
    return digest


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


def content_digest(source: Path, check: Check | None) -> str:
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

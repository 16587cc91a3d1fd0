"""What a file or folder of media contains, as a digest that is computed once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from open_crema.data.entry import write_whole
from open_crema.errors import MediaError

Check = Callable[[Path, int], None]

# A file changed again within its clock tick keeps its time: the record of one this young only says
# that it is there, not what is in it.
_SETTLED_NS = 2_000_000_000


def source_digest(records: Path, path: str | Path, check: Check | None) -> str:
    """See :meth:`open_crema.data.store.FeatureStore.source_digest`. records: their folder."""
    source = Path(path).absolute()
    record_path = records / f"{hashlib.sha256(os.fsencode(source)).hexdigest()}.json"
    stamp = _stamp(source)
    record = _read_record(record_path)
    if record is not None and record["stamp"] == stamp and record.get("settled", True):
        return str(record["sha256"])
    digest = content_digest(source, check)
    if _stamp(source) != stamp:
        raise MediaError(f"{path}: changed while it was read; wait until it is written")
    settled = time.time_ns() - max(entry[2] for entry in stamp) > _SETTLED_NS
    found = {"path": str(source), "stamp": stamp, "sha256": digest, "settled": settled}
    if found != record:
        write_whole(record_path, [json.dumps(found).encode()])
    return digest


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
        return record if {"stamp", "sha256"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def _files(source: Path) -> list[Path]:
    """The files behind a source, those of a folder's own folders with it: RGB-D comes so.

    Raises MediaError for what is neither a file nor a folder.
    """
    try:
        mode = source.stat().st_mode
        if stat.S_ISREG(mode):
            return [source]
        if stat.S_ISDIR(mode):
            inside = [path for path in source.iterdir() if path.name[0] != "."]
            for folder in [path for path in inside if path.is_dir()]:
                inside += [path for path in folder.iterdir() if path.name[0] != "."]
            return sorted(path for path in inside if path.is_file())
    except FileNotFoundError:
        raise MediaError(f"{source}: no such file or folder: check the path") from None
    except (OSError, ValueError) as error:
        raise MediaError(
            f"{source}: cannot be read ({error}); check the path and its permissions"
        ) from None
    raise MediaError(f"{source}: neither a file nor a folder: give one")


def _stamp(source: Path) -> list[list[Any]]:
    """Name, size and modification time of each file; what a recorded digest is valid for."""
    stamp = []
    for file in _files(source):
        try:
            about = file.stat()
        except OSError as error:
            raise MediaError(f"{file}: cannot be read ({error})") from None
        stamp.append([_name(file, source), about.st_size, about.st_mtime_ns])
    if not stamp:
        raise MediaError(f"{source}: an empty folder: fill it, or leave it out")
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
        digest.update(f"{content} {_name(file, source)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _name(file: Path, source: Path) -> str:
    return file.name if file == source else file.relative_to(source).as_posix()


State = Literal["there", "gone", "away"]


class KnownSources:
    """Which contents can still be reached, by the records and by the files themselves."""

    def __init__(self, records: Path) -> None:
        self.records = records
        self._contents: dict[str, str | None] = {}  # by path; None where it is not to be had
        self.stale: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Reads the records again. ``stale``: those of sources that are gone or have changed."""
        self._digests = set()
        self.stale = []
        for path in self.records.glob("*.json"):
            record = _read_record(path)
            if record is None or "path" not in record:
                self.stale.append(path)
                continue
            source = Path(record["path"])
            try:
                fresh = _stamp(source) == record["stamp"]
            except MediaError:
                if _is_away(source):
                    continue
                fresh = False
            if fresh:
                self._digests.add(record["sha256"])
            else:
                self.stale.append(path)

    def state(self, path: str, digest: str) -> State:
        """there: some recorded, unchanged source has that content, or the path itself has it now.
        away: that cannot be told, because the folder of the path is missing or empty (a disk that
        is not mounted?) or the path cannot be read. gone: neither."""
        if digest in self._digests:
            return "there"
        if path not in self._contents:
            try:
                _stamp(Path(path))  # an empty folder is no source
                self._contents[path] = content_digest(Path(path), None)
            except MediaError:
                self._contents[path] = None
        content = self._contents[path]
        if content is None:
            return "away" if _is_away(Path(path)) else "gone"
        return "there" if content == digest else "gone"


def _is_away(source: Path) -> bool:
    """Whether a source that gives no content may still be somewhere."""
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError):
        try:
            return next(source.parent.iterdir(), None) is None
        except OSError:
            return True
    except (OSError, ValueError):
        pass
    return True

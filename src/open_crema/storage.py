"""Durable files: JSON, tensors and whole folders, complete or not there at all.

A folder is written beside its place and renamed into it. Whenever its writer is killed, or the
machine loses power, the place holds the old content or the new one, whole. Only between the two
renames that swap an old folder for a new one it holds neither; :func:`recover`, which every
writer calls first, then puts the old one back, and sweeps what killed writers have left::

    .NAME.lock-ID  locked as long as the writer lives: the kernel drops the lock with the process
    .NAME.new-ID   being written
    .NAME.old-ID   what was in the place before, until the new one is there
    .NAME.gone-ID  being removed
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from open_crema.errors import WeightsError

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(lock|new|old|gone)-(?P<token>[0-9a-f]{12})")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON object. Raises WeightsError, with the hint where there is no such file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file ({hint})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: expected a JSON object")
    return data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises WeightsError where it has none."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; the model folder is incomplete") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: damaged or not safetensors ({error}); copy it again") from None
    return tensors


def write_json(path: Path, data: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes an object or a list and waits until it is on the disk. Raises OSError."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors and waits until they are on the disk. Raises WeightsError or OSError."""
    try:
        save_file(
            {n: t.detach().cpu().contiguous() for n, t in tensors.items()},
            path,
            metadata=metadata,
        )
    except SafetensorError as error:
        raise unwritable(path, error) from None
    flush(path)


def flush(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError | SafetensorError) -> WeightsError:
    """The error that says why a place cannot be written, and what to do."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or any(f"(os error {full})" in reason for full in _FULL):
        return WeightsError(
            f"{path}: cannot be written, the disk is full ({reason}); free some space and run the "
            "same command again"
        )
    return WeightsError(f"{path}: cannot be written ({reason})")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of ``folder`` once it is complete and on the disk.

    Raises WeightsError where it cannot be written; what was there before is then still there.
    """
    token = secrets.token_hex(6)
    new, old, alive = (_beside(folder, kind, token) for kind in ("new", "old", "lock"))
    lock = FileLock(alive)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        lock.acquire()
        new.mkdir()
        yield new
        for place, _, names in os.walk(new, topdown=False):
            for name in names:  # also those that were not written by the functions above
                flush(Path(place, name))
            flush(Path(place))
        flush(folder.parent)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
        flush(folder.parent)
        _remove(old, folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)  # a full disk may not even let it be renamed
        with suppress(OSError):
            alive.unlink()  # while it is held: nobody else is to hold a name that goes
        lock.release()


def recover(folder: Path) -> None:
    """Puts back what a killed writer of this folder had moved away, and sweeps what it left. What
    belongs to a live writer stays. Raises OSError where the folder cannot be put back."""
    sweep(folder.parent, folder.name)


def sweep(parent: Path, name: str | None = None) -> None:
    """:func:`recover` for one name in a folder, or for all of them."""
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    found = [match for match in map(_LEFTOVER.fullmatch, names) if match]
    for whose, token in sorted({(match["name"], match["token"]) for match in found}):
        if name in (None, whose):
            with _of_the_dead(_beside(parent / whose, "lock", token)) as dead:
                if dead:
                    _settle(parent / whose, token)


def _settle(place: Path, token: str) -> None:
    """Ends what a dead writer was about."""
    old = _beside(place, "old", token)
    if old.exists() and not place.exists():
        old.rename(place)
        flush(place.parent)
    for kind in ("old", "new", "gone"):
        _remove(_beside(place, kind, token), place)


def remove(folder: Path) -> None:
    """Removes a folder at once: its place never holds a part of it. Raises OSError where it stays;
    a folder that is not there is no error."""
    gone = _beside(folder, "gone", secrets.token_hex(6))
    with suppress(FileNotFoundError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _remove(left: Path, place: Path) -> None:
    """Removes a leftover of a place. First its name goes, so that a removal that is cut short never
    looks like something to put back. What cannot be removed harms nobody."""
    gone = _beside(place, "gone", secrets.token_hex(6))
    with suppress(OSError):
        left.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _beside(place: Path, kind: str, token: str) -> Path:
    return place.with_name(f".{place.name}.{kind}-{token}")


@contextmanager
def _of_the_dead(alive: Path) -> Iterator[bool]:
    """Whether the writer with this lock is gone; if so the lock goes too, when the block ends."""
    if not alive.exists():  # it is made first and removed last
        yield True
        return
    lock = FileLock(alive, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):  # where nobody can tell, it is taken as alive
        yield False
        return
    try:
        yield True
        alive.unlink(missing_ok=True)
    finally:
        lock.release()

"""Deaths and full disks on demand: what the tests of durable writing share.

A point is one thing that a process does to files: open one, make, rename or remove one, wait for
one to be on the disk, write the half and the whole of a file of tensors. Points are found while
the work runs, so whatever the work will once do to files is a point as well.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_crema import storage
from open_crema.errors import CremaError

_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written outlives its process, if not the machine."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def killed(work: Callable[[], object], *, at: int) -> bool:
    """Does the work in a process of its own that kills itself (SIGKILL) right before the given
    point, from 1. Returns whether it came that far; if not, the work is done."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    status = _in_child(work, at, die)
    assert status in (0, -signal.SIGKILL), f"the work itself failed: {status}"
    return status != 0


def full_disk(work: Callable[[], object], *, at: int) -> int:
    """Does the work in a process of its own in which from the given point on nothing can be
    written any more. Returns its exit code: 0, or 2 if it raised a CremaError of one line that
    speaks of space, 3 for anything else."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return _in_child(work, at, fail, forever=True)


def _in_child(
    work: Callable[[], object], at: int, fault: Callable[[], None], *, forever: bool = False
) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 3
    try:
        _inject(at, fault, forever)
        work()
        code = 0
    except BaseException as error:
        known = isinstance(error, CremaError) and "\n" not in str(error)
        code = 2 if known and "free some space" in str(error) else 3
        if code == 3:
            traceback.print_exc()
    finally:
        os._exit(code)


def _inject(at: int, fault: Callable[[], None], forever: bool) -> None:
    seen = 0

    def point() -> None:
        nonlocal seen
        seen += 1
        if seen == at or (forever and seen > at):
            fault()

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            takes = event in ("os.remove", "os.rmdir")  # a full disk lets things go
            if not (forever and takes):
                point()
        elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
            point()

    save = storage.save_file

    def save_file(tensors: Any, path: Path, **options: Any) -> None:
        point()
        save(tensors, path, **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        point()
        path.write_bytes(whole)

    storage.save_file = save_file  # type: ignore[assignment]
    os.fsync = lambda handle: point()
    sys.addaudithook(audit)

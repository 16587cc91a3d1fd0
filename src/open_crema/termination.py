"""SIGTERM, the polite request to end: an exception where it may come at any time, else a question.

Schedulers and container systems send it some seconds before they kill. Nothing is handled outside
these blocks, in threads other than the main one, in child processes, or where the program ignores
the signal; afterwards it is handled as before.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """SIGTERM has come, and all that was to be kept is on the disk. The command line says so and
    exits with code 0."""

    def __init__(self, said: str = "stopped by SIGTERM; run the same command again to continue"):
        super().__init__(said)


@contextmanager
def at_once() -> Iterator[None]:
    """In this block SIGTERM raises Stopped, wherever the program is."""

    def stop() -> None:
        raise Stopped

    with _handled(stop):
        yield


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """In this block SIGTERM only makes the given function true. If the block then ends by itself,
    Stopped is raised after it, so that a request is never lost."""
    asked = threading.Event()
    with _handled(asked.set):
        yield asked.is_set
    if asked.is_set():
        raise Stopped


@contextmanager
def _handled(handle: Callable[[], None]) -> Iterator[None]:
    before, owner = signal.getsignal(signal.SIGTERM), os.getpid()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or before in (None, signal.SIG_IGN):  # None: a handler that is not Python's
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handle()
        else:  # a child process has inherited this handler; it ends as it would without
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Groups written by several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from open_crema.errors import CremaError
from open_crema.senseqa import group_files
from open_crema.senseqa.sets import Group

_WAITING = 2  # groups handed over beyond one a worker; a stop has to wait for them as well


def write_all(groups: Iterable[Group], clips: Path, workers: int) -> Generator[tuple[Group, int]]:
    """Writes each group into its folder in ``clips``; yields it with its bytes, in any order.

    workers: processes beside this one; 0: one for each core that this process may use; 1: none, it
    writes them itself. Raises what `group_files.write` raises; CremaError where a process is gone.
    """
    workers = workers or _cores()
    if workers == 1:
        for group in groups:
            yield group, group_files.write(group, clips / group.name)
        return
    with _executor(workers) as executor:
        running: dict[Future[int], Group] = {}
        try:
            for group in groups:
                running[executor.submit(group_files.write, group, clips / group.name)] = group
                if len(running) >= workers + _WAITING:
                    yield from _ended(running)
            while running:
                yield from _ended(running)
        except BrokenProcessPool:
            raise CremaError(
                f"{clips.parent}: a process that was writing clips has been killed, perhaps for "
                f"want of memory; run the same command again, with fewer workers than {workers}"
            ) from None


def _ended(running: dict[Future[int], Group]) -> Iterator[tuple[Group, int]]:
    """Waits for at least one of them."""
    for done in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(done), done.result()


@contextmanager
def _executor(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes, forked from one that has imported all there is to import: that takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([group_files.__name__])
    resource_tracker.ensure_running()  # on its own, since it lets signals through when it ends
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()  # what it imports is not to be interrupted: it would say so
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    first = context.Process()  # it does nothing; once it is there, workers start in no time
    first.start()
    first.join()
    executor = ProcessPoolExecutor(workers, context, _begin)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)  # groups in hand are finished: that is no second


def _begin() -> None:
    """In each worker. Ctrl-C comes to all processes: it is the first one's to end the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this a worker waits for work for ever once the first process has been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

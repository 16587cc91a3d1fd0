"""The features of many samples at once: in parallel, beside other processes, with a policy for
files that cannot be used and a report of what there is."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

import torch
from filelock import FileLock, Timeout

from open_crema import progress
from open_crema.data.extract import Extractor, Source
from open_crema.data.report import Failure, Policy, Report, Tally
from open_crema.data.sample import Sample
from open_crema.errors import MediaError, SenseAbsent

_PACK_EVERY = 1000  # results; of 8 frames each, some 400 MB
_PATIENCE = 0.2  # seconds between two looks at a file that another process has in hand


def extract_all(
    extractor: Extractor,
    samples: Sequence[Sample],
    *,
    on_error: Policy = "error",
    workers: int = 0,
    refused: Mapping[str, str] | None = None,
) -> Report:
    """Fills the store, each distinct file and sense once, with progress on stderr.

    on_error: "error" stops at the first file that cannot be used and raises its MediaError, which
        names the sample; "skip" and "mask" go on and leave it to the report.
    workers: threads, each with a file at a time; 0: as many as there are cores. What is made does
        not depend on their number. Other processes may fill the same store: each takes the files
        that no other has in hand.
    refused: path -> why it may not be used, for what was found out before.

    The store is packed now and then. An interruption (or any other error) ends the work once each
    worker has finished the sense in hand; what was made is in the store.
    """
    refused = dict(refused or {})
    given = {path for sample in samples for path in sample.media.values()}
    alone = [Failure(path, why) for path, why in refused.items() if path not in given]
    if alone and on_error == "error":
        raise MediaError(str(alone[0]))
    work = _Work.of(extractor, samples, refused, stop_at_error=on_error == "error")
    made, total = 0, sum(len(task.senses) for task in work.ahead)
    count = max(1, min(workers or _cores(), len(work.ahead)))
    with (
        _one_torch_thread(),
        progress.bar() as bar,
        ThreadPoolExecutor(count, thread_name_prefix="extract") as pool,
    ):
        shown = bar.add_task("features", total=total, note="")
        try:
            for _ in range(count):
                pool.submit(work.run)
            for done in work.results(count):
                bar.advance(shown)
                if done.error is not None and not isinstance(done.error, MediaError):
                    raise done.error
                made += done.made
                if done.made and made % _PACK_EVERY == 0 and extractor.store is not None:
                    extractor.store.pack()
        finally:
            work.stop.set()
    if made and extractor.store is not None:
        extractor.store.pack()
    return work.report(samples, on_error, alone)


@dataclass(frozen=True)
class _Task:
    """A file, and what is to be made of it. One task, so that the file is hashed once."""

    path: str
    senses: tuple[tuple[Source, str], ...]


@dataclass(frozen=True)
class _Done:
    """What became of a source and a sense: made now or found, absent for a reason, or an error."""

    source: Source
    sense: str
    made: bool = False
    absent: str | None = None
    error: BaseException | None = None


@dataclass
class _Work:
    """The files ahead, and what the workers said of those behind."""

    extractor: Extractor
    stop_at_error: bool
    ahead: deque[_Task]
    claimed: deque[_Task] = field(default_factory=deque)  # by other processes, when last asked
    said: SimpleQueue[_Done | None] = field(default_factory=SimpleQueue)  # None: a worker ended
    found: dict[tuple[Source, str], _Done] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(
        cls,
        extractor: Extractor,
        samples: Sequence[Sample],
        refused: Mapping[str, str],
        *,
        stop_at_error: bool,
    ) -> _Work:
        files: dict[str, dict[tuple[Source, str], None]] = {}
        for sample in samples:
            for sense in extractor.senses:
                source = extractor.source(sample, sense)
                if isinstance(source, Source):
                    files.setdefault(source.path, {})[source, sense] = None
        ahead = deque(_Task(path, tuple(own)) for path, own in files.items() if path not in refused)
        found = {
            (source, sense): _Done(source, sense, error=MediaError(refused[path]))
            for path, own in files.items()
            if path in refused
            for source, sense in own
        }
        if found and stop_at_error:
            ahead.clear()
        return cls(extractor, stop_at_error, ahead, found=found)

    def run(self) -> None:
        """One worker, until nothing is ahead."""
        try:
            while not self.stop.is_set():
                try:
                    task, patient = self.ahead.popleft(), False
                except IndexError:
                    task, patient = self.claimed.popleft(), True
                with self._claim(task.path, patient) as ours:
                    if ours:
                        self._do(task)
                    elif not self.stop.is_set():
                        self.claimed.append(task)
        except IndexError:
            pass
        finally:
            self.said.put(None)

    def _do(self, task: _Task) -> None:
        for source, sense in task.senses:
            if self.stop.is_set():
                return
            making: list[bool] = []
            try:
                result = self.extractor.obtain(source, sense, making=partial(making.append, True))
                absent = result.reason if isinstance(result, SenseAbsent) else None
                self.said.put(_Done(source, sense, bool(making), absent))
            except BaseException as error:  # for the thread that waits, whatever it is
                if self.stop_at_error:
                    self.stop.set()
                self.said.put(_Done(source, sense, error=error))

    @contextmanager
    def _claim(self, path: str, patient: bool) -> Iterator[bool]:
        """Whether the file is this worker's. A claim ends with its process, however that ends."""
        store = self.extractor.store
        if store is None:
            yield True
            return
        claims = store.root / "claims"
        lock = FileLock(claims / claim_of(path), timeout=0)
        ours = False
        while not ours and not self.stop.is_set():
            try:
                claims.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                ours = True
            except Timeout:
                if not patient:
                    break
                time.sleep(_PATIENCE)
            except OSError:  # a store that can only be read may have all that is needed
                ours = True
        try:
            yield ours
        finally:
            lock.release()

    def results(self, workers: int) -> Iterator[_Done]:
        """What the workers say, until all have ended."""
        while workers:
            done = self.said.get()
            if done is None:
                workers -= 1
            else:
                self.found[done.source, done.sense] = done
                yield done

    def report(
        self, samples: Sequence[Sample], policy: Policy, failures: Sequence[Failure]
    ) -> Report:
        """failures: those of no sample. Raises the first MediaError, naming the sample, where the
        policy is "error"."""
        tallies = {sense: Tally(len(samples)) for sense in self.extractor.senses}
        faults: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
        usable, skipped = 0, []
        for sample in samples:
            has, failed = False, False
            for sense, tally in tallies.items():
                source = self.extractor.source(sample, sense)
                if isinstance(source, SenseAbsent):
                    tally.absent.setdefault(source.reason, []).append(sample.id)
                    continue
                done = self.found.get((source, sense))
                if done is None:  # stopped before it, by an error that comes yet
                    continue
                if done.error is not None:
                    if policy == "error":
                        raise MediaError(
                            f"sample {sample.id!r}, {sense}: {done.error}"
                        ) from done.error
                    senses, ids = faults.setdefault((source.path, str(done.error)), ({}, {}))
                    senses[sense] = ids[sample.id] = None
                    tally.failed[sample.id] = str(done.error)
                    failed = True
                elif done.absent is not None:
                    tally.absent.setdefault(done.absent, []).append(sample.id)
                else:
                    tally.present += 1
                    has = True
            if failed and policy == "skip":
                skipped.append(sample.id)
            else:
                usable += has
        for (_, sense), done in self.found.items():
            if done.error is None:
                tallies[sense].made += done.made
                tallies[sense].found += not done.made
        named = [
            Failure(path, error, tuple(senses), tuple(ids))
            for (path, error), (senses, ids) in faults.items()
        ]
        return Report(policy, len(samples), usable, tuple(skipped), tallies, (*named, *failures))


def claim_of(path: str) -> str:
    """The name of the lock that a file is claimed by, in the folder ``claims`` of the store.

    A few locks for all files: they stay, and two files of one lock only wait for each other.
    """
    return hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:2] + ".lock"


def _cores() -> int:
    """Those that this process may use, beside the others that torchrun started on this machine."""
    affinity = hasattr(os, "sched_getaffinity")
    there = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    return max(1, there // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """In each worker, so that they do not get in each other's way, and a result does not depend on
    their number; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

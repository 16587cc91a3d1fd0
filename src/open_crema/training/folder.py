"""The folder of a run: who may write there, its log, and how it is begun anew."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from open_crema import processes
from open_crema.errors import ConfigError
from open_crema.model.files import check_replaceable
from open_crema.storage import flush, remove, sweep, unwritable
from open_crema.training import checkpoint

logger = logging.getLogger(__name__)


class RunFolder:
    """Where the files of a run are.

    log.jsonl      one line a sub-step and an epoch; the same for a run that was cut off
    timing.jsonl   the seconds of each step as it was run, also of those that were run again
    checkpoints/   see :mod:`~open_crema.training.checkpoint`
    model/         the result

    Of several processes only the first writes; in the others nothing here does anything.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self.writes = processes.rank() == 0
        self.log_file, self.timing_file = self.out / "log.jsonl", self.out / "timing.jsonl"
        self.checkpoints, self.model = self.out / "checkpoints", self.out / "model"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder, and puts in order what a killed process has left in it.

        Raises ConfigError where it cannot be written or another process is training into it; the
        lock of a process that has died does not count.
        """
        if not self.writes:
            yield
            return
        check_out(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(
                f"{self.out}: another process is training into it; wait for it or choose another "
                "`out`"
            ) from None
        except OSError as error:
            raise unwritable(self.out, error) from None
        try:
            sweep(self.out)
            sweep(self.checkpoints)
            yield
        finally:
            lock.release()

    def discard(self) -> None:
        """Removes the run that is there: first what it would be continued from."""
        if not self.writes:
            return
        checkpoint.discard(self.checkpoints)
        remove(self.model)

    def begin(self) -> None:
        """Empty logs."""
        if not self.writes:
            return
        for file in (self.log_file, self.timing_file):
            file.unlink(missing_ok=True)

    def log(self, **line: Any) -> None:
        """Appends a line to the log. Raises WeightsError where the disk is full."""
        if self.writes:
            _append(self.log_file, line)

    def time(self, **line: Any) -> None:
        """Appends a line to the timings. Raises WeightsError where the disk is full."""
        if self.writes:
            _append(self.timing_file, line)

    def log_bytes(self) -> int:
        """The size of the log, all of which is on the disk by then."""
        if not self.log_file.exists():
            return 0
        try:
            flush(self.log_file)
            flush(self.out)
        except OSError as error:
            raise unwritable(self.log_file, error) from None
        return self.log_file.stat().st_size

    def rewind(self, size: int) -> None:
        """Drops what was logged by steps that are run again."""
        if not self.writes:
            return
        there = self.log_file.stat().st_size if self.log_file.exists() else 0
        if there < size:
            logger.warning("%s: the first %d bytes of it are gone", self.log_file, size - there)
        elif there > size:
            os.truncate(self.log_file, size)


def check_out(out: str | Path) -> None:
    """Raises ConfigError where the folder of a run cannot be written, WeightsError where other
    things than a model are in the place of its model. Writes nothing."""
    out = Path(out).absolute()
    there = next(place for place in (out, *out.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ConfigError(f"{out}: cannot be written, {there} is no folder; choose another `out`")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{out}: cannot be written, {there} is closed; choose another `out`")
    check_replaceable(out / "model")


def _append(file: Path, line: dict[str, Any]) -> None:
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")
    except OSError as error:
        raise unwritable(file, error) from None

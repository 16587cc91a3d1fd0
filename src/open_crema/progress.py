"""The one progress bar: what is done, how fast, how long still, on stderr."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from open_crema import processes

EVERY = 30.0  # seconds between two lines where there is no terminal


class _Rate(ProgressColumn):
    """Steps a second, or seconds a step where that is the larger number."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("-/s")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class _Said(Progress):
    """A bar; where nobody watches a terminal, a line every so often instead."""

    _last = 0.0

    def start(self) -> None:
        super().start()
        self._last = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - self._last < EVERY:
            return
        self._last = now
        task = next(task for task in self.tasks if task.id == task_id)
        total = "" if task.total is None else f"/{task.total:.0f}"
        said = [f"{task.description} {task.completed:.0f}{total}", str(_Rate().render(task))]
        if task.time_remaining is not None:
            said.append(f"{timedelta(seconds=task.time_remaining)} left")
        if task.fields.get("note"):
            said.append(task.fields["note"])
        self.console.print(", ".join(said), highlight=False, markup=False, soft_wrap=True)


def bar() -> Progress:
    """A bar whose tasks may carry a ``note`` field, shown at its end.

    Without a terminal (a log file, a cluster) it prints a line every ``EVERY`` seconds. Of several
    processes only the first says anything.
    """
    return _Said(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True, quiet=processes.rank() > 0),
    )

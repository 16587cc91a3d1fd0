"""Tasks: what a data file says, and how its questions are put to the LLM."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from open_crema.data.sample import Sample
from open_crema.errors import ConfigError
from open_crema.tasks import jsonl

TASKS: dict[str, Callable[..., list[Sample]]] = {"jsonl": jsonl.load}


def load(
    task: str,
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    answers_required: bool = True,
) -> list[Sample]:
    """The samples of a data file, read as that task reads it.

    Raises ConfigError for an unknown task and DataError for a broken file.
    """
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown task {task!r}: {hint}known: {', '.join(TASKS)}")
    return TASKS[task](path, media_root=media_root, answers_required=answers_required)

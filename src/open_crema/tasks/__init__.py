"""Tasks: what a data file says, and how its questions are put to the LLM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from open_crema.data.sample import Sample
from open_crema.errors import ConfigError, did_you_mean
from open_crema.tasks import jsonl

TASKS: dict[str, Callable[..., list[Sample]]] = {"jsonl": jsonl.load}


def load(
    task: str,
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    answers_required: bool = True,
    questions_required: bool = True,
) -> list[Sample]:
    """The samples of a data file, read as that task reads it.

    answers_required, questions_required: whether a line may do without.

    Raises ConfigError for an unknown task and DataError for a broken file.
    """
    if task not in TASKS:
        hint = did_you_mean(task, TASKS)
        raise ConfigError(f"unknown task {task!r}: {hint}known: {', '.join(TASKS)}")
    return TASKS[task](
        path,
        media_root=media_root,
        answers_required=answers_required,
        questions_required=questions_required,
    )

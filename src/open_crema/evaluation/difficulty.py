"""Easy and hard questions (paper, Table 8): those that a zero-shot model of video alone has right,
and the others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from open_crema.errors import CremaError
from open_crema.evaluation.compare import read_predictions
from open_crema.evaluation.result import Evaluation, row_of


def split(found: Evaluation, by: str | Path) -> dict[str, Any]:
    """For results.json: a row each for ``easy`` and ``hard`` (None where there is no question), and
    ``unknown``, how many questions the other model has not answered.

    by: the results folder of that model, or its predictions. Raises CremaError where it holds none,
    or none of these questions.
    """
    right = {name: bool(said["correct"]) for name, said in read_predictions(Path(by)).items()}
    known = [p for p in found.predictions if p.id in right]
    if not known:
        raise CremaError(f"{by}: answers none of these questions; give results on the same data")
    rows: dict[str, Any] = {"by": str(by), "unknown": len(found.predictions) - len(known)}
    for name, wanted in (("easy", True), ("hard", False)):
        kept = [p for p in known if right[p.id] is wanted]
        rows[name] = asdict(row_of(kept, ())) if kept else None
    return rows

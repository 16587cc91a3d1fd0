"""What a folder holds that a page can be made of: results of evaluations, and logs of training.

Results may come from other versions and logs from runs that were killed, so each file is taken as
far as it goes, and what cannot be used is named on the page.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from open_crema.errors import CremaError
from open_crema.modality import canonical

# Folders of a run that hold neither, and may hold many files.
_PASSED_OVER = {"checkpoints", "model"}
_OTHERS = {"dropout.json", "compare.json"}
# What a line of a log must hold as numbers, by its kind; other kinds are of no interest here.
_FIGURES = {"step": ("step", "epoch", "loss"), "align": ("step", "loss"), "epoch": ("epoch",)}


@dataclass(frozen=True)
class Said:
    """A line of predictions.jsonl with a score; probability: of the option that was chosen."""

    id: str
    type: str
    question: str
    answers: tuple[str, ...]
    options: tuple[str, ...]
    prediction: str
    correct: bool
    probability: float | None
    absent: Mapping[str, str]
    blind: str | None
    blind_correct: bool | None
    gates: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Result:
    """One evaluation. name: its folder, relative to where was searched. summary: results.json."""

    name: str
    folder: Path
    summary: Mapping[str, Any]
    senses: tuple[str, ...]
    predictions: Mapping[str, Said]

    @property
    def config(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.summary.get("config") or {}
        return found

    @property
    def data(self) -> tuple[str, str]:
        """Path and sha256 of the data file: the same id in another file is another sample."""
        about = self.summary.get("data") or {}
        return str(about.get("path", "")), str(about.get("sha256", ""))


@dataclass(frozen=True)
class Log:
    """A training log. name: as of :class:`Result`; lines: its whole lines in order; config: of the
    run, empty where its model is not there."""

    name: str
    folder: Path
    lines: tuple[Mapping[str, Any], ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line.get("kind") == kind]


@dataclass(frozen=True)
class Found:
    """others: name of a folder -> dropout.json or compare.json -> its content. problems: one
    sentence for each file, or part of one, that could not be used."""

    results: tuple[Result, ...]
    logs: tuple[Log, ...]
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: tuple[str, ...] = field(default=())


def find(folder: str | Path) -> Found:
    """Every results.json (with its predictions.jsonl), log.jsonl, dropout.json and compare.json in
    the folder and below it, but for checkpoints. Results are in the order of how many senses they
    have.

    Raises CremaError where there is no such folder, or nothing in it to show.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CremaError(f"{folder}: no such folder; give the `out` of a run or a results folder")
    results: list[Result] = []
    logs: list[Log] = []
    problems: list[str] = []
    others: dict[str, dict[str, Any]] = {}
    for place, names in _walk(folder):
        name = place.relative_to(folder).as_posix()
        if "results.json" in names and (result := _result(place, name, problems)):
            results.append(result)
        if "log.jsonl" in names and (log := _log(place, name, problems)):
            logs.append(log)
        for file in sorted(_OTHERS.intersection(names)):
            if (content := _object(place / file, problems)) is not None:
                others.setdefault(name, {})[file] = content
    if not results and not logs and not others:
        why = f" ({'; '.join(problems)})" if problems else ""
        raise CremaError(
            f"{folder}: nothing to show: no results.json, which `crema eval` writes, and no "
            f"log.jsonl with a step, which `crema train` writes, in it or below it{why}"
        )
    order = canonical(sense for result in results for sense in result.senses)
    results.sort(key=lambda r: (len(r.senses), [order.index(s) for s in r.senses], r.name))
    return Found(tuple(results), tuple(logs), others, tuple(problems))


def _object(file: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{file}: cannot be used ({_reason(error)})")
        return None
    return content if isinstance(content, dict) else None


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in _PASSED_OVER and f[0] != ".")
        yield Path(place), names


def _result(folder: Path, name: str, problems: list[str]) -> Result | None:
    file = folder / "results.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        _check(summary)
        senses = tuple(canonical(summary["senses"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problems.append(f"{file}: cannot be used as results ({_reason(error)})")
        return None
    predictions: dict[str, Said] = {}
    for line in _lines(folder / "predictions.jsonl", problems):
        if "reason" in line:  # a sample without a score
            continue
        try:
            said = _said(line)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{folder / 'predictions.jsonl'}: a line is left out ({error!r})")
            continue
        predictions[said.id] = said
    return Result(name, folder, summary, senses, predictions)


def _check(summary: Any) -> None:
    """Raises KeyError, TypeError or ValueError for what has not the shape of results."""
    for row in (summary, *summary["types"].values()):
        low, high = map(float, row["interval"])
        if not 0 <= low <= high <= 1 or int(row["n"]) < 1:
            raise ValueError("a rate that is none")
        float(row["accuracy"]), float(row["chance"])
        for pair in row.get("pairs", {}).values():
            int(pair["n"]), int(pair["correct"])
    sum(map(int, summary["skipped"].values()), int(summary["expected"]) + int(summary["scored"]))
    for reasons in summary["absent"].values():
        dict(reasons)
    for name in ("config", "data"):
        dict(summary.get(name) or {})


def _said(line: Mapping[str, Any]) -> Said:
    offered = {o["option"]: float(o["probability"]) for o in line["options"]}
    gates = line.get("gates") or {}  # results of before there were any have none
    return Said(
        id=str(line["id"]),
        type=str(line["type"]),
        question=str(line["question"]),
        answers=tuple(map(str, line["answers"])),
        options=tuple(map(str, offered)),
        prediction=str(line["prediction"]),
        correct=bool(line["correct"]),
        probability=offered.get(line["prediction"]),
        absent={str(s): str(why) for s, why in line["absent"].items()},
        blind=None if line["blind"] is None else str(line["blind"]),
        blind_correct=line["blind_correct"],
        gates={str(s): tuple(map(float, own)) for s, own in gates.items()},
    )


def _log(folder: Path, name: str, problems: list[str]) -> Log | None:
    """The steps and epochs; None where there is none of them."""
    lines = []
    for line in _lines(folder / "log.jsonl", problems):
        kind = str(line.get("kind"))
        if kind not in _FIGURES:
            continue
        if all(is_number(line.get(figure)) for figure in _FIGURES[kind]):
            lines.append(line)
        else:
            expected = " and ".join(_FIGURES[kind])
            problems.append(
                f"{folder / 'log.jsonl'}: a line ({kind}) is left out, its {expected} "
                "are no numbers"
            )
    return Log(name, folder, tuple(lines), _run_of(folder)) if lines else None


def _run_of(folder: Path) -> Mapping[str, Any]:
    """The configuration that stands beside the trained model, if it does."""
    try:
        run = yaml.safe_load((folder / "model" / "run.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return run if isinstance(run, dict) else {}


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def _lines(file: Path, problems: list[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSONL file. A last line that was cut off by the end of its process is no
    problem."""
    try:
        texts = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file}: cannot be read ({_reason(error)})")
        return
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number < len(texts):
                problems.append(f"{file}, line {number}: left out, it is not JSON ({error})")
            continue
        if isinstance(line, dict):
            yield line
        else:
            problems.append(f"{file}, line {number}: left out, it is not a JSON object")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"

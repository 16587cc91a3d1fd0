"""Checkpoints of a run in progress: whole folders of safetensors and JSON, or nothing.

A checkpoint is written beside its place, flushed to disk and renamed, so a process killed at any
moment leaves the last whole one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from open_crema.errors import WeightsError
from open_crema.model.crema import Crema
from open_crema.storage import read_json, read_tensors, replacing, write_json, write_tensors

PREFIX = "step-"
_DIGITS = "[0-9]" * 8 + "*"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_REMEDY = "start again with --fresh, or choose another `out`"


def save(
    folder: Path, step: int, model: Crema, optimizer: Optimizer, state: Mapping[str, Any]
) -> None:
    """Writes ``folder/step-N`` and, once it is whole, removes older and unfinished ones."""
    names = _names(model, optimizer)
    moments = {
        f"{names[p]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if value is not None
    }
    place = folder / f"{PREFIX}{step:08d}"
    with replacing(place) as new:
        write_tensors(new / MODEL, _own(model))
        write_tensors(new / OPTIMIZER, moments)
        write_json(new / STATE, {"step": step, **state})
    for older in (*_all(folder), *folder.glob(f".{PREFIX}{_DIGITS}")):
        if older != place:
            shutil.rmtree(older, ignore_errors=True)


def discard(folder: Path) -> None:
    """Removes every checkpoint, and nothing else that the folder may hold."""
    for old in _all(folder):
        shutil.rmtree(old)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = _all(folder)
    return found[-1] if found else None


def read_state(place: Path) -> dict[str, Any]:
    """What was saved beside the tensors. Raises WeightsError where it is missing or damaged."""
    with _named():
        return read_json(place / STATE, "the checkpoint is incomplete")


def restore(place: Path, model: Crema, optimizer: Optimizer) -> None:
    """Puts a checkpoint's weights and optimizer moments in place, all or nothing.

    Raises WeightsError, naming the file, where it is damaged or belongs to another model.
    """
    with _named():
        found, kept = read_tensors(place / MODEL), read_tensors(place / OPTIMIZER)
    own = _own(model)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in found.items()}:
        raise WeightsError(f"{place / MODEL}: not of this configuration's model; {_REMEDY}")
    trained = {name: p for p, name in _names(model, optimizer).items()}
    moments: dict[Tensor, dict[str, Tensor]] = {}
    for key, value in kept.items():
        name, _, part = key.partition("|")
        parameter = trained.get(name)
        if parameter is None or value.shape not in (parameter.shape, torch.Size()):
            raise WeightsError(f"{place / OPTIMIZER}: {key} is not of this model; {_REMEDY}")
        # Adam counts its steps on the CPU, wherever the parameter is.
        on = value if part == "step" else value.to(parameter.device)
        moments.setdefault(parameter, {})[part] = on
    model.load_state_dict(found, strict=False)
    optimizer.state.clear()
    optimizer.state.update(moments)


def _own(model: Crema) -> dict[str, Tensor]:
    """Everything but the frozen LLM."""
    return {n: t for n, t in model.state_dict().items() if not n.startswith("backbone.")}


@contextmanager
def _named() -> Iterator[None]:
    """Errors say that the file is part of a checkpoint, and what to do."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{error}; it is part of a checkpoint: {_REMEDY}") from None


def _all(folder: Path) -> list[Path]:
    """Oldest first. Folders of other names are not checkpoints of ours, and are left alone."""
    steps = {p.name.removeprefix(PREFIX): p for p in folder.glob(f"{PREFIX}{_DIGITS}")}
    return [steps[step] for step in sorted((s for s in steps if s.isdigit()), key=int)]


def _names(model: Crema, optimizer: Optimizer) -> dict[Tensor, str]:
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    return {p: n for n, p in model.named_parameters() if p in trained}

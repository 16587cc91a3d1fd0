"""Checkpoints of a run in progress: whole folders of safetensors and JSON, or nothing.

A checkpoint is written beside its place, flushed to disk and renamed, so a process killed at any
moment leaves the last whole one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from open_crema.errors import WeightsError
from open_crema.model.crema import Crema
from open_crema.model.files import read_json, read_tensors, replacing, write_json, write_tensors

PREFIX = "step-"


def save(
    folder: Path, step: int, model: Crema, optimizer: Optimizer, state: Mapping[str, Any]
) -> None:
    """Writes ``folder/step-N`` and then removes older ones."""
    names = _names(model, optimizer)
    moments = {
        f"{names[p]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if value is not None
    }
    place = folder / f"{PREFIX}{step:08d}"
    with replacing(place) as new:
        write_tensors(new / "model.safetensors", _own(model))
        write_tensors(new / "optimizer.safetensors", moments)
        write_json(new / "state.json", {"step": step, **state})
    for older in _all(folder):
        if older != place:
            shutil.rmtree(older, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    found = _all(folder)
    return found[-1] if found else None


def restore(place: Path, model: Crema, optimizer: Optimizer) -> dict[str, Any]:
    """Puts a checkpoint's weights and optimizer moments in place; returns its state.

    Raises WeightsError where it is damaged or belongs to another model.
    """
    state = read_json(place / "state.json", "a checkpoint has one")
    own, found = _own(model), read_tensors(place / "model.safetensors")
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in found.items()}:
        raise WeightsError(
            f"{place}: the checkpoint is of another model than the configuration's; "
            "choose another `out` or start again with --fresh"
        )
    model.load_state_dict(found, strict=False)
    names = {name: p for p, name in _names(model, optimizer).items()}
    optimizer.state.clear()
    for key, value in read_tensors(place / "optimizer.safetensors").items():
        name, _, part = key.partition("|")
        optimizer.state[names[name]][part] = value
    return state


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def _own(model: Crema) -> dict[str, Tensor]:
    """Everything but the frozen LLM."""
    return {n: t for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def _names(model: Crema, optimizer: Optimizer) -> dict[Tensor, str]:
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    return {p: n for n, p in model.named_parameters() if p in trained}

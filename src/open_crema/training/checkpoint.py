"""Checkpoints of a run in progress: whole folders of safetensors and JSON, or nothing.

    align-N/, step-N/       after N steps of the alignment stage, of training
        model.safetensors       everything but the frozen LLM
        optimizer.safetensors   the optimizer's moments
        state.json              where the run is, and the checksums of all three files

A checkpoint is written beside its place, flushed to disk and renamed, so a process killed at any
moment leaves the last whole one. The last two are kept: where the newest turns out to be damaged,
the run goes on from the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from open_crema.errors import WeightsError
from open_crema.model.crema import Crema
from open_crema.storage import (
    read_json,
    read_tensors,
    remove,
    replacing,
    sweep,
    write_json,
    write_tensors,
)

logger = logging.getLogger(__name__)

STAGES = ("align", "step")  # in the order of a run
KEPT = 2
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_NAME = re.compile(rf"({'|'.join(STAGES)})-([0-9]{{8,}})")
_REMEDY = "start again with --fresh, or choose another `out`"


@dataclass(frozen=True)
class Checkpoint:
    """One that is whole. stage: one of STAGES. step: how many of its steps have been done."""

    place: Path
    stage: str
    step: int
    state: Mapping[str, Any]


def save(
    folder: Path,
    stage: str,
    step: int,
    model: Crema,
    optimizer: Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Writes ``folder/STAGE-N``; once it is whole and on the disk, removes all but the last two.

    Raises WeightsError where it cannot be written; those that were there then still are.
    """
    names = _names(model, optimizer)
    moments = {
        f"{names[p]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for p, values in optimizer.state.items()
        for key, value in values.items()
        if value is not None
    }
    with replacing(folder / f"{stage}-{step:08d}") as new:
        write_tensors(new / MODEL, _own(model))
        write_tensors(new / OPTIMIZER, moments)
        files = {name: _checksum_of_file(new / name) for name in (MODEL, OPTIMIZER)}
        content = {"state": dict(state), "files": files}
        write_json(new / STATE, {**content, "checksum": _checksum(content)})
    sweep(folder)
    for older in _all(folder)[:-KEPT]:
        remove(older)


def discard(folder: Path) -> None:
    """Removes every checkpoint, and nothing else that the folder may hold."""
    for old in _all(folder):
        remove(old)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, with a warning about each newer one that is not; None
    where there is none at all.

    Raises WeightsError, naming a file of the newest, where none is whole.
    """
    damage: list[WeightsError] = []
    for place in reversed(_all(folder)):
        try:
            found = _verified(place)
        except WeightsError as error:
            damage.append(error)
            continue
        for what in damage:
            logger.warning("%s; going on from %s, the one before", what, place.name)
        return found
    if damage:
        raise WeightsError(f"{damage[0]}, and there is no other: {_REMEDY}")
    return None


def restore(found: Checkpoint, model: Crema, optimizer: Optimizer) -> None:
    """Puts a checkpoint's weights and optimizer moments in place, all or nothing.

    Raises WeightsError, naming the file, where it belongs to another model.
    """
    place = found.place
    tensors, kept = read_tensors(place / MODEL), read_tensors(place / OPTIMIZER)
    own = _own(model)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
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
    model.load_state_dict(tensors, strict=False)
    optimizer.state.clear()
    optimizer.state.update(moments)


def discard_newer(found: Checkpoint) -> None:
    """Removes what is newer: it is damaged, or :func:`latest` would have found it."""
    every = _all(found.place.parent)
    for newer in every[every.index(found.place) + 1 :]:
        remove(newer)


def _verified(place: Path) -> Checkpoint:
    """Raises WeightsError where a file is missing or is not what was written."""
    stage, step = _parts(place)
    with _named():
        content = read_json(place / STATE, "the checkpoint is incomplete")
        if content.pop("checksum", None) != _checksum(content):
            raise WeightsError(f"{place / STATE}: its checksum does not match its content")
        for name, expected in content["files"].items():
            try:
                found = _checksum_of_file(place / name)
            except OSError as error:
                raise WeightsError(f"{place / name}: {error.strerror}") from None
            if found != expected:
                raise WeightsError(f"{place / name}: its checksum does not match its content")
    return Checkpoint(place, stage, step, content["state"])


@contextmanager
def _named() -> Iterator[None]:
    """Errors say that the file is part of a checkpoint."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"damaged checkpoint: {error}") from None


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(model: Crema) -> dict[str, Tensor]:
    """Everything but the frozen LLM."""
    return {n: t for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def _all(folder: Path) -> list[Path]:
    """Oldest first. Folders of other names are not checkpoints of ours, and are left alone."""
    return sorted((p for p in folder.glob("*-*") if _NAME.fullmatch(p.name)), key=_order)


def _order(place: Path) -> tuple[int, int]:
    stage, step = _parts(place)
    return STAGES.index(stage), step


def _parts(place: Path) -> tuple[str, int]:
    stage, _, step = place.name.rpartition("-")
    return stage, int(step)


def _names(model: Crema, optimizer: Optimizer) -> dict[Tensor, str]:
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    return {p: n for n, p in model.named_parameters() if p in trained}

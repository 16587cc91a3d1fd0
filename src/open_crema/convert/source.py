"""Checkpoint files as names, shapes and tensors that are read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from open_crema.errors import WeightsError


@dataclass(frozen=True)
class Entry:
    """A tensor of a checkpoint: its shape is known, its numbers are read by ``load()``."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


State = dict[str, Entry]


def of_tensors(tensors: Mapping[str, Tensor]) -> State:
    return {name: Entry(tuple(t.shape), partial(_given, t)) for name, t in tensors.items()}


def read_pth(path: Path) -> State:
    """A ``.pth`` or ``.bin`` file: a state dict, or one under ``"model"``. Raises WeightsError, as
    :func:`load_pth` and :func:`state_of` do."""
    return state_of(load_pth(path), path)


def load_pth(path: Path) -> Any:
    """What a file of ``torch.save`` holds, tensors and plain values.

    Tensors stay on the disk until they are asked for, where the file's format allows it. Raises
    WeightsError, naming the file, for whatever is no such file, or would run code to be read.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds other things than tensors and is not read, as that could run code "
            f"({str(error).splitlines()[0]}); save its state dict alone"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: damaged or no checkpoint ({error})") from None


def state_of(loaded: Any, path: Path) -> State:
    """The state dict that a file holds, or has under ``"model"``. Raises WeightsError, naming the
    file."""
    state = loaded.get("model", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: no state dict, nor one under 'model'")
    odd = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise WeightsError(f"{path}: no tensors: {', '.join(odd[:5])}; is it a checkpoint?")
    return of_tensors(state)


def read_folder(folder: Path) -> State:
    """A folder in the transformers layout: ``*.safetensors`` or ``pytorch_model*.bin``, whole or in
    shards. Raises WeightsError, naming the file."""
    state: State = {}
    for file in _files(folder, "model.safetensors.index.json", "*.safetensors"):
        state.update(_safetensors(file))
    if not state:
        for file in _files(folder, "pytorch_model.bin.index.json", "pytorch_model*.bin"):
            state.update(read_pth(file))
    if not state:
        raise WeightsError(f"{folder}: holds neither *.safetensors nor pytorch_model*.bin")
    return state


def _files(folder: Path, name: str, pattern: str) -> list[Path]:
    """Those that an index names, or all of the pattern where there is none."""
    index = folder / name
    if not index.exists():
        return sorted(folder.glob(pattern))
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index}: cannot be read ({error})") from None
    if absent := [file for file in named if not (folder / file).is_file()]:
        raise WeightsError(f"{folder}: incomplete: {', '.join(absent)} of {index.name} missing")
    return [folder / file for file in named]


def _safetensors(path: Path) -> Iterator[tuple[str, Entry]]:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or not safetensors ({error}); copy it again") from None
    for name, shape in shapes.items():
        yield name, Entry(shape, partial(_read, path, name))


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


def _given(tensor: Any) -> Tensor:
    given: Tensor = tensor
    return given

"""Tensor files that are checked before they are believed: shapes, numbers, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from open_crema.errors import WeightsError
from open_crema.storage import read_tensors

Shapes = Mapping[str, tuple[int, ...]]


def fingerprint(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """What weights are, as 16 hexadecimal digits: their names, shapes and exact values, whatever
    the precision that they are kept in."""
    named = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        digest.update(f"{name} {tuple(tensor.shape)} {kind}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).float().numpy().tobytes())
    return digest.hexdigest()[:16]


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors, none of which is read.

    Raises WeightsError where it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; the model folder is incomplete") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or not safetensors ({error}); copy it again") from None


def check_shapes(found: Shapes, expected: Shapes, where: Path) -> None:
    """Raises WeightsError that names what is missing, unexpected or of another shape."""
    wrong = [f"unexpected {n}" for n in found if n not in expected]
    wrong += [f"missing {n}" for n in expected if n not in found]
    wrong += [
        f"{n} is {shape}, expected {expected[n]}"
        for n, shape in found.items()
        if n in expected and shape != expected[n]
    ]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise WeightsError(f"{where}: tensors do not fit the configuration: {shown}")


def read_checked(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """The tensors of a file, floating point ones as float32.

    Raises WeightsError, naming the file, where it is missing or damaged, where its tensors are not
    the expected ones (found out before any is read), or hold what is not a finite number.
    """
    check_shapes(shapes_in(path), expected, path)
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.dtype == torch.bool):
            raise WeightsError(f"{path}: {name} holds {tensor.dtype}, not floating point numbers")
        if not bool(tensor.float().isfinite().all()):
            raise WeightsError(
                f"{path}: {name} holds numbers that are not finite; its training failed"
            )
    return {n: t if t.dtype == torch.bool else t.float() for n, t in tensors.items()}

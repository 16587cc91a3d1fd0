"""Metric depth maps: 16-bit PNG files and NumPy arrays, as metres."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media import timeline
from open_crema.media.arrays import Array, load_npy, load_npz
from open_crema.media.images import read_depth_image, stack
from open_crema.media.source import DEFAULT_LIMITS, Limits, PathLike, list_images, locate

_INVALID = (0, 65535)  # what sensors write where they measured nothing


@dataclass(frozen=True)
class DepthMaps:
    """metres: float32 [S, H, W], NaN where nothing was measured; times: float64 [S, 2] seconds."""

    metres: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]


def read_depth(
    path: PathLike,
    count: int,
    *,
    scale: float = 0.001,
    folder_fps: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
) -> DepthMaps:
    """At most `count` evenly spaced depth maps, as `read_frames` chooses frames.

    Args:
        path: a 16-bit PNG, a folder of them (other files in it are passed over), or an .npy or
            .npz array of floats in metres, [H, W] or [n, H, W] (an .npz holds one array, or names
            it "depth").
        scale: metres per unit of the PNG (0.001: millimetres). 0 and 65535 are invalid; in arrays
            everything that is not finite and above 0.
        folder_fps: frames per second, which neither folders nor arrays say themselves.

    Raises MediaError: unusable, over a limit, or 8-bit (a picture of depth, read by `read_frames`).
    """
    path, kind = locate(path, limits)
    if kind == "array":
        array = _read_array(path, limits)
        chosen, times = timeline.even(*timeline.regular(len(array), folder_fps), count)
        metres = np.asarray(array[chosen], dtype=np.float32)
        return DepthMaps(np.where(np.isfinite(metres) & (metres > 0), metres, np.nan), times)
    if kind == "container":
        raise MediaError(
            f"{path}: video and sound files hold no metric depth: give 16-bit PNG or .npy files"
        )
    files = list_images(path, [".png"]) if kind == "folder" else [path]
    chosen, times = timeline.even(*timeline.regular(len(files), folder_fps), count)
    units = _read_files([files[i] for i in chosen.tolist()], limits)
    metres = np.where(np.isin(units, _INVALID), np.nan, units * scale)
    return DepthMaps(metres.astype(np.float32), times)


def _read_files(files: Sequence[Path], limits: Limits) -> npt.NDArray[np.uint16]:
    for file in files:
        locate(file, limits)
    return stack(files, (read_depth_image(file, limits) for file in files))


def _read_array(path: Path, limits: Limits) -> Array:
    """The array [n, H, W] of floats."""
    array = _named_depth(path, limits) if path.suffix.lower() == ".npz" else load_npy(path)
    if not np.issubdtype(array.dtype, np.floating):
        raise MediaError(
            f"{path}: depth arrays hold metres as floats, this one is {array.dtype}: divide it by "
            f"its units per metre (1000 for millimetres) before saving"
        )
    if array.ndim not in (2, 3) or not array.size:
        raise MediaError(f"{path}: expected depth [H, W] or [n, H, W], found shape {array.shape}")
    array = array.reshape(-1, *array.shape[-2:])
    limits.check_pixels(path, array.shape[2], array.shape[1])
    return array


def _named_depth(path: Path, limits: Limits) -> Array:
    arrays = load_npz(path, limits)
    if "depth" in arrays:
        return arrays["depth"]
    if len(arrays) != 1:
        raise MediaError(f"{path}: holds {', '.join(arrays)}: name the array of metres 'depth'")
    return next(iter(arrays.values()))

"""Metric depth maps: 16-bit PNG files and NumPy arrays, as metres."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media import timeline
from open_crema.media.clip import Clip
from open_crema.media.images import is_deep, read_depth_image
from open_crema.media.maps import MapKind, holds_maps, read_maps
from open_crema.media.sequence import list_files
from open_crema.media.source import Limits, PathLike, listed, locate

INVALID = (0, 65535)  # what sensors write where they measured nothing
_FARTHEST = 200.0  # metres; the colours end at 10
_METRES = MapKind(
    "floating",
    None,
    "depth in metres as floats",
    "divide by the units per metre (1000 for millimetres) before saving",
)


@dataclass(frozen=True)
class DepthMaps:
    """metres: float32 [S, H, W], NaN where nothing was measured; times: float64 [S, 2] seconds."""

    metres: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]


def is_metric_depth(path: PathLike, limits: Limits) -> bool:
    """Whether `read_depth` is to read it: arrays, or PNG files of more than 8 bits.

    What was drawn as pictures already, or is a video, is none. Raises MediaError when it cannot be
    opened.
    """
    path, kind = locate(path, limits)
    if holds_maps(path, limits):
        return True
    found = [path] if kind == "image" else listed(path, limits) if kind == "folder" else []
    images = [file for file in found if file.suffix.lower() == ".png"]
    return bool(images) and is_deep(images[0], limits)


def read_depth(path: PathLike, clip: Clip, *, scale: float = 0.001) -> DepthMaps:
    """At most ``clip.frames`` depth maps, aligned to the clip's video as `timeline` says.

    Args:
        path: a 16-bit PNG, a folder of them (other files in it are passed over), or floats in
            metres, [H, W] or [n, H, W]: as `read_maps`, named "depth" in an .npz.
        scale: metres per unit of the PNG (0.001: millimetres). 0 and 65535 are invalid; in arrays
            everything that is not finite and above 0.

    Raises MediaError: unusable, over a limit, 8-bit (a picture of depth, read by `read_pictures`),
    not fitting the clip's video, in arrays most of it beyond 200 m (another unit), or without one
    valid depth in the maps taken.
    """
    path, kind = locate(path, clip.limits)
    if holds_maps(path, clip.limits):
        maps = read_maps(path, clip, "depth", (_METRES,))
        metres = np.where(maps.values > 0, maps.values, np.nan)
        times = maps.times
        _check_unit(path, metres)
    elif kind in ("image", "folder"):
        files = list_files(path, clip.limits, [".png"])
        line = timeline.place(path, len(files.paths), clip, stamps=files.stamps)
        timeline.say(path, line, clip)
        chosen, times = timeline.choose(path, line, clip)
        units = files.load(chosen, lambda file: _read_file(file, clip.limits))
        metres = np.where(np.isin(units, INVALID), np.nan, units * scale).astype(np.float32)
    else:
        raise MediaError(
            f"{path}: video and sound files hold no metric depth: give 16-bit PNG or .npy files"
        )
    if np.isnan(metres).all():
        raise MediaError(
            f"{path}: holds no valid depth in any of the {len(metres)} maps taken from it (not "
            f"measured, 0 or below): check the sensor, or leave the sense out"
        )
    return DepthMaps(metres, times)


def _check_unit(path: Path, metres: npt.NDArray[np.float32]) -> None:
    known = metres[np.isfinite(metres)]
    if len(known) and (middle := float(np.median(known))) > _FARTHEST:
        raise MediaError(
            f"{path}: half of its depths are {middle:g} m or more, which looks like another unit: "
            f"{_METRES.remedy}"
        )


def _read_file(file: Path, limits: Limits) -> npt.NDArray[np.uint16]:
    locate(file, limits)
    return read_depth_image(file, limits)

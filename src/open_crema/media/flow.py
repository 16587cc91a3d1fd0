"""Optical flow files: Middlebury .flo and NumPy arrays, as image widths per second."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media import timeline
from open_crema.media.clip import Clip
from open_crema.media.maps import MapKind, holds_maps, read_maps
from open_crema.media.sequence import list_files
from open_crema.media.source import Kind, Limits, PathLike, listed, locate
from open_crema.media.timeline import Floats, Indices, Line

WIDTHS_PER_SECOND = "flow_widths_per_second"
_VECTORS = MapKind("floating", 2, "flow vectors (x right, y down) as floats")
_MAGIC = b"PIEH"
_UNKNOWN = 1e9  # the format's mark of pixels without flow


@dataclass(frozen=True)
class FlowMaps:
    """velocity: float32 [S, H, W, 2] (x right, y down), image widths per second, NaN where unknown;
    times: float64 [S, 2] seconds."""

    velocity: npt.NDArray[np.float32]
    times: Floats


def is_flow(path: PathLike, limits: Limits) -> bool:
    """Whether `read_flow` is to read it; pictures of flow, and videos, are none."""
    path, kind = locate(path, limits)
    return kind == "flow" or _holds_flo(path, kind, limits) or holds_maps(path, limits)


def read_flow(path: PathLike, clip: Clip) -> FlowMaps:
    """At most ``clip.frames`` flow maps, aligned to the clip's video as `timeline` says.

    path: a .flo file or a folder of them, in pixels from one picture to the next; or floats
    [H, W, 2] or [n, H, W, 2] as `read_maps`: in pixels too, or, named "flow_widths_per_second" in
    an .npz, in image widths per second. n pictures have n - 1 or n maps.

    Raises MediaError: damaged, over a limit, not fitting the clip's video, or pixels where nothing
    says how many seconds lie between two pictures.
    """
    path, kind = locate(path, clip.limits)
    if kind == "flow" or _holds_flo(path, kind, clip.limits):
        files = list_files(path, clip.limits, [".flo"])
        line = timeline.place(path, len(files.paths), clip, stamps=files.stamps, between=True)
        timeline.say(path, line, clip)
        chosen, times = timeline.choose(path, line, clip)
        flow = files.load(chosen, lambda file: read_flo(file, clip.limits))
    else:
        maps = read_maps(path, clip, ("flow", WIDTHS_PER_SECOND), (_VECTORS,), between=True)
        flow, line, chosen, times = maps.values, maps.line, maps.chosen, maps.times
        if maps.name == WIDTHS_PER_SECOND:
            return FlowMaps(flow, times)
    seconds = _seconds_between(path, line, chosen)
    return FlowMaps((flow / flow.shape[2] / seconds[:, None, None, None]).astype(np.float32), times)


def read_flo(path: Path, limits: Limits) -> npt.NDArray[np.float32]:
    """One .flo file: float32 [H, W, 2] pixels, NaN where unknown. Raises MediaError."""
    locate(path, limits)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened: {error.strerror}") from None
    if len(data) < 12 or data[:4] != _MAGIC:
        raise MediaError(f"{path}: not a .flo file (it does not begin with PIEH): export it again")
    width, height = struct.unpack("<ii", data[4:12])
    if width < 1 or height < 1:
        raise MediaError(f"{path}: damaged: its size is {width} x {height}: export it again")
    limits.check_pixels(path, width, height)
    if len(data) != 12 + 8 * width * height:
        raise MediaError(
            f"{path}: damaged: {width} x {height} vectors need {12 + 8 * width * height} bytes, "
            f"found {len(data)}: copy or export it again"
        )
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    known = (np.abs(flow) < _UNKNOWN).all(axis=-1, keepdims=True)
    if not known.any():
        raise MediaError(f"{path}: none of its vectors is known: export it again")
    return np.where(known, flow, np.float32(np.nan)).astype(np.float32)


def _holds_flo(path: Path, kind: Kind, limits: Limits) -> bool:
    return kind == "folder" and any(f.suffix.lower() == ".flo" for f in listed(path, limits))


def _seconds_between(path: Path, line: Line, chosen: Indices) -> Floats:
    """From the picture of each chosen map to the next one."""
    if line.rule in ("whole", "second") or (line.rule == "timestamps" and len(line.starts) == 1):
        raise MediaError(
            f"{path}: its flow is in pixels from one picture to the next, and nothing says how far "
            f'apart those are: state the pictures per second as "rate" in the data file, or save '
            f"widths per second in an .npz as {WIDTHS_PER_SECOND!r}"
        )
    seconds: Floats = np.diff(np.append(line.starts, line.end))[chosen]
    return seconds

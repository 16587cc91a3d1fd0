"""How each sense is read from its own file, or made from the video: the targets of modality.py.

Every function is ``(path, clip) -> media``: ``clip.frames`` maps at most, within ``clip.limits``,
aligned to ``clip.video``. All raise MediaError for an unusable file, and SenseAbsent where a sound
one does not hold the sense. Every reader also takes features that were made before
(`media.read_features`), and then gives `Precomputed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from open_crema import media
from open_crema.errors import MediaError
from open_crema.experts.colour import depth_to_rgb, flow_to_rgb, normal_to_rgb, thermal_to_rgb
from open_crema.experts.flow import dis_flow
from open_crema.experts.rgbd import depth_of_rgbd, points_of_rgbd
from open_crema.features import Points
from open_crema.media import (
    PICTURES,
    Audio,
    Clip,
    Cloud,
    Frames,
    Limits,
    MapKind,
    Precomputed,
    Rgbd,
)
from open_crema.media.arrays import Array, array_names, load_npz
from open_crema.media.sequence import STAMPS
from open_crema.media.source import PathLike, check_file

log = logging.getLogger(__name__)

Media = TypeVar("Media")

_NORMALS = MapKind("floating", 3, "unit normals (x right, y down, z forward) as floats")
_CELSIUS = MapKind("floating", None, "degrees Celsius as floats")
_UNIT = 0.01  # what lengths of normals may be off by
_COLDEST, _HOTTEST = -273.15, 3000.0  # degrees Celsius
_SURELY_KELVIN = 200.0  # no scene has half its pixels above that, in degrees Celsius


def _or_features(
    read: Callable[[PathLike, Clip], Media], *, every: bool = False
) -> Callable[[PathLike, Clip], Media | Precomputed]:
    """The same reader, for features that were made before too; every: as in `read_features`."""

    @wraps(read)
    def reader(path: PathLike, clip: Clip) -> Media | Precomputed:
        if media.holds_features(path, clip.limits):
            return media.read_features(path, clip, every=every)
        return read(path, clip)

    return reader


@_or_features
def read_pictures(path: PathLike, clip: Clip) -> Frames:
    """Pictures as they are: a video, one image, or a folder of images."""
    return media.read_pictures(path, clip)


def sound_of_video(path: PathLike, clip: Clip) -> Audio:
    """The whole sound of a video's sound track."""
    return media.read_audio(path, limits=clip.limits)


def _read_sound(path: PathLike, clip: Clip) -> Audio:
    found = media.read_audio(path, limits=clip.limits)
    return replace(found, start=found.start + clip.start)


def read_sound(path: PathLike, clip: Clip) -> Audio | Precomputed:
    """The whole sound of a sound file, or of a video's sound track, from ``clip.start`` on."""
    return _or_features(_read_sound, every=True)(path, clip)


def flow_of_video(path: PathLike, clip: Clip) -> Frames:
    """Optical flow of a video, coloured by direction and speed, beside each of its frames."""
    first, second, gaps = media.read_frame_pairs(
        path, clip.frames, folder_fps=clip.rate or 1.0, limits=clip.limits
    )
    if clip.rate is None and Path(path).is_dir() and not (Path(path) / STAMPS).exists():
        log.warning(
            "%s: nothing says when its pictures appear, and its flow is made as if they were one "
            'second apart: state their "rate" in the data file, or write a %s into the folder',
            path,
            STAMPS,
        )
    return Frames(flow_to_rgb(dis_flow(first, second, gaps)), first.times)


@_or_features
def read_flow_pictures(path: PathLike, clip: Clip) -> Frames:
    """Flow as pictures. Vectors (.flo, .npy, .npz) are coloured by the fixed scale; what was drawn
    as pictures already is taken as it is."""
    if not media.is_flow(path, clip.limits):
        return media.read_pictures(path, clip)
    maps = media.read_flow(path, clip)
    return Frames(flow_to_rgb(maps.velocity), maps.times)


@_or_features
def read_depth_pictures(path: PathLike, clip: Clip) -> Frames:
    """Depth as pictures. Metric depth (16-bit PNG, .npy, .npz) is coloured by the fixed scale;
    what was drawn as pictures already (8-bit images, a video) is taken as it is. Of an RGB-D folder
    it is the depth."""
    if media.is_rgbd(path, clip.limits):
        return depth_of_rgbd(path, clip)
    if not media.is_metric_depth(path, clip.limits):
        return media.read_pictures(path, clip)
    maps = media.read_depth(path, clip)
    return Frames(depth_to_rgb(maps.metres), maps.times)


@_or_features
def read_normal_pictures(path: PathLike, clip: Clip) -> Frames:
    """Normals as pictures. Vectors (.npy, .npz: floats [H, W, 3] or [n, H, W, 3] in the camera's
    coordinates: x right, y down, z forward) are coloured by the fixed scale; pictures are taken as
    they are, as uint8 arrays too. Vectors that are zero or not finite are unknown.

    Raises MediaError where most are not of length 1 within 1 % (the others are scaled to it), or
    most point away from the camera: then they are coded or turned in another way.
    """
    if not media.holds_maps(path, clip.limits):
        return media.read_pictures(path, clip)
    maps = media.read_maps(path, clip, ("normal", "normals"), (_NORMALS, PICTURES))
    if maps.values.dtype == np.uint8:
        return Frames(maps.values, maps.times)
    _check_normals(Path(path), maps.values)
    return Frames(normal_to_rgb(maps.values), maps.times)


def _check_normals(path: Path, normals: npt.NDArray[np.floating]) -> None:
    length = np.linalg.norm(normals, axis=-1)
    known = np.isfinite(length) & (length > 0)
    if not known.any():
        raise MediaError(
            f"{path}: none of its normals is known: all are zero or NaN: export "
            f"it again, or leave the sense out"
        )
    middle = float(np.median(length[known]))
    if abs(middle - 1) > _UNIT:
        raise MediaError(
            f"{path}: normals must have length 1, half of these have {middle:.3g} or more: where "
            f"they are coded as colours, decode them (2 * value - 1), or save them as pictures"
        )
    if (normals[known][:, 2] > 0).mean() > 0.5:
        raise MediaError(
            f"{path}: most of its normals point away from the camera: expected x right, y down, z "
            f"forward, so that a surface that is seen has z below 0: turn the axes"
        )


@_or_features
def read_thermal_pictures(path: PathLike, clip: Clip) -> Frames:
    """Temperatures as pictures. Floats (.npy, .npz: [H, W] or [n, H, W]) are degrees Celsius and
    coloured by the fixed scale; pictures are taken as they are, as uint8 arrays too.

    Raises MediaError for what cannot be degrees Celsius.
    """
    if not media.holds_maps(path, clip.limits):
        return media.read_pictures(path, clip)
    maps = media.read_maps(path, clip, ("thermal", "celsius"), (_CELSIUS, PICTURES))
    if maps.values.dtype == np.uint8:
        return Frames(maps.values, maps.times)
    lowest, highest = np.nanmin(maps.values), np.nanmax(maps.values)
    if lowest < _COLDEST or highest > _HOTTEST or np.nanmedian(maps.values) > _SURELY_KELVIN:
        raise MediaError(
            f"{path}: its values, from {lowest:g} to {highest:g}, are no scene in degrees Celsius: "
            f"subtract 273.15 from kelvin; counts of a sensor need its calibration, "
            f"and dead pixels are NaN"
        )
    return Frames(thermal_to_rgb(maps.values), maps.times)


@_or_features
def read_touch_pictures(path: PathLike, clip: Clip) -> Frames:
    """Pictures of a touch sensor as they are; uint8 arrays [H, W, 3] or [n, H, W, 3] too."""
    if not media.holds_maps(path, clip.limits):
        return media.read_pictures(path, clip)
    maps = media.read_maps(path, clip, "touch", (PICTURES,))
    return Frames(maps.values, maps.times)


def read_points(path: PathLike, clip: Clip) -> Points | Cloud | Rgbd | Precomputed:
    """A point cloud (`media.read_cloud`), or features of its points: an .npz with ``features``,
    floating point [N, W], and ``voxels``, integer grid coordinates [N, 3], to which the code of
    position is yet to be added. Features [1, N, W] are those after it. An RGB-D folder gives its
    frames, as it does where it is the video."""
    if media.is_rgbd(path, clip.limits):
        return points_of_rgbd(path, clip)
    path, kind = check_file(path, clip.limits), Path(path).suffix.lower()
    if kind == ".safetensors":
        return media.read_features(path, clip, every=True)
    if kind == ".npz" and array_names(path) & {"features", "voxels"}:
        arrays = load_npz(path, clip.limits)
        if "voxels" not in arrays and arrays["features"].ndim == 3:
            return media.read_features(path, clip, every=True)
        return _point_features(path, arrays, clip.limits)
    return media.read_cloud(path, clip)


def _point_features(path: Path, arrays: dict[str, Array], limits: Limits) -> Points:
    missing = [name for name in ("features", "voxels") if name not in arrays]
    if missing:
        raise MediaError(
            f"{path}: has no array {' nor '.join(repr(name) for name in missing)}; it holds "
            f"{', '.join(repr(name) for name in arrays) or 'nothing'}"
        )
    features, voxels = arrays["features"], arrays["voxels"]
    if features.ndim != 2 or not features.size or not np.issubdtype(features.dtype, np.floating):
        raise MediaError(
            f"{path}: 'features' must be floating point [N, W] of at least one point, found "
            f"{features.dtype} {list(features.shape)}"
        )
    if voxels.shape != (len(features), 3) or not np.issubdtype(voxels.dtype, np.integer):
        raise MediaError(
            f"{path}: 'voxels' must be integers [{len(features)}, 3], one row a point as in "
            f"'features', found {voxels.dtype} {list(voxels.shape)}"
        )
    with np.errstate(over="ignore"):
        features = features.astype(np.float32)
    limits.check_points(path, len(features))
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise MediaError(
            f"{path}: 'features' holds NaN or infinity in {len(bad)} of {len(features)} points, "
            f"the first is row {bad[0]}; drop these points from both arrays"
        )
    return Points(torch.from_numpy(features), torch.from_numpy(voxels.astype(np.int64)))

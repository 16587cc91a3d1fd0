"""How each sense is read from its own file, or made from the video: the targets of modality.py.

Every function is ``(path, clip) -> media``: ``clip.frames`` pictures at most, within
``clip.limits``. All raise MediaError for an unusable file, and SenseAbsent where a sound one does
not hold the sense.
"""

from __future__ import annotations

import numpy as np
import torch

from open_crema.encoders.points import Points
from open_crema.errors import MediaError
from open_crema.experts.colour import depth_to_rgb, flow_to_rgb
from open_crema.experts.flow import dis_flow
from open_crema.experts.rgbd import depth_of_rgbd
from open_crema.media import (
    Audio,
    Clip,
    Frames,
    is_rgbd,
    read_audio,
    read_depth,
    read_frame_pairs,
    read_frames,
)
from open_crema.media.arrays import load_npz
from open_crema.media.source import PathLike, locate


def read_pictures(path: PathLike, clip: Clip) -> Frames:
    """Pictures as they are: a video, one image, or a folder of images."""
    return read_frames(path, clip.frames, limits=clip.limits)


def read_sound(path: PathLike, clip: Clip) -> Audio:
    """The whole sound of a sound file, or of a video's sound track."""
    return read_audio(path, limits=clip.limits)


def flow_of_video(path: PathLike, clip: Clip) -> Frames:
    """Optical flow of a video, coloured by direction and speed, beside each of its frames."""
    first, second, gaps = read_frame_pairs(path, clip.frames, limits=clip.limits)
    return Frames(flow_to_rgb(dis_flow(first, second, gaps)), first.times)


def read_depth_pictures(path: PathLike, clip: Clip) -> Frames:
    """Depth as pictures. Metric depth (16-bit PNG, .npy, .npz) is coloured by the fixed scale;
    what was drawn as pictures already (8-bit images, a video) is taken as it is. Of an RGB-D folder
    it is the depth."""
    if is_rgbd(path):
        return depth_of_rgbd(path, clip)
    try:
        return read_frames(path, clip.frames, limits=clip.limits)
    except MediaError as error:
        as_pictures = str(error)
    try:
        maps = read_depth(path, clip.frames, limits=clip.limits)
    except MediaError as error:
        if str(error) == as_pictures:
            raise
        raise MediaError(
            f"{path}: cannot be used as pictures of depth [{as_pictures}] nor as metric depth "
            f"[{error}]"
        ) from None
    return Frames(depth_to_rgb(maps.metres), maps.times)


def read_point_features(path: PathLike, clip: Clip) -> Points:
    """Precomputed features of a point cloud: an .npz with ``features``, floating point [N, W], and
    ``voxels``, integer grid coordinates [N, 3]."""
    path, kind = locate(path, clip.limits)
    if kind != "array" or path.suffix.lower() != ".npz":
        raise MediaError(f"{path}: point features come as an .npz with 'features' and 'voxels'")
    arrays = load_npz(path, clip.limits)
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
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise MediaError(
            f"{path}: 'features' holds NaN or infinity in {len(bad)} of {len(features)} points, "
            f"the first is row {bad[0]}; drop these points from both arrays"
        )
    return Points(torch.from_numpy(features), torch.from_numpy(voxels.astype(np.int64)))

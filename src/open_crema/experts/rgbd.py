"""What an RGB-D folder shows beside its pictures: the experts of depth, normals and points.

Every function is ``(path, clip) -> media``, as in `senses`, and is given another sense's file.
"""

from __future__ import annotations

import numpy as np

from open_crema.errors import SenseAbsent
from open_crema.experts.colour import depth_to_rgb, normal_to_rgb
from open_crema.experts.flow import LONG_SIDE
from open_crema.experts.normals import normals_from_depth
from open_crema.media import Clip, DepthMaps, Frames, Rgbd, is_rgbd, read_depth, read_rgbd
from open_crema.media.rgbd import fit_intrinsics, intrinsics_beside
from open_crema.media.source import PathLike, locate


def depth_of_rgbd(path: PathLike, clip: Clip) -> Frames:
    """The depth of an RGB-D folder by the fixed scale, for the frames that the video sense shows.

    Raises SenseAbsent where the video is anything else.
    """
    _check_rgbd("depth", path, clip)
    found = read_rgbd(path, clip)
    return Frames(depth_to_rgb(found.metres), found.times)


def normals_of_depth(path: PathLike, clip: Clip) -> Frames:
    """Surface normals by the fixed colours, from an RGB-D folder or from metric depth that comes
    with its camera: an .npz of ``depth`` and ``intrinsics``, or a folder of 16-bit PNG files that
    also holds the intrinsics as text.

    Raises SenseAbsent where the file is anything else, or has no intrinsics.
    """
    maps: Rgbd | DepthMaps
    if is_rgbd(path, clip.limits):
        maps = read_rgbd(path, clip)
        intrinsics = maps.intrinsics
        if intrinsics is None:
            raise SenseAbsent("normal", f"{path} holds no camera intrinsics (intrinsics.txt)")
    else:
        beside = intrinsics_beside(path, clip.limits)
        if beside is None:
            raise SenseAbsent("normal", f"no file given, and {path} is no depth with intrinsics")
        maps = read_depth(path, clip)
        intrinsics = fit_intrinsics(beside[0], maps.metres.shape[:0:-1], beside[1])
    step = -(-max(maps.metres.shape[1:]) // LONG_SIDE)
    small = intrinsics / np.array([[step], [step], [1]])
    normals = normals_from_depth(maps.metres[:, ::step, ::step], small)
    return Frames(normal_to_rgb(normals), maps.times)


def points_of_rgbd(path: PathLike, clip: Clip) -> Rgbd:
    """Frames of an RGB-D folder whose pose is known, for the encoder of points.

    Raises SenseAbsent where the file is anything else, has no intrinsics, or no poses; a single
    frame needs none.
    """
    _check_rgbd("point", path, clip)
    found = read_rgbd(path, clip, posed=True)
    if found.intrinsics is None:
        raise SenseAbsent("point", f"{path} holds no camera intrinsics (intrinsics.txt)")
    if found.poses is None and len(found.metres) > 1:
        raise SenseAbsent("point", f"{path} holds no camera poses to join its frames by")
    return found


def _check_rgbd(sense: str, path: PathLike, clip: Clip) -> None:
    locate(path, clip.limits)
    if not is_rgbd(path, clip.limits):
        raise SenseAbsent(
            sense, f"no file given, and {path} is not an RGB-D folder that it could be made from"
        )

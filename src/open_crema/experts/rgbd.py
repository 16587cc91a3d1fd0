"""What an RGB-D folder shows beside its pictures: the experts of depth, normals and points.

Every function is ``(path, clip) -> media``, as in `senses`, and is given another sense's file.
"""

from __future__ import annotations

from open_crema.errors import SenseAbsent
from open_crema.experts.colour import depth_to_rgb
from open_crema.media import Clip, Frames, Rgbd, is_rgbd, read_rgbd
from open_crema.media.source import PathLike, locate


def depth_of_rgbd(path: PathLike, clip: Clip) -> Frames:
    """The depth of an RGB-D folder by the fixed scale, for the frames that the video sense shows.

    Raises SenseAbsent where the video is anything else.
    """
    _check_rgbd("depth", path, clip)
    found = read_rgbd(path, clip)
    return Frames(depth_to_rgb(found.metres), found.times)


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
    if not is_rgbd(path):
        raise SenseAbsent(
            sense, f"no file given, and {path} is not an RGB-D folder that it could be made from"
        )

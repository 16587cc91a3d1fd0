"""Point features from pictures with depth: the recipe of 3D-LLM with a frozen vision encoder.

Each picture's patch features are placed in the world at the depth of their patch, and the features
that share a voxel are averaged.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from open_crema.encoders.points import PointFeatures
from open_crema.encoders.splat import look_around
from open_crema.encoders.voxels import back_project, patch_depths, voxel_means
from open_crema.errors import MediaError
from open_crema.features import Features, Points
from open_crema.media import Frames, Rgbd
from open_crema.media.cloud import Cloud


class PatchEncoder(Protocol):
    """A vision encoder whose last tokens are a grid (rows, columns) of patches over the whole
    picture, row by row."""

    @property
    def width(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    def __call__(self, media: Frames, /) -> Features: ...


class ScenePoints:
    """RGB-D frames with poses, a point cloud, or ready `Points`, to ``[1, N, W]`` tokens as
    `PointFeatures`.

    vision: the encoder of the pictures; W is its width, and its fingerprint part of this one's.
    voxel: edge in metres. views: from how many sides a cloud is looked at (`look_around`), which
    makes RGB-D frames of it. points: what chooses of the voxels and adds their position's code. A
    single frame may come without a pose: then its camera is the world.
    """

    name = "points"

    def __init__(
        self,
        vision: PatchEncoder,
        *,
        voxel: float = 0.1,
        views: int = 6,
        points: PointFeatures | None = None,
    ) -> None:
        if not voxel > 0 or views < 1:
            raise ValueError(f"voxel {voxel} must be above 0 metres, and views {views} at least 1")
        self.vision = vision
        self.voxel = voxel
        self.views = views
        self._points = points or PointFeatures(vision.width)
        self.width = vision.width
        made = f"{voxel:g}m/{views} views/{vision.fingerprint}"
        self.fingerprint = f"{self._points.fingerprint}/{made}"

    def __call__(self, media: Points | Rgbd | Cloud, /) -> Features:
        """Encode a scene. Raises MediaError when nothing of it can be placed in the world."""
        return self._points(media if isinstance(media, Points) else self.points(media))

    def points(self, media: Rgbd | Cloud) -> Points:
        """The features of each voxel, before their position's code is added."""
        if isinstance(media, Cloud):
            media = look_around(media, self.views)
        if media.intrinsics is None or (media.poses is None and len(media.metres) > 1):
            raise MediaError("points need the camera's intrinsics and a pose for each frame")
        depths = patch_depths(media.metres, self.vision.grid)
        height, width = media.metres.shape[1:]
        positions = back_project(depths, media.intrinsics, (width, height), media.poses)
        known = np.isfinite(depths)
        if not known.any():
            raise MediaError(
                "no part of it has enough valid depth to make points of: give a denser cloud, or "
                "depth with fewer holes"
            )
        tokens = self.vision(Frames(media.colour, media.times)).tokens[:, -depths[0].size :]
        features = tokens.reshape(*depths.shape, self.width).numpy()
        means, voxels = voxel_means(features[known], positions[known], self.voxel)
        span = float(media.times[0, 0]), float(media.times[-1, 1])
        return Points(torch.from_numpy(means), torch.from_numpy(voxels), span)

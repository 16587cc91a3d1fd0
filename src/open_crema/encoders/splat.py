"""Pictures of a point cloud from virtual cameras, so that a vision encoder can look at it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.experts.normals import normals_from_depth
from open_crema.media import Rgbd
from open_crema.media.cloud import Cloud

Array = npt.NDArray[np.float64]

SIZE = 160  # pixels a side
MOST_POINTS = 300_000  # more would fall on pixels that are taken
_VIEW = 60.0  # degrees
_ELEVATION = 40.0  # degrees; over the near wall of a room, which scans leave without a ceiling
_REACH = 95  # percent of the points that a view holds: strays are cut off
_COVER = 2.0  # of their mean distance: points lie at random, and with 1 a third is left open
_WIDEST = 8  # pixels to either side that a point may cover
_GROUND = (124, 116, 104)  # nothing there: the mean of ImageNet, which encoders see as zero


def look_around(cloud: Cloud, views: int) -> Rgbd:
    """The cloud from `views` sides, as if a camera had been there: [views, SIZE, SIZE].

    z is up. The cameras stand around it, evenly spaced, and look down at its middle by 40 degrees,
    so that they see things from all sides and into rooms without a ceiling. Points are squares of
    twice their mean distance, the nearest one covers. Points without colour are grey, lighter
    where the surface faces the camera. A cloud of more than MOST_POINTS is thinned to evenly spaced
    rows. Always the same pictures for the same cloud.

    Raises MediaError when there is no point.
    """
    count = len(cloud.xyz)
    if count == 0:
        raise MediaError("the point cloud has no point")
    kept = np.arange(min(count, MOST_POINTS)) * count // min(count, MOST_POINTS)
    xyz = cloud.xyz[kept].astype(np.float64)
    centre = np.median(xyz, axis=0)
    reach = max(float(np.percentile(np.linalg.norm(xyz - centre, axis=1), _REACH)), 1e-3)
    side = _COVER * reach * np.sqrt(4 * np.pi / len(xyz))  # as if spread over a sphere
    intrinsics = _camera()
    poses = np.stack([_pose(centre, reach, i / views) for i in range(views)])
    shown = np.stack([_draw(xyz, pose, intrinsics, side) for pose in poses])
    hit = shown >= 0
    along = np.einsum("vi,vhwi->vhw", poses[:, :3, 2], xyz[shown] - poses[:, None, None, :3, 3])
    metres = np.where(hit, along, np.nan).astype(np.float32)
    colours = _shade(metres, intrinsics) if cloud.rgb is None else cloud.rgb[kept][shown]
    colour = np.where(hit[..., None], colours, _GROUND).astype(np.uint8)
    return Rgbd(colour, metres, intrinsics, poses, np.zeros((views, 2)))


def _camera() -> Array:
    focal = SIZE / 2 / np.tan(np.radians(_VIEW) / 2)
    middle = (SIZE - 1) / 2
    return np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])


def _pose(centre: Array, reach: float, turn: float) -> Array:
    """Camera to world [4, 4] after this part of a full turn."""
    angle, tilt = 2 * np.pi * turn, np.radians(_ELEVATION)
    ahead = np.array([np.cos(angle) * np.cos(tilt), np.sin(angle) * np.cos(tilt), -np.sin(tilt)])
    right = np.array([np.sin(angle), -np.cos(angle), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    pose[:3, 3] = centre - reach / np.sin(np.radians(_VIEW) / 2) * ahead
    return pose


def _draw(xyz: Array, pose: Array, intrinsics: Array, side: float) -> npt.NDArray[np.int64]:
    """Which point each pixel shows [SIZE, SIZE], -1 where none."""
    seen = (xyz - pose[:3, 3]) @ pose[:3, :3]
    rows = np.flatnonzero(seen[:, 2] > 0)
    seen = seen[rows]
    u, v = np.rint(seen[:, :2] / seen[:, 2:] * intrinsics[0, 0] + intrinsics[0, 2]).T
    half = np.rint(side * intrinsics[0, 0] / seen[:, 2] / 2).clip(0, _WIDEST)
    # One number orders by distance, then by row: positive floats sort like their bits.
    keys = seen[:, 2].astype(np.float32).view(np.uint32).astype(np.int64) << 32 | rows
    nearest = np.full(SIZE * SIZE, np.iinfo(np.int64).max)
    for width in np.unique(half):
        group = half == width
        for y in np.arange(-width, width + 1):
            for x in np.arange(-width, width + 1):
                column, row = u[group] + x, v[group] + y
                fits = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
                pixels = (row[fits] * SIZE + column[fits]).astype(np.int64)
                np.minimum.at(nearest, pixels, keys[group][fits])
    taken = nearest < np.iinfo(np.int64).max
    return np.where(taken, nearest & 0xFFFFFFFF, -1).reshape(SIZE, SIZE)


def _shade(metres: npt.NDArray[np.float32], intrinsics: Array) -> npt.NDArray[Any]:
    """Grey [views, SIZE, SIZE, 1] of a lamp at the camera; 128 where the surface is unknown."""
    v, u = np.mgrid[:SIZE, :SIZE]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    facing = -(normals_from_depth(metres, intrinsics) * rays).sum(axis=-1)
    return np.where(np.isfinite(facing), 40 + 200 * facing, 128)[..., None]

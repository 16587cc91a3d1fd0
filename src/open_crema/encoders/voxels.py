"""Where the patches of depth pictures lie in the world, and means over the voxels of a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError

Array = npt.NDArray[np.float64]

MIN_VALID = 0.25  # of a patch's pixels; with fewer its depth says little of where it is
_MOST_VOXELS = 1_000_000  # along one axis; beyond it the numbers are not metres


def patch_depths(metres: npt.NDArray[np.float32], grid: tuple[int, int]) -> Array:
    """The median valid depth of each patch: [S, rows, columns] of depth [S, h, w], whole pictures
    cut into `grid` = (rows, columns).

    The lower of two middle values, so that it is a depth that was measured and not one between a
    thing and its background. NaN where less than a quarter of the patch is valid.
    """
    tops, lefts = (_edges(size, n) for size, n in zip(metres.shape[1:], grid, strict=True))
    found = np.full((len(metres), *grid), np.nan)
    for row, (top, bottom) in enumerate(tops):
        for column, (left, right) in enumerate(lefts):
            pixels = np.sort(metres[:, top:bottom, left:right].reshape(len(metres), -1), axis=1)
            valid = np.isfinite(pixels).sum(axis=1)  # NaN is sorted to the end
            middle = np.maximum(valid - 1, 0) // 2
            median = np.take_along_axis(pixels, middle[:, None], axis=1)[:, 0]
            found[:, row, column] = np.where(valid >= MIN_VALID * pixels.shape[1], median, np.nan)
    return found


def back_project(
    depths: Array, intrinsics: Array, size: tuple[int, int], poses: Array | None
) -> Array:
    """World positions [S, rows, columns, 3] of patches at their centres, from `patch_depths`.

    intrinsics: [3, 3] in pixels of a picture of this size (width, height), where the centre of the
    first pixel is (0, 0). poses: [S, 4, 4] camera to world; None leaves camera coordinates.
    """
    rows, columns = depths.shape[1:]
    u = (np.arange(columns) + 0.5) * size[0] / columns - 0.5
    v = (np.arange(rows) + 0.5) * size[1] / rows - 0.5
    pixels = np.stack([*np.meshgrid(u, v), np.ones((rows, columns))], axis=-1)
    positions: Array = (pixels @ np.linalg.inv(intrinsics).T) * depths[..., None]
    if poses is not None:
        turned = np.einsum("sij,srcj->srci", poses[:, :3, :3], positions)
        positions = turned + poses[:, None, None, :3, 3]
    return positions


def voxel_means(
    features: npt.NDArray[np.float32], positions: Array, voxel: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Means [M, W] of the features [N, W] of all positions [N, 3] that share a voxel of this edge
    (metres), and the voxels [M, 3].

    The grid is that of the world; voxels are counted from the least one along each axis, so that
    they are small integers from 0, and come in the order of x, then y, then z.
    Raises MediaError where the positions spread too far to be metres.
    """
    spread = float(np.ptp(positions, axis=0).max())
    if spread > _MOST_VOXELS * voxel:
        raise MediaError(
            f"the points spread over {spread:g} m: give poses and depth in metres, or a larger "
            f"model.encoders.voxel than {voxel:g}"
        )
    cells = np.floor(positions / voxel)
    cells = (cells - cells.min(axis=0)).astype(np.int64)
    voxels, index, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(index.reshape(-1), kind="stable")
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(features[order].astype(np.float64), firsts, axis=0)
    return (sums / counts[:, None]).astype(np.float32), voxels


def _edges(size: int, parts: int) -> list[tuple[int, int]]:
    """`parts` intervals that cover `size` pixels, each at least one."""
    bounds = np.linspace(0, size, parts + 1)
    first = np.minimum(np.floor(bounds[:-1]), size - 1).astype(int)
    last = np.maximum(np.ceil(bounds[1:]).astype(int), first + 1)
    return list(zip(first.tolist(), last.tolist(), strict=True))

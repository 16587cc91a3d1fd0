"""Surface normals from metric depth and the camera's intrinsics (the normals expert)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]

RADIUS = 0.025  # of the longer side: half the window; less leaves noise, more rounds edges off
_STEEPEST = 4.0  # tangent: a surface at more than 76 degrees is taken for a depth edge
_NOISE = 0.02  # of the depth: what a sensor's noise may change between neighbours
_SHARE = 1 / 3  # of the window on the same surface; a corner of the picture has over a quarter


def normals_from_depth(metres: npt.NDArray[np.floating], intrinsics: Floats64) -> Floats32:
    """Unit normals [S, H, W, 3] that face the camera: x right, y down, z forward; NaN: unknown.

    Args: depth along the optical axis [S, H, W] in metres, NaN where unknown; intrinsics [3, 3] in
    its pixels.

    A plane is fitted by least squares to the INVERSE depth over a small window: seen through a
    pinhole a plane's inverse depth is linear in the pixel, so that the fit is exact, and a
    triangulating sensor's noise is even there. Neighbours that a surface of less than 76 degrees
    could not reach are left out, so that nothing is smoothed across a depth edge; where fewer than
    a third of the window remain, the normal is unknown.
    """
    radius = radius_of(*metres.shape[1:])
    found = np.empty((*metres.shape, 3), np.float32)
    for normals, depth in zip(found, metres, strict=True):
        normals[:] = _normals(depth, np.asarray(intrinsics, np.float64), radius)
    return found


def radius_of(height: int, width: int) -> int:
    """Pixels from the middle of a window to its sides."""
    return max(2, round(RADIUS * max(height, width)))


def _normals(depth: npt.NDArray[np.floating], intrinsics: Floats64, radius: int) -> Floats32:
    known = np.isfinite(depth) & (depth > 0)
    inverse = np.where(known, 1 / np.where(known, depth, 1), 0).astype(np.float32)
    height, width = inverse.shape
    padded = np.pad(inverse, radius)
    # Sums over the neighbours at (x, y) from the pixel, of the difference w in inverse depth.
    n, sx, sy, sxx, sxy, syy, sw, sxw, syw = np.zeros((9, height, width), np.float32)
    focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            near = padded[radius + y : radius + y + height, radius + x : radius + x + width]
            w = near - inverse
            reach = np.float32(_NOISE + _STEEPEST * np.hypot(x, y) / focal)
            same = ((np.abs(w) <= reach * inverse) & (near > 0)).astype(np.float32)
            w *= same
            n += same
            sw += w
            if x:
                sx += x * same
                sxx += x * x * same
                sxw += x * w
            if y:
                sy += y * same
                syy += y * y * same
                syw += y * w
            if x and y:
                sxy += x * y * same
    enough = known & (n >= _SHARE * (2 * radius + 1) ** 2)
    n = np.maximum(n, 1)
    cxx, cxy, cyy = sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n
    cxw, cyw = sxw - sx * sw / n, syw - sy * sw / n
    determinant = np.where(enough, cxx * cyy - cxy * cxy, 1)  # a third of a window is never a line
    a = (cxw * cyy - cyw * cxy) / determinant
    b = (cyw * cxx - cxw * cxy) / determinant
    here = inverse + (sw - a * sx - b * sy) / n
    # 1 / z = a u + b v + c over the picture, so the plane's normal is along K^T (a, b, c).
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    plane = np.stack([a, b, here - a * u - b * v], axis=-1) @ -intrinsics
    plane /= np.maximum(np.linalg.norm(plane, axis=-1, keepdims=True), 1e-12)
    normals: Floats32 = np.where(enough[..., None], plane, np.nan).astype(np.float32)
    return normals

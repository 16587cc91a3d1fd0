"""Where rays meet bodies. Bodies are unit ones in their own coordinates: half sizes of 1.

A ray is ``o + t d``; t is the same number in the world and in the body's coordinates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from open_crema.senseqa.scene import Solid

Floats = npt.NDArray[np.float64]
Meeting = tuple[Floats, Floats]  # t [n], infinite where there is none, and normals [n, 3]

_RING, _TUBE = 0.70, 0.30  # radii of the ring, upright in the x z plane
_STEPS = 40
_NEAR = 1e-6


def _planes(rows: list[tuple[float, float, float, float]]) -> tuple[Floats, Floats]:
    array = np.array(rows)
    return array[:, :3], array[:, 3]


_CUBE = _planes(
    [(1, 0, 0, 1), (-1, 0, 0, 1), (0, 1, 0, 1), (0, -1, 0, 1), (0, 0, 1, 1), (0, 0, -1, 1)]
)
_PYRAMID = _planes(
    [(0, 0, -1, 1), (1, 0, 0.5, 0.5), (-1, 0, 0.5, 0.5), (0, 1, 0.5, 0.5), (0, -1, 0.5, 0.5)]
)


def turn(yaw: float) -> Floats:
    """[3, 3]: columns are the body's axes in the world."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def local(solid: Solid, points: Floats, centre: Floats) -> Floats:
    """World points [..., 3] in the body's own coordinates, its half sizes being 1."""
    found: Floats = (points - centre) @ turn(solid.yaw) / np.array(solid.half)
    return found


def meet(solid: Solid, centre: Floats, origin: Floats, rays: Floats) -> Meeting:
    """The first meeting of rays [n, 3] from a point outside; normals are unit ones of the world."""
    axes, half = turn(solid.yaw), np.array(solid.half)
    o, d = (origin - centre) @ axes / half, rays @ axes / half
    t, normal = _KINDS[solid.kind](np.broadcast_to(o, d.shape), d)
    world = (normal / half) @ axes.T
    # A surface that is seen faces the ray; where one only grazes it, to within rounding.
    along = np.maximum((world * rays).sum(1), 0.0) / (rays * rays).sum(1)
    world = world - along[:, None] * rays
    length = np.linalg.norm(world, axis=1, keepdims=True)
    return t, world / np.where(length > 0, length, 1.0)


def _half_spaces(o: Floats, d: Floats, planes: tuple[Floats, Floats]) -> Meeting:
    """A convex body ``normals @ p <= offsets``: the last plane to be entered, if before the first
    to be left."""
    normals, offsets = planes
    speed = d @ normals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (offsets - o @ normals.T) / speed
    entered = np.where(speed < 0, at, -np.inf)
    t = entered.max(axis=1)
    left = np.where(speed > 0, at, np.inf).min(axis=1)
    return np.where((t < left) & (t > _NEAR), t, np.inf), normals[entered.argmax(axis=1)]


def _roots(a: Floats, b: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Where ``a t^2 + 2 b t + c`` is not above 0; an empty interval where nowhere."""
    a = np.maximum(a, 1e-12)
    inside = b * b - a * c
    root = np.sqrt(np.maximum(inside, 0.0))
    low = np.where(inside >= 0, (-b - root) / a, np.inf)
    return low, np.where(inside >= 0, (-b + root) / a, -np.inf)


def _slab(o: Floats, d: Floats) -> tuple[Floats, Floats]:
    """Where ``|z| <= 1``."""
    z = np.where(np.abs(d[:, 2]) < 1e-12, 1e-12, d[:, 2])
    one, other = (-1.0 - o[:, 2]) / z, (1.0 - o[:, 2]) / z
    return np.minimum(one, other), np.maximum(one, other)


def _ball(o: Floats, d: Floats) -> Meeting:
    t, _ = _roots((d * d).sum(1), (o * d).sum(1), (o * o).sum(1) - 1.0)
    t = np.where(t > _NEAR, t, np.inf)
    return t, o + np.where(np.isfinite(t), t, 0.0)[:, None] * d


def _round(o: Floats, d: Floats, radius: Floats, slope: Floats) -> Meeting:
    """``x^2 + y^2 <= r(z)^2`` between ``z = -1`` and 1, where r along the ray is radius + slope t,
    and the side's normal rises by what the radius loses."""
    a = (d[:, :2] ** 2).sum(1) - slope**2
    b = (o[:, :2] * d[:, :2]).sum(1) - radius * slope
    c = (o[:, :2] ** 2).sum(1) - radius**2
    side, side_end = _roots(a, b, c)
    cap, cap_end = _slab(o, d)
    t = np.maximum(side, cap)
    hit = (t < np.minimum(side_end, cap_end)) & (t > _NEAR)
    p = o + np.where(hit, t, 0.0)[:, None] * d
    around = np.linalg.norm(p[:, :2], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = np.where(np.abs(d[:, 2]) < 1e-12, 0.0, -slope / d[:, 2])
    normal = np.column_stack([p[:, :2], around * np.nan_to_num(rise)])
    lid = np.column_stack([np.zeros((len(p), 2)), np.sign(p[:, 2])])
    return np.where(hit, t, np.inf), np.where((cap > side)[:, None], lid, normal)


def _cylinder(o: Floats, d: Floats) -> Meeting:
    return _round(o, d, np.ones(len(d)), np.zeros(len(d)))


def _cone(o: Floats, d: Floats) -> Meeting:
    return _round(o, d, (1.0 - o[:, 2]) / 2, -d[:, 2] / 2)


def _ring(o: Floats, d: Floats) -> Meeting:
    """Steps along the ray by the distance to the surface, which never jumps over it."""
    speed = np.linalg.norm(d, axis=1)
    start, end = _roots(speed**2, (o * d).sum(1), (o * o).sum(1) - 1.1)
    t = np.where(np.isfinite(start), np.maximum(start, 0.0), 0.0)
    gap = np.full(len(d), np.inf)
    for _ in range(_STEPS):
        p = o + t[:, None] * d
        gap = np.hypot(np.hypot(p[:, 0], p[:, 2]) - _RING, p[:, 1]) - _TUBE
        t = t + np.maximum(gap, 0.0) / speed
    hit = np.isfinite(start) & (gap < 0.01) & (t < end)
    p = o + t[:, None] * d
    around = np.maximum(np.hypot(p[:, 0], p[:, 2]), 1e-9)
    middle = p * np.array([1.0, 0.0, 1.0]) * (_RING / around)[:, None]
    return np.where(hit, t, np.inf), p - middle


_KINDS: dict[str, Callable[[Floats, Floats], Meeting]] = {
    "ball": _ball,
    "cube": lambda o, d: _half_spaces(o, d, _CUBE),
    "panel": lambda o, d: _half_spaces(o, d, _CUBE),
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": lambda o, d: _half_spaces(o, d, _PYRAMID),
    "ring": _ring,
}

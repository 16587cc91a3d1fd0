"""Where rays meet bodies, against a plain search along the ray for where the body begins."""

from __future__ import annotations

import numpy as np
import pytest

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import SHAPES, Solid
from open_crema.senseqa.solids import local, meet


def inside(kind: str, p: np.ndarray) -> np.ndarray:
    """Whether points [..., 3] of a body's own coordinates are inside it, by its definition."""
    x, y, z = np.moveaxis(p, -1, 0)
    radius = (1 - z) / 2
    slab = np.abs(z) <= 1
    return {
        "ball": x**2 + y**2 + z**2 <= 1,
        "cube": (np.abs(x) <= 1) & (np.abs(y) <= 1) & slab,
        "panel": (np.abs(x) <= 1) & (np.abs(y) <= 1) & slab,
        "cylinder": (x**2 + y**2 <= 1) & slab,
        "cone": (x**2 + y**2 <= radius**2) & slab,
        "pyramid": (np.abs(x) <= radius) & (np.abs(y) <= radius) & slab,
        "ring": (np.hypot(x, z) - 0.7) ** 2 + y**2 <= 0.3**2,
    }[kind]


def rays(seed: int, count: int = 400) -> tuple[Solid, np.ndarray, np.ndarray, np.ndarray]:
    draw = Draw("rays", seed)
    half = tuple(draw.uniform(0.2, 0.5) for _ in range(3))
    centre = np.array([draw.uniform(-1, 1), draw.uniform(2, 4), draw.uniform(0.2, 1.5)])
    solid = Solid("ball", (0.0, 0.0, 0.0), half, draw.uniform(0, 6.3))
    origin = np.array([0.0, 0.0, 1.5])
    targets = centre + (draw.uniforms(count, 3) - 0.5) * 1.6 * np.array(half)
    return solid, centre, origin, (targets - origin) / (targets - origin)[:, 1:2]


@pytest.mark.parametrize("kind", [*SHAPES, "panel"])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_meeting_is_where_the_body_begins(kind: str, seed: int) -> None:
    body, centre, origin, directions = rays(seed)
    solid = Solid(kind, body.centre, body.half, body.yaw)
    t, normal = meet(solid, centre, origin, directions)
    steps = np.arange(0.5, 6.0, 0.002)
    points = origin + steps[None, :, None] * directions[:, None]
    within = inside(kind, local(solid, points, centre))
    searched = np.where(within.any(axis=1), steps[within.argmax(axis=1)], np.inf)
    both = np.isfinite(t) & np.isfinite(searched)
    assert both.mean() > 0.3
    # A graze shorter than a step may be met by one and missed by the other.
    assert (np.isfinite(t) != np.isfinite(searched)).mean() < 0.02
    assert np.quantile(np.abs(t[both] - searched[both]), 0.99) < 0.01
    assert np.allclose(np.linalg.norm(normal[both], axis=1), 1)
    assert ((normal * directions).sum(1)[both] < 1e-6).all()


@pytest.mark.parametrize("kind", [*SHAPES, "panel"])
def test_normals_point_out_of_the_surface(kind: str) -> None:
    body, centre, origin, directions = rays(7)
    solid = Solid(kind, body.centre, body.half, body.yaw)
    t, normal = meet(solid, centre, origin, directions)
    hit = np.isfinite(t)
    points = origin + t[hit, None] * directions[hit]
    out, into = (points + side * 0.004 * normal[hit] for side in (1, -1))
    assert not inside(kind, local(solid, out, centre)).any()
    # On an edge a step inwards along one face's normal may leave by another face.
    assert inside(kind, local(solid, into, centre)).mean() > 0.97


@pytest.mark.parametrize("kind", [*SHAPES, "panel"])
def test_a_body_behind_or_beside_is_not_met(kind: str) -> None:
    body, centre, origin, directions = rays(3)
    solid = Solid(kind, body.centre, body.half, body.yaw)
    assert not np.isfinite(meet(solid, centre, origin, -directions)[0]).any()
    aside = directions + np.array([3.0, 0.0, 0.0])
    assert not np.isfinite(meet(solid, centre, origin, aside)[0]).any()


@pytest.mark.parametrize("kind", SHAPES)
def test_moving_away_and_growing_as_much_keeps_every_ray(kind: str) -> None:
    """What the types of depth rest on."""
    body, centre, origin, directions = rays(11)
    near = Solid(kind, body.centre, body.half, body.yaw)
    far = Solid(kind, body.centre, tuple(1.37 * h for h in body.half), body.yaw)
    t, normal = meet(near, centre, origin, directions)
    t_far, normal_far = meet(far, origin + 1.37 * (centre - origin), origin, directions)
    hit = np.isfinite(t)
    assert (hit == np.isfinite(t_far)).mean() > 0.995  # rays that only touch an edge
    hit &= np.isfinite(t_far)
    assert np.abs(t_far[hit] / t[hit] - 1.37).max() < 2e-3
    assert np.quantile(np.abs(normal_far - normal)[hit], 0.99) < 1e-3

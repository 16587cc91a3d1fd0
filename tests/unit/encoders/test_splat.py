"""Pictures of point clouds: where the cameras stand, what covers what, always the same."""

import numpy as np
import pytest

from open_crema.encoders import splat
from open_crema.encoders.splat import SIZE, look_around
from open_crema.errors import MediaError
from open_crema.media import Cloud


def ball(count=20_000, centre=(3.0, -2.0, 1.0), radius=0.5):
    points = np.random.default_rng(0).standard_normal((count, 3))
    points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
    return (points + centre).astype(np.float32)


def world(found, view):
    """Where each pixel of a view lies [SIZE, SIZE, 3]."""
    v, u = np.mgrid[:SIZE, :SIZE]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(found.intrinsics).T
    camera = rays * found.metres[view][..., None]
    return camera @ found.poses[view, :3, :3].T + found.poses[view, :3, 3]


def test_every_view_shows_the_thing_where_it_is():
    found = look_around(Cloud(ball()), 5)
    assert found.metres.shape == (5, SIZE, SIZE)
    assert found.times.shape == (5, 2)
    for view in range(5):
        at = world(found, view)
        seen = np.isfinite(at[..., 0])
        away = np.linalg.norm(at[seen] - (3, -2, 1), axis=1)
        assert np.abs(away - 0.5).max() < 0.04
        # A ball that just fits into the view shows its near half, without holes.
        assert 0.7 < seen.mean() < 0.85
        back = (at[seen] - (3, -2, 1)) @ (found.poses[view, :3, 3] - (3, -2, 1))
        assert (back < 0).mean() < 0.01


def test_the_cameras_stand_around_it_upright_and_look_down_at_it():
    found = look_around(Cloud(ball()), 4)
    offsets = found.poses[:, :3, 3] - (3, -2, 1)
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), 1.0, atol=0.02)
    np.testing.assert_allclose(offsets[:, 2], np.sin(np.radians(40)), atol=0.02)
    np.testing.assert_allclose(offsets.sum(axis=0)[:2], 0, atol=0.05)
    np.testing.assert_allclose(found.poses[:, :3, 2], -offsets, atol=0.03)
    assert (found.poses[:, 2, 1] < 0).all()  # the picture's down is down
    np.testing.assert_allclose(np.linalg.det(found.poses), 1)


def test_the_nearest_point_covers():
    lower = np.array([[x, y, 0.0] for x in range(30) for y in range(30)])
    colours = np.repeat(np.array([[0, 200, 0], [200, 0, 0]], np.uint8), 900, axis=0)
    cloud = np.concatenate([lower, lower + np.array([0, 0, 3])]).astype(np.float32)
    for order in (slice(None), slice(None, None, -1)):
        found = look_around(Cloud(cloud[order], colours[order]), 3)
        middle = found.colour[:, SIZE // 2 - 4 : SIZE // 2 + 4, SIZE // 2 - 4 : SIZE // 2 + 4]
        assert (middle == (200, 0, 0)).all()


def test_points_without_colour_are_lit_from_the_camera():
    found = look_around(Cloud(ball()), 1)
    at, eye = world(found, 0), found.poses[0, :3, 3]
    normal = (at - (3, -2, 1)) / 0.5
    ray = (eye - at) / np.linalg.norm(eye - at, axis=-1, keepdims=True)
    facing = (normal * ray).sum(axis=-1)
    grey = found.colour[0].astype(float)
    assert (grey[facing > 0.95].min(axis=-1) > 190).all()
    assert np.median(grey[(facing > 0.2) & (facing < 0.4)]) < 130
    assert (found.colour[0][~np.isfinite(facing)] == (124, 116, 104)).all()


def test_the_same_cloud_gives_the_same_pictures():
    one, two = (look_around(Cloud(ball(500)), 2) for _ in range(2))
    np.testing.assert_array_equal(one.colour, two.colour)
    np.testing.assert_array_equal(one.metres, two.metres)


def test_strays_do_not_make_it_small():
    points = np.concatenate([ball(5000), [[500.0, 0, 0], [0, 900, 0]]]).astype(np.float32)
    found = look_around(Cloud(points), 2)
    assert np.isfinite(found.metres).mean() > 0.6


def test_large_clouds_are_thinned(monkeypatch):
    points = ball(9000)
    monkeypatch.setattr(splat, "MOST_POINTS", 3000)
    thinned, third = look_around(Cloud(points), 1), look_around(Cloud(points[::3]), 1)
    np.testing.assert_array_equal(thinned.metres, third.metres)


@pytest.mark.parametrize("points", [np.zeros((1, 3)), np.ones((5, 3)), np.eye(3) * 1e-6])
def test_clouds_without_extent(points):
    found = look_around(Cloud(points.astype(np.float32)), 2)
    assert np.isfinite(found.metres).any(axis=(1, 2)).all()


def test_no_point():
    with pytest.raises(MediaError, match="no point"):
        look_around(Cloud(np.zeros((0, 3), np.float32)), 2)

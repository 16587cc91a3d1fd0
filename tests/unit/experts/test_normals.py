"""Normals of depth against scenes whose normals are known exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_crema.experts.normals import normals_from_depth
from rgbd_factory import INTRINSICS, ROOM, WALK, Plane, Sphere, pose, render


def degrees(one, other):
    return np.degrees(np.arccos(np.clip((one * other).sum(axis=-1), -1, 1)))


def made(scene, camera=WALK[0]):
    depth, truth, _ = render(scene, camera)
    return normals_from_depth(depth[None], INTRINSICS)[0], truth, depth


@settings(max_examples=25)
@given(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2), st.floats(0.5, 6))
def test_a_plane_is_exact_everywhere(x, y, offset):
    found, truth, depth = made([Plane((x, y, 1), offset)], pose())
    seen = np.isfinite(depth) & (depth < 50)
    assert found.dtype == np.float32
    assert degrees(found, truth)[seen & np.isfinite(found[..., 0])].max(initial=0) < 0.1
    if abs(x) + abs(y) < 0.8:
        assert np.isfinite(found).all()


def test_a_sphere_is_near_the_truth_and_nothing_is_known_beside_it():
    found, truth, depth = made([Sphere((0, 0, 2), 0.6)])
    assert np.isnan(found[~np.isfinite(depth)]).all()
    error = degrees(found, truth)[np.isfinite(depth)]
    assert np.nanmedian(error) < 2
    assert np.isfinite(error).mean() > 0.9


def test_a_corner_of_two_planes_is_rounded_by_the_window_alone():
    walls = [Plane((0.7, 0, 0.7), 2.0), Plane((-0.7, 0, 0.7), 2.0)]
    found, truth, _ = made(walls, pose())
    error = degrees(found, truth)
    assert error[:, :29].max() < 0.1
    assert error[:, 35:].max() < 0.1
    assert np.isfinite(found).all()


def test_nothing_is_smoothed_across_a_depth_edge():
    near = [Plane((0, 0, 1), 3.0), Sphere((0, 0, 101.5), 100)]  # both face the camera
    depth, _, _ = render(near, pose())
    depth[:, :30] = 1.0  # a board in front, parallel to the picture
    found = normals_from_depth(depth[None], INTRINSICS)[0]
    assert degrees(found, np.array([0, 0, -1.0]))[:, :30].max() < 0.1
    assert degrees(found[:, 30:], normals_from_depth(depth[None, :, 30:], shifted(30))[0]).max() < 1


def shifted(columns):
    moved = INTRINSICS.copy()
    moved[0, 2] -= columns
    return moved


def test_they_are_of_length_one_and_face_the_camera():
    found, _, _ = made(ROOM, pose(yaw=20, pitch=-10))
    v, u = np.mgrid[:48, :64]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(INTRINSICS).T
    known = np.isfinite(found[..., 0])
    np.testing.assert_allclose(np.linalg.norm(found[known], axis=-1), 1, atol=1e-5)
    assert ((found * rays).sum(axis=-1)[known] < 0).all()
    assert known.mean() > 0.95


def test_turning_the_world_with_the_camera_changes_nothing():
    """The world is not told: normals are the camera's."""
    wall, camera = Plane((0.2, 0.1, 1), 2.0), pose((1, 2, 3), yaw=50, pitch=20)
    turned = camera[:3, :3] @ np.array(wall.normal)
    moved = Plane(tuple(turned), wall.offset + float(turned @ camera[:3, 3]))
    np.testing.assert_allclose(made([wall], pose())[0], made([moved], camera)[0], atol=1e-4)


def test_the_scale_of_the_depth_does_not_matter():
    depth, _, _ = render(ROOM, WALK[2])
    one = normals_from_depth(depth[None], INTRINSICS)
    np.testing.assert_allclose(normals_from_depth(5 * depth[None], INTRINSICS), one, atol=1e-3)


def test_a_sensors_noise_costs_a_few_degrees():
    depth, truth, _ = render([ROOM[0], ROOM[1], ROOM[2]], WALK[0])
    noise = np.random.default_rng(0).standard_normal(depth.shape)
    measured = np.rint((depth + 1.4e-3 * depth**2 * noise) * 1000) / 1000
    found = normals_from_depth(measured[None], INTRINSICS)[0]
    assert np.nanmedian(degrees(found, truth)) < 4


@pytest.mark.parametrize("unknown", [np.nan, 0.0, -1.0, np.inf])
def test_what_is_unknown_stays_so(unknown):
    depth, _, _ = render([Plane((0, 0, 1), 2.0)], pose())
    depth[10:30, 10:40] = unknown
    depth[20, 20] = 2.0  # alone among unknown neighbours
    found = normals_from_depth(depth[None], INTRINSICS)[0]
    assert np.isnan(found[10:30, 10:40]).all()
    outside = np.ones(depth.shape, bool)
    outside[10:30, 10:40] = False
    assert degrees(found, np.array([0, 0, -1.0]))[outside].max() < 0.1
    nothing = normals_from_depth(np.full((2, 5, 6), unknown), INTRINSICS)
    assert np.isnan(nothing).all()
    assert nothing.shape == (2, 5, 6, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3)])
def test_pictures_smaller_than_the_window(size):
    found = normals_from_depth(np.ones((1, *size)), INTRINSICS)
    assert found.shape == (1, *size, 3)
    known = np.isfinite(found[..., 0])
    np.testing.assert_allclose(found[known].reshape(-1, 3) @ [0, 0, -1], 1, atol=1e-4)

"""Patches lie where the depth says, and a voxel's feature is the mean of what falls into it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_crema.encoders.voxels import back_project, patch_depths, voxel_means
from open_crema.errors import MediaError
from rgbd_factory import INTRINSICS, SIZE, Plane, pose, render


def plain_means(features, positions, voxel):
    cells = {}
    for feature, position in zip(features, positions, strict=True):
        cells.setdefault(tuple(int(np.floor(x / voxel)) for x in position), []).append(feature)
    least = [min(cell[axis] for cell in cells) for axis in range(3)]
    return {
        tuple(c - low for c, low in zip(cell, least, strict=True)): sum(
            np.asarray(f, np.float64) for f in found
        )
        / len(found)
        for cell, found in cells.items()
    }


@settings(max_examples=40)
@given(st.integers(1, 60), st.sampled_from([0.05, 0.1, 0.3, 2.0]), st.integers(0, 99))
def test_voxel_means_are_those_of_a_plain_loop(count, voxel, seed):
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, 5)).astype(np.float32)
    positions = random.uniform(-1, 1, (count, 3)) + random.uniform(-50, 50, 3)
    means, voxels = voxel_means(features, positions, voxel)
    expected = plain_means(features, positions, voxel)
    assert {tuple(row) for row in voxels.tolist()} == set(expected)
    for mean, cell in zip(means, voxels.tolist(), strict=True):
        np.testing.assert_allclose(mean, expected[tuple(cell)], atol=1e-6)
    assert voxels.min(axis=0).tolist() == [0, 0, 0]
    assert voxels.tolist() == sorted(voxels.tolist())


@settings(max_examples=20)
@given(st.integers(0, 99))
def test_the_order_of_the_points_does_not_matter(seed):
    random = np.random.default_rng(seed)
    features = random.standard_normal((80, 4)).astype(np.float32)
    positions = random.uniform(0, 1, (80, 3))
    order = random.permutation(80)
    means, voxels = voxel_means(features, positions, 0.3)
    again, same = voxel_means(features[order], positions[order], 0.3)
    np.testing.assert_array_equal(voxels, same)
    np.testing.assert_allclose(means, again, atol=1e-6)


def test_whole_voxels_of_shift_change_nothing():
    random = np.random.default_rng(0)
    features = random.standard_normal((80, 4)).astype(np.float32)
    positions = random.uniform(0, 1, (80, 3))
    means, voxels = voxel_means(features, positions, 0.25)
    moved, same = voxel_means(features, positions + np.array([2.5, -7, 0.25]), 0.25)
    np.testing.assert_array_equal(voxels, same)
    np.testing.assert_array_equal(means, moved)


def test_millimetres_given_as_metres_are_refused():
    with pytest.raises(MediaError, match=r"spread over 2e\+08 m"):
        voxel_means(np.zeros((2, 3), np.float32), np.array([[0.0, 0, 0], [2e8, 0, 0]]), 0.1)


def test_the_median_of_a_patch_is_a_depth_that_was_measured():
    metres = np.full((1, 4, 4), np.nan, np.float32)
    metres[0, :2, :2] = [[1, 1], [3, 3]]  # an edge runs through it
    metres[0, :2, 2:] = [[np.nan, np.nan], [2, np.nan]]  # a quarter of it is valid
    found = patch_depths(metres, (2, 2))
    assert found[0, 0].tolist() == [1, 2]
    assert np.isnan(found[0, 1]).all()
    one_less = np.full((1, 3, 3), np.nan, np.float32)
    one_less[0, 0, :2] = 5.0
    assert np.isnan(patch_depths(one_less, (1, 1))).all()  # two of nine


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (15, 20), (17, 31)])
def test_any_size_is_covered_by_the_patches(size):
    metres = np.random.default_rng(0).uniform(1, 2, (2, *size)).astype(np.float32)
    found = patch_depths(metres, (8, 8))
    assert found.shape == (2, 8, 8)
    assert np.isfinite(found).all()
    assert np.isin(found.astype(np.float32), metres).all()


@pytest.mark.parametrize("camera", [pose(), pose((0.3, -0.2, 0.5), yaw=25, pitch=-10)])
def test_patches_of_a_plane_lie_on_it(camera):
    plane = Plane((0.1, -0.2, 1), 2.0)
    depth, _, _ = render([plane], camera)
    depths = patch_depths(depth[None].astype(np.float32), (8, 8))
    at = back_project(depths, INTRINSICS, SIZE, camera[None])
    distance = (at @ np.array(plane.normal) - plane.offset) / np.linalg.norm(plane.normal)
    assert np.abs(distance).max() < 0.03  # of a patch of 8 x 6 pixels, 30 cm wide


def test_patches_are_seen_at_their_centres_again():
    camera = pose((1, 2, 3), yaw=70, pitch=20)
    at = back_project(np.full((1, 6, 8), 2.0), INTRINSICS, SIZE, camera[None])
    seen = (at[0] - camera[:3, 3]) @ camera[:3, :3] @ INTRINSICS.T
    np.testing.assert_allclose(seen[0, :, 0] / seen[0, :, 2], np.arange(8) * 8 + 3.5)
    np.testing.assert_allclose(seen[:, 0, 1] / seen[:, 0, 2], np.arange(6) * 8 + 3.5)
    np.testing.assert_allclose(seen[..., 2], 2.0)

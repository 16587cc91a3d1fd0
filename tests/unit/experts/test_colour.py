"""Colour coding: fixed scales, the same in every image."""

import matplotlib
import numpy as np
import pytest

from open_crema.experts.colour import depth_to_rgb, flow_to_rgb, normal_to_rgb, thermal_to_rgb


def one(x, y):
    return flow_to_rgb(np.array([[[x, y]]], np.float32))[0, 0].tolist()


@pytest.mark.parametrize(
    ("x", "y", "rgb"),
    [
        (0, 0, [255, 255, 255]),
        (2, 0, [255, 0, 0]),
        (-2, 0, [0, 255, 255]),
        (0, 2, [128, 255, 0]),
        (0, -2, [128, 0, 255]),
        (0.18, 0, [255, 128, 128]),  # log 10 / log 101: half
        (7, 0, [255, 0, 0]),
        (np.nan, 0, [0, 0, 0]),
        (0, np.inf, [0, 0, 0]),
    ],
)
def test_flow_wheel(x, y, rgb):
    np.testing.assert_allclose(one(x, y), rgb, atol=1)


def test_speeds_that_occur_can_be_told_apart():
    greens = [one(speed, 0)[1] for speed in (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)]
    assert np.diff(greens).max() <= -30


def test_flow_scale_is_never_taken_from_the_image():
    slow, fast = np.full((1, 4, 4, 2), 0.1), np.full((1, 4, 4, 2), 0.8)
    together = flow_to_rgb(np.concatenate([slow, fast]))
    np.testing.assert_array_equal(together[:1], flow_to_rgb(slow))
    np.testing.assert_array_equal(together[1:], flow_to_rgb(fast))
    assert (flow_to_rgb(slow) != flow_to_rgb(fast)).any()


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6), (2, 3, 5, 6), (0, 5, 6)])
def test_shapes(shape):
    flow = flow_to_rgb(np.zeros((*shape, 2)))
    depth, thermal = depth_to_rgb(np.ones(shape)), thermal_to_rgb(np.ones(shape))
    normal = normal_to_rgb(np.ones((*shape, 3)))
    for rgb in (flow, depth, thermal, normal):
        assert rgb.shape == (*shape, 3)
        assert rgb.dtype == np.uint8


def test_depth_is_the_turbo_table_over_the_logarithm():
    table = (matplotlib.colormaps["turbo"](np.arange(256))[:, :3] * 255).round()
    metres = np.array([10.0, 0.2, np.sqrt(2.0), 1.0])
    place = [0, 255, 128, round(np.log(10) / np.log(50) * 255)]
    np.testing.assert_allclose(depth_to_rgb(metres[None])[0], table[place], atol=3)


def test_depth_clips_and_marks_the_unknown():
    rgb = depth_to_rgb(np.array([[0.01, 0.2, 10.0, 80.0, np.nan, np.inf, 0.0, -1.0]]))[0]
    np.testing.assert_array_equal(rgb[0], rgb[1])
    np.testing.assert_array_equal(rgb[2], rgb[3])
    assert (rgb[4:] == 0).all()
    assert (rgb[:4].max(axis=1) > 0).all()


def test_depth_scale_is_never_taken_from_the_image():
    near, far = np.full((1, 4, 4), 0.5), np.full((1, 4, 4), 6.0)
    together = depth_to_rgb(np.concatenate([near, far]))
    np.testing.assert_array_equal(together[:1], depth_to_rgb(near))
    np.testing.assert_array_equal(together[1:], depth_to_rgb(far))


def test_equal_ratios_of_distance_are_equal_steps_of_colour():
    colours = [depth_to_rgb(np.full((1, 1), d))[0, 0].tolist() for d in (0.25, 0.5, 1, 2, 4, 8)]
    assert len({tuple(c) for c in colours}) == 6


@pytest.mark.parametrize(
    ("normal", "rgb"),
    [
        ((0, 0, -1), [128, 128, 255]),  # a wall in front
        ((0, -1, 0), [128, 255, 128]),  # a floor
        ((0, 1, 0), [128, 0, 128]),  # a ceiling
        ((1, 0, 0), [255, 128, 128]),  # what faces right
        ((-3, 0, 0), [0, 128, 128]),  # of any length
        ((np.nan, 0, -1), [0, 0, 0]),
        ((0, np.inf, 0), [0, 0, 0]),
        ((0, 0, 0), [0, 0, 0]),
    ],
)
def test_normals_have_the_usual_colours(normal, rgb):
    np.testing.assert_allclose(normal_to_rgb(np.array(normal, np.float32)), rgb, atol=1)


def test_normals_can_be_read_back_from_their_colours():
    normals = np.random.default_rng(0).standard_normal((100, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    back = normal_to_rgb(normals) / 255 * 2 - 1
    np.testing.assert_allclose(back * (1, -1, -1), normals, atol=0.005)


def test_temperatures_are_the_inferno_table_between_their_marks():
    table = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round()
    places = np.rint(np.array([0.10, 0.25, 0.55, 0.85, 1.0]) * 255).astype(int)
    rgb = thermal_to_rgb(np.array([-20.0, 15, 30, 45, 120]))
    np.testing.assert_allclose(rgb, table[places], atol=3)


def test_temperatures_clip_and_mark_the_unknown():
    rgb = thermal_to_rgb(np.array([-80.0, -20, 120, 500, np.nan, np.inf])).astype(int)
    assert rgb[0].tolist() == rgb[1].tolist()
    assert rgb[2].tolist() == rgb[3].tolist()
    assert (rgb[4:] == 0).all()
    assert rgb[:4].max(axis=1).min() > 40  # far from the colour of the unknown


def test_half_a_degree_shows_where_people_live():
    rgb = thermal_to_rgb(np.arange(15, 45, 0.5)).astype(int)
    assert np.abs(np.diff(rgb, axis=0)).sum(axis=1).min() >= 2

"""Colour coding: fixed scales, the same in every image."""

import matplotlib
import numpy as np
import pytest

from open_crema.experts.colour import depth_to_rgb, flow_to_rgb


def one(x, y, max_speed=1.0):
    return flow_to_rgb(np.array([[[x, y]]], np.float32), max_speed)[0, 0].tolist()


@pytest.mark.parametrize(
    ("x", "y", "rgb"),
    [
        (0, 0, [255, 255, 255]),
        (1, 0, [255, 0, 0]),
        (-1, 0, [0, 255, 255]),
        (0, 1, [128, 255, 0]),
        (0, -1, [128, 0, 255]),
        (0.5, 0, [255, 128, 128]),
        (7, 0, [255, 0, 0]),
        (np.nan, 0, [0, 0, 0]),
        (0, np.inf, [0, 0, 0]),
    ],
)
def test_flow_wheel(x, y, rgb):
    np.testing.assert_allclose(one(x, y), rgb, atol=1)


def test_flow_scale_is_set_by_max_speed_alone():
    slow, fast = np.full((1, 4, 4, 2), 0.1), np.full((1, 4, 4, 2), 0.8)
    together = flow_to_rgb(np.concatenate([slow, fast]))
    np.testing.assert_array_equal(together[:1], flow_to_rgb(slow))
    np.testing.assert_array_equal(together[1:], flow_to_rgb(fast))
    assert (flow_to_rgb(slow) != flow_to_rgb(fast)).any()
    np.testing.assert_array_equal(one(0.1, 0.0, 0.2), one(0.5, 0.0, 1.0))


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6), (2, 3, 5, 6), (0, 5, 6)])
def test_shapes(shape):
    flow = flow_to_rgb(np.zeros((*shape, 2)))
    depth = depth_to_rgb(np.ones(shape))
    assert flow.shape == depth.shape == (*shape, 3)
    assert flow.dtype == depth.dtype == np.uint8


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

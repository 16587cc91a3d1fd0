"""DIS flow on known motion."""

import cv2
import numpy as np
import pytest

from media_factory import write_video
from open_crema.experts.colour import flow_to_rgb
from open_crema.experts.flow import LONG_SIDE, dis_flow
from open_crema.media import Frames, read_frame_pairs


def texture(height, width):
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


def pair(dx, dy, height=120, width=160):
    """A textured scene and the same scene moved by (dx, dy) pixels: right and down."""
    margin = 40
    scene = texture(height + 2 * margin, width + 2 * margin)
    view = scene[margin : margin + height, margin : margin + width]
    moved = scene[margin - dy : margin - dy + height, margin - dx : margin - dx + width]
    times = np.array([[0.0, 1.0]])
    return Frames(view[None], times), Frames(moved[None], times)


def centre(flow):
    h, w = flow.shape[1:3]
    return np.median(flow[:, h // 4 : -h // 4, w // 4 : -w // 4], axis=(1, 2))


@pytest.mark.parametrize(("dx", "dy"), [(6, 0), (-6, 0), (0, 5), (4, -3), (0, 0)])
@pytest.mark.parametrize("gap", [0.1, 0.04])
def test_translation_is_recovered_in_widths_per_second(dx, dy, gap):
    flow = dis_flow(*pair(dx, dy), np.array([gap]))
    assert flow.shape == (1, 120, 160, 2)
    assert flow.dtype == np.float32
    truth = np.array([[dx, dy]]) / 160 / gap
    np.testing.assert_allclose(centre(flow), truth, atol=0.1 / 160 / gap)


@pytest.mark.parametrize(
    ("dx", "dy", "channels"),
    [(6, 0, "R"), (-6, 0, "GB"), (3, 5, "RG"), (-3, -5, "B")],
)
def test_hue_shows_the_direction(dx, dy, channels):
    rgb = flow_to_rgb(dis_flow(*pair(dx, dy), np.array([0.1])), fast=0.3)
    middle = np.median(rgb[0, 30:90, 40:120], axis=(0, 1))
    strong = {name for name, value in zip("RGB", middle, strict=True) if value > 150}
    assert strong == set(channels)


def test_rest_is_neutral():
    first, _ = pair(0, 0)
    rgb = flow_to_rgb(dis_flow(first, first, np.array([0.1])))
    assert (rgb == 255).all()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (1000, 300), (300, 1001)])
def test_resolution_is_bounded_and_speed_does_not_depend_on_it(height, width):
    flow = dis_flow(*pair(16, 12, height, width), np.array([0.5]))
    assert max(flow.shape[1:3]) == LONG_SIDE
    np.testing.assert_allclose(centre(flow), [[16 / width / 0.5, 12 / width / 0.5]], rtol=0.05)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (11, 11), (1, 300), (12, 400)])
def test_tiny_pictures_do_not_break_it(height, width):
    images = np.random.default_rng(0).integers(0, 255, (2, 1, height, width, 3), np.uint8)
    times = np.array([[0.0, 1.0]])
    flow = dis_flow(Frames(images[0], times), Frames(images[1], times), np.array([0.1]))
    assert np.isfinite(flow).all()


def test_on_a_video(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=20, fps=10, width=160, height=120)
    first, second, gaps = read_frame_pairs(path, 4)
    flow = dis_flow(first, second, gaps)
    assert flow.shape == (4, 120, 160, 2)
    # The square, 40 pixels wide, walks right by 2 pixels each 0.1 s; the ground stands.
    lefts = (4, 14, 24, 34)
    moving = [np.median(f[50:70, 20 + x : 30 + x, 0]) for f, x in zip(flow, lefts, strict=True)]
    np.testing.assert_allclose(moving, 2 / 160 / 0.1, rtol=0.3)
    assert abs(np.median(flow[:, :20])) < 0.005


def test_an_empty_batch():
    frames = Frames(np.zeros((0, 20, 30, 3), np.uint8), np.zeros((0, 2)))
    assert dis_flow(frames, frames, np.zeros(0)).shape == (0, 20, 30, 2)


def test_pairs_that_disagree():
    first, second = pair(1, 0)
    small = Frames(second.images[:, :50], second.times)
    with pytest.raises(ValueError, match="pairs disagree"):
        dis_flow(first, small, np.array([0.1]))
    with pytest.raises(ValueError, match="pairs disagree"):
        dis_flow(first, second, np.array([0.1, 0.1]))
    with pytest.raises(ValueError, match="gaps must be above 0"):
        dis_flow(first, second, np.array([0.0]))

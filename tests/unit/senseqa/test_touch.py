"""Tactile pictures: the same for the same draw, and textures and directions that can be told."""

import numpy as np
import pytest

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.touch import TEXTURES, tactile


def slopes(picture):
    """The slopes to the right and down [size, size] that the colours show."""
    red, green, blue = np.moveaxis(picture.astype(np.float64), -1, 0)
    return (red - (green + blue) / 2) / 1.5, (green - blue) / 3**0.5


def middle(picture):
    """The part that is in contact whatever is drawn."""
    size = len(picture)
    return picture[size // 4 : -size // 4, size // 4 : -size // 4]


def statistics(picture):
    """How steep; how much in one direction, everywhere and in places; how bumpy; how regular."""
    right, down = slopes(middle(picture))
    square = (right + 1j * down) ** 2
    power = np.abs(square).mean()
    places = square.reshape(7, 8, 7, 8).mean(axis=(1, 3))
    spectrum = sum(np.abs(np.fft.fft2(part - part.mean())) ** 2 for part in (right, down)).ravel()
    strongest = np.sort(spectrum)[::-1]
    return [
        np.log(power),
        abs(square.mean()) / power,
        np.abs(places).mean() / power,
        np.log((np.abs(square) ** 2).mean() / power**2),
        np.log(strongest[:8].sum() / spectrum.sum()),
        np.log(strongest[:60].sum() / spectrum.sum()),
    ]


@pytest.mark.parametrize("texture", [*TEXTURES, None])
def test_same_draw_gives_the_same_bytes_and_another_other_ones(texture):
    first, again, other = (tactile(texture, Draw("touch", seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("size", [56, 112, 151])
def test_shape_and_type(size):
    for texture in (*TEXTURES, None):
        picture = tactile(texture, Draw(0), size=size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8


def test_hardly_anything_is_over_or_underexposed():
    for texture in TEXTURES:
        for seed in range(5):
            picture = tactile(texture, Draw(seed))
            assert np.isin(picture, (0, 255)).mean() < 0.001
            assert 80 < picture.mean() < 160


def test_textures_can_be_told_apart():
    def examples(name):
        draws = [Draw(name, texture, i) for texture in TEXTURES for i in range(25)]
        angles = [draw.sub("angle").uniform(0, np.pi) for draw in draws]
        textures = np.repeat(TEXTURES, 25)
        pictures = map(lambda t, d, a: tactile(str(t), d, angle=a), textures, draws, angles)
        return np.array([statistics(picture) for picture in pictures]), textures

    known, textures = examples("known")
    new, truth = examples("new")
    scale = np.mean([known[textures == t].std(axis=0) for t in TEXTURES], axis=0)
    centres = np.array([known[textures == t].mean(axis=0) for t in TEXTURES]) / scale
    nearest = ((new[:, None] / scale - centres) ** 2).sum(axis=-1).argmin(axis=1)
    assert (np.array(TEXTURES)[nearest] == truth).mean() > 0.95


def test_a_contact_has_an_edge_and_no_contact_has_none():
    for seed in range(10):
        for texture, edge in (("smooth", True), (None, False)):
            right, _ = slopes(tactile(texture, Draw(seed)))
            steps = np.abs(right[:, 7:] - right[:, :-7])
            assert steps.max() > 20 if edge else steps.max() < 8


@pytest.mark.parametrize("angle", [0.0, 0.6, np.pi / 2, 2.5])
def test_ridges_run_at_their_angle_counter_clockwise(angle):
    for seed in range(10):
        right, down = slopes(middle(tactile("ridged", Draw(seed), angle=angle)))
        steepest = np.angle(((right - 1j * down) ** 2).mean()) / 2
        off = (steepest - np.pi / 2 - angle + np.pi / 2) % np.pi - np.pi / 2
        assert abs(off) < np.radians(8)


def test_ridges_across_and_up_and_down_show_in_the_pixels():
    for seed in range(20):
        for angle, axis in ((0.0, 0), (np.pi / 2, 1)):
            grey = middle(tactile("ridged", Draw(seed), angle=angle)).astype(np.float64)
            change = [np.square(np.diff(grey, axis=i)).mean() for i in (0, 1)]
            assert change[axis] > 3 * change[1 - axis]


def test_lights_shine_from_their_sides():
    """The gel is pressed in: its rim on the right faces left, to red, and below up, to green."""
    for seed in range(10):
        right, down = slopes(tactile("smooth", Draw(seed)))
        reddest, greenest = (np.argsort(slope, axis=None)[-20:] for slope in (right, down))
        assert (reddest % 112).min() > 80
        assert (greenest // 112).min() > 80


def test_a_larger_picture_shows_the_same():
    for texture in ("ridged", "dotted", "woven", "ringed"):
        small, large = (tactile(texture, Draw(3), size=size) for size in (112, 224))
        shrunk = large.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.9


def test_unknown_textures_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'furry'.*smooth, ridged, dotted, woven, rough, ringed"):
        tactile("furry", Draw(0))

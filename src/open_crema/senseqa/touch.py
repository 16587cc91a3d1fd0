"""The sense of touch of a clip: what a camera sees through a lit gel that is pressed on a texture.

As in a GelSight sensor, lights of three colours shine in from three sides, so that every colour is
a slope of the surface. Lengths here are in 112ths of the picture's width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from open_crema.senseqa.draw import Draw, Floats

TEXTURES: tuple[str, ...] = ("smooth", "ridged", "dotted", "woven", "rough", "ringed")

_WIDTH = 112.0
_GEL = np.array([120.0, 122.0, 128.0])  # grey levels where it lies flat
_LIGHTS = np.radians([180.0, 60.0, 300.0])  # red, green, blue: from where, counter-clockwise
_SHINE = 80.0  # grey levels that a slope of 1 gains or loses
_NOISE = 2.5  # grey levels, rms
_RIM = 7.0  # how wide the edge of the contact is
_DEEP = 3.0  # how far the gel is pressed in


def tactile(
    texture: str | None, draw: Draw, *, size: int = 112, angle: float = 0.0
) -> npt.NDArray[np.uint8]:
    """The gel on one of TEXTURES, or on nothing, as RGB [size, size, 3].

    Patterns repeat every 7 to 16 pixels of 112. ``angle`` in radians turns them counter-clockwise:
    ridges run across at 0, and up and down at pi / 2. Raises ValueError for an unknown texture.
    """
    if texture is not None and texture not in TEXTURES:
        raise ValueError(f"unknown texture {texture!r}, known are {', '.join(TEXTURES)}")
    place = ((np.arange(size) + 0.5) / size - 0.5) * _WIDTH
    right, down = place[None, :], place[:, None]
    if texture is None:
        height = pressed = np.zeros((size, size))
    else:
        along = np.cos(angle) * right - np.sin(angle) * down
        across = np.sin(angle) * right + np.cos(angle) * down
        relief = _RELIEFS[texture](along, across, draw.sub("relief"))
        pressed = _pressed(right, down, draw.sub("contact"))
        height = pressed * (draw.sub("depth").uniform(0.6, 1.2) * relief - _DEEP)
    return _lit(height, pressed, draw)


def _pressed(right: Floats, down: Floats, draw: Draw) -> Floats:
    """How far each place is in contact, 0 to 1: a disk with a soft edge."""
    x, y, radius = draw.uniform(-4, 4), draw.uniform(-4, 4), draw.uniform(46, 54)
    inside = np.clip((radius - np.hypot(right - x, down - y)) / _RIM, 0, 1)
    return inside * inside * (3 - 2 * inside)


def _lit(height: Floats, pressed: Floats, draw: Draw) -> npt.NDArray[np.uint8]:
    """The gel of that height [size, size] under the three lights, darker where it is pressed."""
    size = len(height)
    lamps = draw.sub("lamps")
    down, right = np.gradient(height, _WIDTH / size)
    shine = _SHINE * lamps.uniform(0.85, 1.15) / np.sqrt(1 + down * down + right * right)
    down, right = shine * down, shine * right
    gel = _GEL * (1 + 0.16 * (lamps.uniforms(3) - 0.5))
    dim = 1 - 0.12 * pressed
    noise = _NOISE * 12**0.5 * (draw.sub("sensor").uniforms(size, size) - 0.5)
    off = 0.12 * np.linspace(-1, 1, size)
    picture = np.empty((size, size, 3), np.uint8)
    for channel, (x, y) in enumerate(zip(np.cos(_LIGHTS), -np.sin(_LIGHTS), strict=True)):
        near = gel[channel] * (1 + x * off[None, :] + y * off[:, None])
        grey = near * dim + noise - x * right - y * down
        picture[..., channel] = np.rint(np.clip(grey, 0, 255))
    return picture


def _smooth(along: Floats, across: Floats, draw: Draw) -> Floats:
    """Waves much larger than any pattern, hardly to be seen."""
    first, second = draw.uniform(45, 80), draw.uniform(45, 80)
    return 0.6 * (
        np.sin(2 * np.pi * (along / first + draw.uniform()))
        + np.sin(2 * np.pi * (across / second + draw.uniform()))
    )


def _ridged(along: Floats, across: Floats, draw: Draw) -> Floats:
    period = draw.uniform(7, 16)
    bent = across + draw.uniform(0.3, 1.0) * np.sin(2 * np.pi * (along / 70 + draw.uniform()))
    return _waves(bent / period + draw.uniform(), period)


def _ringed(along: Floats, across: Floats, draw: Draw) -> Floats:
    period = draw.uniform(7, 16)
    radius = np.hypot(along - draw.uniform(-12, 12), across - draw.uniform(-12, 12))
    return _waves(radius / period + draw.uniform(), period)


def _dotted(along: Floats, across: Floats, draw: Draw) -> Floats:
    """Round bumps on a grid, each moved a little and of its own height."""
    period = draw.uniform(10, 16)
    column, row = along / period + draw.uniform(), across / period + draw.uniform()
    i, j = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    cell = (i & 31) * 32 + (j & 31)
    moves = 0.16 * (draw.uniforms(2, 32 * 32) - 0.5)
    heights = 0.8 + 0.4 * draw.uniforms(32 * 32)
    radius = draw.uniform(0.34, 0.4)
    x, y = column - i - 0.5 - moves[0][cell], row - j - 0.5 - moves[1][cell]
    bump: Floats = np.maximum(1 - (x * x + y * y) / radius**2, 0)
    return 0.7 * radius * period * heights[cell] * bump * bump


def _woven(along: Floats, across: Floats, draw: Draw) -> Floats:
    """Threads in both directions, each over and under the others in turn."""
    period = draw.uniform(9, 16)
    column, row = along / period + draw.uniform(), across / period + draw.uniform()
    c, r = np.sin(np.pi * column), np.sin(np.pi * row)
    rows = np.abs(r) + 0.5 * np.copysign(1.0, r) * c
    columns = np.abs(c) - 0.5 * np.copysign(1.0, c) * r
    return 0.35 * period * np.maximum(rows, columns)


def _rough(along: Floats, across: Floats, draw: Draw) -> Floats:
    """Noise of waves of a length of 5 to 16, the same in every direction: no angle turns it."""
    size = len(along)
    cycles = np.fft.fftfreq(size, _WIDTH / size)
    wave = np.hypot(cycles[:, None], cycles[None, : size // 2 + 1])
    band = (wave > 1 / 16) & (wave < 1 / draw.uniform(5, 7))
    spectrum = np.fft.rfft2(draw.uniforms(size, size)) * band / np.where(band, wave, 1)
    relief: Floats = np.fft.irfft2(spectrum, (size, size))
    steep = float(np.sqrt(np.mean(np.square(np.gradient(relief, _WIDTH / size)))))
    return 0.45 / steep * relief


_RELIEFS = {
    "smooth": _smooth,
    "ridged": _ridged,
    "dotted": _dotted,
    "woven": _woven,
    "rough": _rough,
    "ringed": _ringed,
}


def _waves(turns: Floats, period: float) -> Floats:
    """Rounded ridges of a slope of about 1."""
    return period / (2 * np.pi) * np.sin(2 * np.pi * turns)

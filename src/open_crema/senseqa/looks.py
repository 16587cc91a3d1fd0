"""What can be seen, heard and felt in a clip, as numbers: of the arrays that a model is given, and
never of the scene that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from open_crema.senseqa.clips import SENSES, Clip
from open_crema.senseqa.scene import COLOURS
from open_crema.senseqa.sounds import RATE

T = TypeVar("T")
Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_HUED = [name for name in COLOURS if name != "white"]
_NEAR = 0.3  # of a palette colour, both divided by their largest channel
_GREY = 0.84  # smallest over largest channel, at least, of what may be white
_FEWEST = 12  # pixels
_SKIN = (70, 57)  # green and blue, per cent of red
_BANDS, _WINDOW, _HOP = 32, 512, 256
_FLOOR = 1e-7  # power under which nothing is told apart, as the background's is
_SIDES = ("front", "left", "behind", "right")


class Look:
    """One clip. Maps are those of its first key frame.

    memo: of a group; what its clips share is looked at once.
    """

    def __init__(self, clip: Clip, memo: dict[Hashable, Any]) -> None:
        self.clip = clip
        self.question = clip.question
        self._memo = memo

    def once(self, name: Hashable, senses: Iterable[str], make: Callable[[], T]) -> T:
        """What is made of these senses alone; again only where one of them is another's."""
        key = name, *((sense, self.clip.world_of(sense)) for sense in senses)
        if key not in self._memo:
            self._memo[key] = make()
        found: T = self._memo[key]
        return found

    def map(self, sense: str) -> Array:
        """[H, W, ...] of any sense that has maps."""
        return np.asarray(self.clip.at(sense, 0), dtype=np.float32)

    def hues(self) -> tuple[npt.NDArray[np.int64], Array, Array]:
        """[H, W] which of _HUED each pixel has (-1: none), [H, W] its largest channel, and
        [H, W, 3] its channels divided by that."""
        return self.once("hues", ["video"], lambda: _hues(self.map("video")))

    def spots(self, colour: str) -> list[Mask]:
        """The connected parts of the picture that have a colour but white, the largest first."""
        at = self.hues()[0] == _HUED.index(colour)
        if at.sum() < _FEWEST:
            return []
        labels, _ = ndimage.label(at)
        sizes = np.bincount(labels.ravel())[1:]
        order = np.argsort(-sizes, kind="stable")
        return [labels == 1 + i for i in order if sizes[i] >= _FEWEST]

    def where(self, colour: str) -> Mask:
        """[H, W]: the object of that colour, empty where there is none."""

        def make() -> Mask:
            if colour == "white":
                return _white(*self.hues())
            return next(iter(self.spots(colour)), np.zeros(self.hues()[0].shape, dtype=bool))

        return self.once(("where", colour), ["video"], make)

    def things(self, count: int) -> list[Mask]:
        """The largest objects, from left to right; empty ones where fewer are seen."""
        found = sorted((self.where(c) for c in _HUED), key=lambda m: -int(m.sum()))[:count]
        if any(m.sum() < 40 for m in found):
            found[-1] = self.where("white")
        return sorted(found, key=lambda m: middle(m)[0])

    def heat(self) -> Array:
        """[H, W]: degrees Celsius above the middle one of the picture."""
        thermal = self.map("thermal")
        return np.asarray(thermal - np.median(thermal))

    def spectrum(self) -> Array:
        """[time, band] natural logarithm of the sound's power, 62.5 times a second."""
        return self.once("spectrum", ["audio"], lambda: spectrum(self.clip["audio"]["samples"]))

    def halves(self) -> tuple[Array, Array]:
        """Of the first and the second two seconds, as :func:`timbre`."""
        first, second = np.array_split(self.spectrum(), 2)
        return timbre(first), timbre(second)

    def feels(self) -> list[Array]:
        """Of the gel at every key frame, as :func:`feel`."""

        def make() -> list[Array]:
            gels = self.clip["touch"]["touch"]
            different = {gel.tobytes(): gel for gel in gels}
            felt = {held: feel(gel) for held, gel in different.items()}
            return [felt[gel.tobytes()] for gel in gels]

        return self.once("feels", ["touch"], make)

    def rooms(self) -> dict[str, Array]:
        """As :func:`rooms`."""
        points = self.clip["point"]
        return self.once("rooms", ["point"], lambda: rooms(points["xyz"], points["rgb"]))

    def louder(self) -> float:
        """Decibels by which the first half is louder than the second."""
        level = np.log(np.exp(self.spectrum()).sum(axis=1))
        half = len(level) // 2
        return float(np.percentile(level[:half], 90) - np.percentile(level[half:], 90)) * 4.343

    def touched(self, mask: Mask) -> Array:
        """[T]: how much of the finger is at or above an object at each key frame."""
        at = np.zeros_like(mask)
        (x, y), (wide, _) = middle(mask), size(mask)
        at[: int(y) + 2, max(int(x - wide / 2), 0) : int(x + wide / 2) + 1] = True
        skin = self.once("skin", ["video"], lambda: _skin(self.clip["video"]["rgb"]))
        return np.asarray(skin[:, at].sum(axis=1))

    def sounds_early(self, mask: Mask) -> float:
        """Whether the arcs beside an object are there in the first half (1) or the second (-1)."""
        frames = self.clip["video"]["rgb"].min(axis=-1).astype(np.float32)
        half = len(frames) // 2
        change = frames[:half].mean(axis=0) - frames[half:].mean(axis=0)
        beside = ndimage.binary_dilation(mask, iterations=9) & ~mask
        strong = change[beside & (np.abs(change) > 40)]
        return float(strong.sum() / max(np.abs(strong).sum(), 1.0))


def _hues(rgb: Array) -> tuple[npt.NDArray[np.int64], Array, Array]:
    smooth = ndimage.uniform_filter(rgb, (3, 3, 0))
    value = smooth.max(-1)
    chroma = smooth / np.maximum(value, 1)[..., None]
    palette = np.array([COLOURS[name] for name in _HUED], dtype=np.float32)
    palette /= palette.max(axis=1, keepdims=True)
    far = (chroma**2).sum(-1)[..., None] - 2 * chroma @ palette.T + (palette**2).sum(1)
    return np.where(far.min(-1) < _NEAR**2, far.argmin(-1), -1), value, chroma


def _white(hue: npt.NDArray[np.int64], value: Array, chroma: Array) -> Mask:
    """The part of the picture that is grey, brighter than what is around it, and compact."""
    grey = (chroma.min(-1) > _GREY) & ~ndimage.binary_dilation(hue >= 0) & (value > 105)
    rest = np.sort(np.where(hue < 0, value, 255), axis=1)
    below = (0.4 * (hue < 0).sum(axis=1, keepdims=True)).astype(int)
    usual = np.take_along_axis(rest, below, axis=1)
    best, found = 0.0, np.zeros(grey.shape, dtype=bool)
    for ratio in (1.1, 1.25, 1.4, 1.6):
        bright = ndimage.binary_opening(grey & (value > ratio * usual), np.ones((3, 3)))
        labels, _ = ndimage.label(bright)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            high, wide = rows.stop - rows.start, columns.stop - columns.start
            # A thing's size; and not the ceiling.
            if not (7 <= wide <= 48 and 7 <= high <= 60 and rows.stop >= 40):
                continue
            around = (
                slice(max(rows.start - 3, 0), rows.stop + 3),
                slice(max(columns.start - 3, 0), columns.stop + 3),
            )
            part = labels[around] == number
            ring = ndimage.binary_dilation(part, iterations=3)
            ring &= ~ndimage.binary_dilation(part) & (hue[around] < 0)
            if part.sum() < 5 * _FEWEST or ring.sum() < 5:
                continue
            contrast = value[around][part].mean() / value[around][ring].mean() - 1
            score = float(contrast * part.sum() ** 1.5 / (high * wide))
            if score > best:
                best, found = score, labels == number
    return found


def _skin(rgb: Array) -> Array:
    """[T, H, W] 0 or 1: what looks like the finger, less the part of the time that it is there."""
    red, green, blue = np.moveaxis(rgb.astype(np.int16), -1, 0)
    seen = red > 100
    for channel, part in zip((green, blue), _SKIN, strict=True):
        seen &= np.abs(100 * channel - part * red) < 10 * red
    return np.asarray(seen - seen.mean(axis=0))


def middle(mask: Mask) -> tuple[float, float]:
    """x and y of a region, in pixels; (0, 0) of an empty one."""
    rows, columns = np.nonzero(mask)
    return (float(columns.mean()), float(rows.mean())) if len(rows) else (0.0, 0.0)


def size(mask: Mask) -> tuple[int, int]:
    """Width and height of a region, in pixels."""
    rows, columns = np.nonzero(mask)
    return (int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1) if len(rows) else (0, 0)


def pooled(values: Array, mask: Mask) -> Array:
    """[channels]: the middle value of a map in a region, but for its outline; 0 of nothing."""
    inner = ndimage.binary_erosion(mask)
    at = inner if inner.sum() >= _FEWEST else mask
    values = values.reshape(*mask.shape, -1)
    return np.median(values[at], axis=0) if at.any() else np.zeros(values.shape[-1])


def shape(look: Look, mask: Mask) -> Array:
    """[85]: outline and shades of an object, whatever its size."""
    (wide, high), rows = size(mask), np.nonzero(mask.any(axis=1))[0]
    columns = np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return np.zeros(85)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    grey = look.map("video").mean(-1)
    level = grey[mask].mean()
    grid = 6 / np.array([high, wide])
    part = mask[box].astype(np.float32)
    shades = np.where(mask, grey / level - 1, 0)[box]
    return np.concatenate(
        [
            [wide / high, part.mean(), wide, high],
            ndimage.zoom(part, grid, order=1).ravel()[:36],
            ndimage.zoom(shades, grid, order=1).ravel()[:36],
            part.sum(axis=1)[np.linspace(0, high - 1, 9).astype(int)] / wide,
        ]
    )


@lru_cache(maxsize=1)
def _bank() -> Array:
    """[band, bin]: triangles evenly spaced on the mel scale, from 60 to 7500 Hz."""
    edges = 700 * (np.exp(np.linspace(np.log1p(60 / 700), np.log1p(7500 / 700), _BANDS + 2)) - 1)
    hertz = np.arange(_WINDOW // 2 + 1) * RATE / _WINDOW
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    # Narrow bands would fall between two bins.
    return np.asarray(np.maximum(np.minimum(rise, fall), 0) + 1e-3 * ((rise > -1) & (fall > -1)))


def powers(samples: Array, window: int, hop: int) -> Array:
    """[time, bin] of a Hann window's spectrum."""
    parts = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    return np.abs(np.fft.rfft(parts * np.hanning(window), axis=1)) ** 2 / window


def spectrum(samples: Array) -> Array:
    """[time, band] natural logarithm of power."""
    return np.log(powers(samples, _WINDOW, _HOP) @ _bank().T + _FLOOR)


def timbre(part: Array) -> Array:
    """[2 * band]: mean and spread of the loud times of a spectrum [time, band], of any level."""
    level = np.log(np.exp(part).sum(axis=1))
    loud = part[level > level.max() - 3]
    loud = loud - np.log(np.exp(loud).sum(axis=1))[:, None]
    return np.concatenate([loud.mean(axis=0), part[level > level.max() - 5].std(axis=0)])


def tunes(samples: Array) -> Array:
    """[33]: how alike one note's spectrum is to the one before moved by -16 to 16 24ths of an
    octave, in the mean over the notes of a clip."""
    power = powers(samples, 2048, 256)
    level = np.log(power.sum(axis=1) + _FLOOR)
    labels, count = ndimage.label(level > level.max() - 3.5)
    hertz = 120 * 2 ** (np.arange(24 * 5) / 24)
    bins = hertz * 2048 / RATE
    notes = []
    for i in range(1, count + 1):
        at = labels == i
        if at.sum() >= 4:
            heard = np.log(power[at].mean(axis=0) + _FLOOR)
            heard = np.interp(bins, np.arange(len(heard)), heard)
            notes.append((heard - heard.mean()) / (heard.std() + 1e-6))
    lags, found = range(-16, 17), np.zeros(33)
    for before, after in pairwise(notes):
        inner = before[16:-16]
        found += [float(inner @ after[16 + lag : len(after) - 16 + lag]) for lag in lags]
    return found / max(len(notes) - 1, 1) / len(hertz)


def feel(gel: Array) -> Array:
    """[22] of one picture of the gel [H, W, 3]: how its slopes repeat, and in which directions.

    The last 8 tell directions, from across (ridges that run so) counter-clockwise.
    """
    red, green, blue = np.moveaxis(gel.astype(np.float32), -1, 0)
    slopes = np.stack([(green + blue) / 2 - red, (green - blue) * 0.87])[:, 16:-16, 16:-16]
    slopes -= ndimage.uniform_filter(slopes, (0, 31, 31))
    side = slopes.shape[1]
    window = np.hanning(side)
    power = (np.abs(np.fft.fft2(slopes * window * window[:, None])) ** 2).sum(axis=0)
    y, x = np.meshgrid(*2 * [np.fft.fftfreq(side)], indexing="ij")
    turns = np.hypot(x, y)
    ring = (turns > 1 / 20) & (turns < 1 / 3)
    share = np.where(ring, power, 0) / power[ring].sum()
    radial = np.histogram(turns, bins=1 / np.array([20, 14, 10, 7.5, 5.5, 3]), weights=share)[0]
    ways = np.floor(np.arctan2(-y, x) / np.pi * 8 + 4.5).astype(int) % 8
    around = np.bincount(ways.ravel(), weights=share.ravel(), minlength=8)
    place = np.arange(side) - side / 2
    out = np.hypot(place[None, :], place[:, None]) + 1
    outwards = (slopes[0] * place[None, :] + slopes[1] * place[:, None]) / out
    across = (slopes[0] * place[:, None] - slopes[1] * place[None, :]) / out
    top = np.sort(share.ravel())[::-1]
    energy = slopes.var()
    features = [
        np.log(energy),
        np.log((outwards**2).mean() / (across**2).mean()),
        *np.log(np.cumsum(top)[[1, 7, 31]] + 1e-6),
        (np.abs(slopes) ** 4).mean() / energy**2,
        np.sort(around)[-1],
        np.sort(around)[-2],
        -float(np.sum(around * np.log(around + 1e-9))),
    ]
    return np.concatenate([features, radial, around])


def rooms(xyz: Array, rgb: Array) -> dict[str, Array]:
    """What stands on each side of the camera, [30]: how many points, heights, extents, colours."""
    xyz, shade = xyz.astype(np.float64), rgb.astype(np.float64)
    x, y, z = xyz.T
    wall = (x < x.min() + 0.05) | (x > x.max() - 0.05) | (y < y.min() + 0.05) | (y > y.max() - 0.05)
    free = (z > 0.04) & ~wall
    steep = np.abs(y) > 1.05 * np.abs(x)
    sides = {"front": steep & (y > 0), "behind": steep & (y < 0)}
    sides |= {"left": ~steep & (x < 0), "right": ~steep & (x > 0)}
    return {side: _piece(xyz[free & sides[side]], shade[free & sides[side]]) for side in _SIDES}


def _piece(xyz: Array, rgb: Array) -> Array:
    if len(xyz) < _FEWEST:
        return np.zeros(30)
    heights = np.histogram(xyz[:, 2], bins=12, range=(0.0, 2.1))[0] / len(xyz)
    extents = np.sort(np.ptp(np.percentile(xyz[:, :2], [2, 98], axis=0), axis=0))
    palette = np.array(list(COLOURS.values())) * 255
    near = ((rgb[:, None] - palette) ** 2).sum(-1).argmin(axis=1)
    colours = np.bincount(near, minlength=len(palette)) / len(rgb)
    low, top = np.percentile(xyz[:, 2], [10, 98])
    spread = xyz[xyz[:, 2] > 0.8 * top, :2].std(axis=0).sum() if top > 0 else 0.0
    rest = [np.log(len(xyz)), low, top, spread, len(xyz) / 4096]
    return np.concatenate([rest, extents, heights, colours, rgb.mean(axis=0) / 255])


def overview(look: Look, senses: Sequence[str] = SENSES) -> Array:
    """[n]: coarse features of whole clips in these senses."""
    parts: list[Array] = []
    for sense in senses:
        if sense == "audio":
            parts.append(look.spectrum()[:240].reshape(12, 20, 16, 2).mean(axis=(1, 3)))
        elif sense == "point":
            parts += look.rooms().values()
        elif sense == "touch":
            parts += look.feels()
        else:
            last = look.clip.frames - 1
            ends = np.stack([look.clip.at(sense, frame) for frame in (0, last)]).astype(np.float32)
            blocks = ends.reshape(2, 7, 16, 7, 16, -1).mean(axis=(2, 4))
            parts += [blocks[0], (blocks[1] - blocks[0]).mean(axis=-1)]
    return np.concatenate([np.ravel(part) for part in parts])


def about(look: Look, mask: Mask, senses: Sequence[str]) -> Array:
    """[n]: an object in these senses, its place and its looks."""
    parts = [np.array([*middle(mask), *size(mask), mask.sum()], dtype=np.float64)]
    for sense in senses:
        if sense in ("video", "flow", "depth", "normal", "thermal"):
            parts.append(pooled(look.map(sense), mask))
    if "video" in senses:
        parts += [look.touched(mask), np.array([look.sounds_early(mask)])]
    return np.concatenate(parts)

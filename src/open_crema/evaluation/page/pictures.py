"""What each kind of media looks like: pictures and players as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from open_crema.data.sampler import choose_frames
from open_crema.encoders.splat import look_around
from open_crema.errors import MediaError
from open_crema.media import Audio, Cloud, Frames, Rgbd
from open_crema.media.embed import mp3, webp

MOST_FRAMES = 6  # shown of a sense; more would be too small to see
PLAYED = 30.0  # seconds
_VIEWS = 3  # of a point cloud
_WINDOW = 512  # samples of a spectrum
_BANDS, _LOWEST = 96, 60.0  # of a spectrogram, Hz
_RANGE = 70.0  # dB, from the loudest down to black
_WIDE = 480  # pixels of a spectrogram


@dataclass(frozen=True)
class Picture:
    """uri: what an <img> shows. alt: what it is, for who does not see it. caption: a few words.
    frame: which of the frames that the model was given it is; None for what is no frame."""

    uri: str
    alt: str
    caption: str
    width: int
    height: int
    frame: int | None = None


@dataclass(frozen=True)
class Drawn:
    """sound: what an <audio> plays. note: what is said below, or instead."""

    pictures: tuple[Picture, ...] = ()
    sound: str | None = None
    note: str = ""


def draw(media: Any, sense: str, frames: int) -> Drawn:
    """What a sense's reader gave. frames: how many of them the model is given.

    Raises MediaError where it cannot be drawn.
    """
    if isinstance(media, Frames):
        return _frames(media, sense, frames)
    if isinstance(media, Audio):
        return _sound(media)
    if isinstance(media, Cloud):
        return _cloud(media, sense)
    if isinstance(media, Rgbd):
        return _frames(Frames(media.colour, media.times), sense, frames)
    return Drawn(note="Given as features that were made before, or as data without a picture.")


def thin(count: int) -> list[int]:
    """Evenly spread places of at most MOST_FRAMES among so many."""
    shown = min(count, MOST_FRAMES)
    return [(2 * i + 1) * count // (2 * shown) for i in range(shown)]


def _frames(media: Frames, sense: str, frames: int) -> Drawn:
    stored = len(media.images)
    given = choose_frames(stored, frames, training=False, seed=0, epoch=0, sample_id="")
    shown = thin(len(given))
    pictures = []
    for frame in shown:
        start, end = media.times[given[frame]].tolist()
        when = f"{(start + end) / 2:.1f} s" if end > start else ""
        alt = f"{sense}, frame {frame + 1} of {len(given)}" + (f", at {when}" if when else "")
        pictures.append(_picture(media.images[given[frame]], alt, when, frame))
    note = f"{len(shown)} of the {len(given)} frames" if len(shown) < len(given) else ""
    return Drawn(tuple(pictures), note=note)


def _sound(media: Audio) -> Drawn:
    seconds = len(media.samples) / media.rate
    alt = f"spectrogram of {seconds:.1f} seconds of sound, low notes at the bottom"
    picture = _picture(spectrogram(media), alt, f"{seconds:.1f} s", None, most=_WIDE)
    note = f"the first {PLAYED:.0f} s can be played" if seconds > PLAYED else ""
    try:
        return Drawn((picture,), _uri("audio/mpeg", mp3(media, seconds=PLAYED)), note)
    except MediaError as error:
        return Drawn((picture,), note=f"no player: {error}")


def _cloud(media: Cloud, sense: str) -> Drawn:
    views = look_around(media, _VIEWS).colour
    note = f"{len(media.xyz):,} points, seen from {_VIEWS} sides"
    return Drawn(
        tuple(
            _picture(view, f"{sense}: the point cloud from side {i + 1} of {_VIEWS}", "", None)
            for i, view in enumerate(views)
        ),
        note=note,
    )


def spectrogram(media: Audio) -> npt.NDArray[np.uint8]:
    """uint8 [_BANDS, W, 3]: loudness by time and pitch, in decibels below the loudest, black to
    yellow; pitch is spaced as the ear has it (mel)."""
    samples = np.pad(media.samples.astype(np.float32), (0, max(0, _WINDOW - len(media.samples))))
    starts = np.linspace(0, len(samples) - _WINDOW, min(_WIDE, 1 + len(samples) // 64)).astype(int)
    windows = samples[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2  # [W, bins]
    bins = _hertz(np.linspace(_mel(_LOWEST), _mel(media.rate / 2), _BANDS)) * _WINDOW / media.rate
    low = np.clip(bins.astype(int), 0, power.shape[1] - 2)
    part = np.clip(bins - low, 0, 1)
    bands = power[:, low] * (1 - part) + power[:, low + 1] * part
    decibels = 10 * np.log10(bands / max(float(bands.max()), 1e-12) + 1e-12)
    place = np.clip(1 + decibels / _RANGE, 0, 1).T[::-1]  # high notes on top
    colours = colormaps["magma"](place)[..., :3]
    return np.asarray(np.rint(colours * 255), dtype=np.uint8)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(700 * (10 ** (mel / 2595) - 1), dtype=np.float64)


def _picture(
    image: npt.NDArray[np.uint8], alt: str, caption: str, frame: int | None, most: int = 224
) -> Picture:
    height, width = image.shape[:2]
    return Picture(_uri("image/webp", webp(image, most=most)), alt, caption, width, height, frame)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def shown_of(values: Sequence[float]) -> list[float]:
    """Those of a figure a frame whose frames are shown."""
    return [values[i] for i in thin(len(values))]

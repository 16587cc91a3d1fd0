"""The sounds of a clip: notes of six voices, synthesised, over a quiet background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from open_crema.senseqa.draw import Draw, Floats

RATE = 16_000  # samples per second
VOICES: tuple[str, ...] = ("harp", "organ", "bell", "flute", "drum", "trumpet")

_RELEASE = 0.06  # seconds in which a note dies away after its end
_LOUDEST = 0.25  # seconds over which loudness is measured, about as long as hearing sums it up
_TOGETHER = 6.0  # gains that fit at the same time
_CREST = 5.0  # peak of a note over its loudness, at most
_LEVEL = 0.97 / (_TOGETHER * _CREST)  # rms of a note of gain 1, -30 dB of full scale
_BACKGROUND = 10 ** (-60 / 20)  # rms
_SMOOTH = 16  # samples over which the background is a running mean, so that it does not hiss
_LOWEST_PITCH, _HIGHEST_PITCH = 20.0, 4000.0  # Hz
_HIGHEST = 7000.0  # Hz; partials above are left out: they would fold back at RATE / 2


@dataclass(frozen=True)
class Note:
    """voice: one of VOICES; onset, seconds: when it starts and for how long; pitch: in Hz.

    It dies away within 0.06 s after its end. gain 1 is the same loudness in every voice: that rms
    over the loudest 0.25 s. A drum follows the pitch only a little. Raises ValueError for an
    unknown voice, a negative onset or gain, no seconds, and a pitch outside of 20 to 4000 Hz.
    """

    voice: str
    onset: float
    seconds: float
    pitch: float
    gain: float

    def __post_init__(self) -> None:
        if self.voice not in VOICES:
            raise ValueError(f"unknown voice {self.voice!r}, known are {', '.join(VOICES)}")
        if self.onset < 0 or self.gain < 0 or self.seconds <= 0:
            raise ValueError(f"onset and gain must be at least 0, seconds above 0: {self}")
        if not _LOWEST_PITCH <= self.pitch <= _HIGHEST_PITCH:
            raise ValueError(
                f"pitch must be {_LOWEST_PITCH:g} to {_HIGHEST_PITCH:g} Hz, got {self.pitch:g}"
            )


def mix(notes: Sequence[Note], seconds: float, draw: Draw) -> npt.NDArray[np.float32]:
    """The sound of a clip: [round(seconds * RATE)] in [-1, 1]; what lies beyond is cut.

    Background noise at -60 dB of full scale is always there. The scale is fixed: gain 1 is -30 dB,
    so that gains of up to 6 in all fit at the same time; only more than that is ever clipped.
    """
    length = round(seconds * RATE)
    steps = np.cumsum(draw.sub("background").uniforms(length + _SMOOTH) - 0.5)
    sound = _BACKGROUND * (12 / _SMOOTH) ** 0.5 * (steps[_SMOOTH:] - steps[:-_SMOOTH])
    for place, note in enumerate(notes):
        start = round(note.onset * RATE)
        samples = _play(note, draw.sub("note", place))[: max(0, length - start)]
        sound[start : start + len(samples)] += _LEVEL * note.gain * samples
    return np.asarray(np.clip(sound, -1.0, 1.0), dtype=np.float32)


def _play(note: Note, draw: Draw) -> Floats:
    """A note with its release, of loudness 1 and a peak of at most _CREST."""
    released = round(note.seconds * RATE)
    length = released + round(_RELEASE * RATE)
    sound = _SYNTHESES[note.voice](note.pitch, length, draw)
    sound[released:] *= _falling(length - released)
    energy = np.concatenate([[0.0], np.cumsum(sound**2)])
    window = min(length, round(_LOUDEST * RATE))
    rms = float(np.sqrt((energy[window:] - energy[:-window]).max() / window))
    return sound / max(rms, float(np.abs(sound).max()) / _CREST)


def _harp(pitch: float, length: int, draw: Draw) -> Floats:
    """A plucked string: harmonics with gaps from where it is plucked, the high ones soon gone."""
    harmonic = np.arange(1, 25)
    amplitude = np.abs(np.sin(np.pi * harmonic * draw.uniform(0.2, 0.3))) / harmonic
    damping = 4.0 + 1.6 * (harmonic - 1) * (pitch / 440) ** 0.5
    stretched = harmonic * np.sqrt(1 + 2e-4 * harmonic**2)
    return _ring(pitch * stretched, amplitude, damping, draw, length) * _rising(0.002, length)


def _organ(pitch: float, length: int, draw: Draw) -> Floats:
    """Ranks of pipes an octave below to three above, each with a slightly mistuned twin."""
    ratio = np.array([0.5, 1, 1.5, 2, 3, 4, 5, 6, 8])
    amplitude = np.array([0.6, 1, 0.5, 0.7, 0.45, 0.5, 0.2, 0.3, 0.35])
    twin = 1 + 1.5e-3 * draw.uniform(0.7, 1.3)
    ranks = pitch * np.concatenate([ratio, ratio * twin])
    loud = np.concatenate([amplitude, 0.5 * amplitude])
    return _ring(ranks, loud, np.zeros(len(ranks)), draw, length) * _rising(0.04, length)


def _bell(pitch: float, length: int, draw: Draw) -> Floats:
    """Struck metal, an octave up: partials that are no harmonics, of which the low ones ring on."""
    ratio = np.array([0.5, 1.0, 1.19, 1.56, 2.0, 2.51, 2.66, 3.01, 4.17, 5.43, 6.79, 8.21])
    amplitude = np.array([0.2, 0.6, 0.4, 0.2, 1.0, 0.4, 0.4, 0.6, 0.5, 0.4, 0.3, 0.2])
    ratio = ratio * (1 + 0.01 * (draw.uniforms(len(ratio)) - 0.5))
    damping = 1.0 + 0.8 * ratio
    return _ring(2 * pitch * ratio, amplitude, damping, draw, length) * _rising(0.001, length)


def _flute(pitch: float, length: int, draw: Draw) -> Floats:
    """Nearly a sine, with vibrato in pitch and strength, over the noise of the breath."""
    vibrato = _vibrato(draw, length, 5.0)
    tone = _harmonics(pitch * (1 + 0.006 * vibrato), np.array([1.0, 0.15, 0.05]), 1 + 0.2 * vibrato)
    breath = _noise(draw, length, 800.0, 5000.0)
    return (tone + 0.12 * breath) * _rising(0.07, length)


def _drum(pitch: float, length: int, draw: Draw) -> Floats:
    """A skin whose tone falls by a third as it dies, and the noise of the stroke."""
    time = np.arange(length) / RATE
    body = (80 + pitch / 5) * (1 + 0.5 * np.exp(-time / 0.03))
    skin = _harmonics(body, np.array([1.0])) * np.exp(-time / 0.2)
    stroke = _noise(draw, length, 200.0, 6000.0) * np.exp(-time / 0.06)
    return (skin + 0.45 * stroke) * _rising(0.004, length)


def _trumpet(pitch: float, length: int, draw: Draw) -> Floats:
    """Many strong harmonics, which swell one after the other; the pitch slides in from below."""
    time = np.arange(length) / RATE
    swell: Floats = 1 - np.exp(-time / 0.05)
    bent = pitch * (1 - 0.04 * np.exp(-time / 0.03) + 0.004 * _vibrato(draw, length, 5.5))
    hertz = pitch * np.arange(1, min(24, int(_HIGHEST / pitch)) + 1)
    loud = 1 / (1 + (hertz / 2500) ** 2) * (0.25 + np.exp(-(((hertz - 1300) / 900) ** 2)))
    breath: Floats = 0.02 * np.sqrt((loud**2).sum()) * _noise(draw, length, 500.0, 6000.0)
    tone = _harmonics(bent, loud, 0.4 + 0.6 * swell) + breath
    return tone * _rising(0.02, length) * swell


_SYNTHESES = {
    "harp": _harp,
    "organ": _organ,
    "bell": _bell,
    "flute": _flute,
    "drum": _drum,
    "trumpet": _trumpet,
}


def _ring(hertz: Floats, amplitude: Floats, damping: Floats, draw: Draw, length: int) -> Floats:
    """Sum of damped sines of drawn phases, [length]; the rest [partials], damping per second.

    A power z ** (128 r + f) is z ** 128r times z ** f, so only few exponentials are computed.
    """
    heard = hertz < _HIGHEST
    start = amplitude * np.exp(2j * np.pi * draw.uniforms(len(hertz)))
    step = ((2j * np.pi * hertz - damping) / RATE)[heard, None]
    fine = np.exp(step * np.arange(128))
    coarse = np.exp(step * 128 * np.arange(-(-length // 128))) * start[heard, None]
    waves: Floats = np.einsum(  # the real part of the product, without a BLAS, which may differ
        "kr,kf->rf",
        np.concatenate([coarse.real, -coarse.imag]),
        np.concatenate([fine.real, fine.imag]),
    )
    return waves.reshape(-1)[:length]


def _harmonics(hertz: Floats, strengths: Floats, step: Floats | float = 1.0) -> Floats:
    """A tone of changing frequency [n] of harmonics of the strengths [k] times step ** k.

    ``step`` [n] is how bright the tone is at each time. Clenshaw's way of summing: sin((k + 1) x)
    is 2 cos(x) sin(k x) - sin((k - 1) x).
    """
    angle = 2 * np.pi / RATE * np.cumsum(hertz)
    twice, square = 2 * step * np.cos(angle), np.square(step)
    total, above = np.zeros(len(hertz)), np.zeros(len(hertz))
    for strength in strengths[::-1]:
        total, above = strength + twice * total - square * above, total
    return total * np.sin(angle) * step


def _vibrato(draw: Draw, length: int, hertz: float) -> Floats:
    """[length] in [-1, 1]: a slow wave, which sets in within the first 0.2 s."""
    time = np.arange(length) / RATE
    wave = np.sin(2 * np.pi * (hertz * draw.uniform(0.9, 1.1) * time + draw.uniform()))
    return wave * np.minimum(time / 0.2, 1)


def _noise(draw: Draw, length: int, low: float, high: float) -> Floats:
    """Noise between two frequencies, falling by 3 dB an octave, [length], of rms 1."""
    whole = 1 << (length - 1).bit_length()
    hertz = np.arange(whole // 2 + 1) * RATE / whole
    band = (hertz >= low) & (hertz <= high)
    spectrum = np.zeros(len(hertz), np.complex128)
    phases = np.exp(2j * np.pi * draw.uniforms(int(band.sum())))
    spectrum[band] = phases / np.sqrt(hertz[band])
    noise: Floats = np.fft.irfft(spectrum, whole)
    return noise[:length] / float(np.sqrt(np.mean(noise**2)))


def _rising(seconds: float, length: int) -> Floats:
    """From 0 to 1 in that time, and 1 from there on, [length]."""
    rise = np.ones(length)
    steps = np.arange(min(length, round(seconds * RATE)))
    rise[: len(steps)] = np.sin(steps / (seconds * RATE) * np.pi / 2) ** 2
    return rise


def _falling(length: int) -> Floats:
    """From 1 to 0, [length]."""
    return np.cos(np.arange(length) / length * np.pi / 2) ** 2

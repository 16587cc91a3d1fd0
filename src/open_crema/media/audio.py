"""Sound: a sound file, or the sound track of a video, as mono samples at one rate."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer

from open_crema.errors import MediaError, SenseAbsent
from open_crema.media.container import (
    check_decoder,
    check_whole,
    declared_seconds,
    decoded,
    moving_pictures,
    opened,
)
from open_crema.media.source import DEFAULT_LIMITS, Limits, PathLike, locate

Samples = npt.NDArray[np.float32]

MUTE = 1e-4  # of full scale; below it a track holds only the noise of its codec
_HOLE = 0.1  # seconds; shorter jumps of the time stamps are rounding


@dataclass(frozen=True)
class Audio:
    """samples: float32 [n], mono, in [-1, 1]; rate: samples per second; start: seconds.

    start: where the sound begins on the video's time line, whose zero is the first picture
    (negative when sound comes first); 0 for a sound file.
    """

    samples: Samples
    rate: int
    start: float = 0.0


def read_audio(path: PathLike, *, rate: int = 16000, limits: Limits = DEFAULT_LIMITS) -> Audio:
    """The first sound track: the mean of its channels, resampled.

    In a video, holes in the track are filled with silence, so that it stays in step.

    Raises SenseAbsent("audio") when there is no sound: no track, no samples, or a mute one;
    MediaError when the file is unusable or over a limit.
    """
    if rate < 1:
        raise ValueError(f"rate must be at least 1 sample per second, got {rate}")
    path, kind = locate(path, limits)
    if kind != "container":
        raise SenseAbsent("audio", f"{path} holds no sound: it is not a video or sound file")
    with opened(path) as container:
        if not container.streams.audio:
            raise SenseAbsent("audio", f"{path} has no sound track")
        zero = _first_picture(container)
        begin, samples = _read_track(path, container, rate, limits, in_step=zero is not None)
    if not len(samples):
        raise SenseAbsent("audio", f"{path} has a sound track without samples")
    if not np.isfinite(samples).all():
        raise MediaError(f"{path}: its sound holds values that are not numbers: export it again")
    peak = float(np.abs(samples).max())
    if peak < MUTE:
        raise SenseAbsent("audio", f"{path} has a mute sound track (peak {peak:.0e} of full scale)")
    return Audio(np.clip(samples, -1.0, 1.0), rate, 0.0 if zero is None else begin - zero)


def _first_picture(container: InputContainer) -> float | None:
    stream = moving_pictures(container)
    if stream is None or stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def _read_track(
    path: Path, container: InputContainer, rate: int, limits: Limits, *, in_step: bool
) -> tuple[float, Samples]:
    """The time stamp of the first sample, and the track from there on at `rate`.

    in_step: whether there are pictures to stay in step with, so that holes are filled. A sound file
    is its samples in a row; time stamps of Ogg files jump where nothing is missing.
    """
    stream = container.streams.audio[0]
    check_decoder(path, stream)
    pieces: list[Samples] = []
    resampler, setup = AudioResampler(), None
    begin: float | None = None
    position = 0.0  # seconds on the container's time line: where the next frame should start
    for frame in decoded(path, container, stream):
        time = position if frame.time is None else frame.time
        if begin is None:
            begin = position = time
        hole = in_step and time - position > _HOLE
        end = (time if hole else position) + frame.samples / frame.sample_rate
        limits.check_seconds(path, end - begin)
        if hole or setup != (frame.format.name, frame.layout.name, frame.sample_rate):
            pieces.append(_mono(resampler.resample(None)))
            resampler = AudioResampler(format="flt", layout=frame.layout, rate=rate)
            setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if hole:
            missing = round((time - begin) * rate) - sum(map(len, pieces))
            pieces.append(np.zeros(max(0, missing), np.float32))
        pieces.append(_mono(resampler.resample(frame)))
        position = end
    pieces.append(_mono(resampler.resample(None)))
    check_whole(path, position, declared_seconds(container, stream))
    return begin or 0.0, np.concatenate(pieces)


def _mono(frames: list[AudioFrame]) -> Samples:
    # Packed samples: PyAV reads past the end of a planar frame of eight channels or more.
    parts = [f.to_ndarray().reshape(-1, f.layout.nb_channels).mean(axis=1) for f in frames]
    return np.concatenate([np.zeros(0, np.float32), *parts], dtype=np.float32)

"""Small real media files, made on the spot, for the tests.

The extension chooses container and codecs. Pictures are functions of the frame's number, so that a
test can tell which frame it got back: `grey_level` draws it as a brightness that survives lossy
codecs (`frame_number` reads it back), `moving_square` as a textured square that walks to the right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

Picture = Callable[[int, int, int], np.ndarray]
Sound = Literal["tone", "mute"] | np.ndarray

_CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "flac"),
    ".webm": ("libvpx", "libopus"),
    ".avi": ("mpeg4", "pcm_s16le"),
    ".mpg": ("mpeg1video", "mp2"),
    ".ts": ("libx264", "aac"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".ogg": (None, "libopus"),
    ".mp3": (None, "libmp3lame"),
    ".m4a": (None, "aac"),
}
LEVEL_STEP = 8
LEVELS = 28  # different brightnesses, from 16 to 232


def grey_level(number: int, width: int, height: int) -> np.ndarray:
    """A plain grey picture whose level is the frame's number (mod LEVELS)."""
    return np.full((height, width, 3), 16 + LEVEL_STEP * (number % LEVELS), np.uint8)


def frame_number(image: np.ndarray) -> int:
    """The number (mod LEVELS) of the frame that `grey_level` drew."""
    return round((float(image.mean()) - 16) / LEVEL_STEP)


def moving_square(number: int, width: int, height: int) -> np.ndarray:
    """A textured square on a textured ground; it moves by 2 pixels a frame to the right."""
    ground = np.random.default_rng(0).integers(60, 120, (height, width, 3), np.uint8)
    side = max(4, height // 3)
    square = np.random.default_rng(1).integers(120, 255, (side, side, 3), np.uint8)
    left = (2 * number) % max(1, width - side)
    top = (height - side) // 2
    ground[top : top + side, left : left + side] = square
    return ground


def write_video(
    path: Path,
    *,
    frames: int = 20,
    fps: int = 10,
    width: int = 64,
    height: int = 48,
    picture: Picture = moving_square,
    sound: Sound | None = None,
    sound_start: float = 0.0,
    sound_rate: int = 48000,
    channels: int = 1,
    times: Sequence[float] | None = None,
    codec: str | None = None,
    pix_fmt: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Writes a video and returns its path.

    sound: None (no track), "tone" (440 Hz), "mute", or samples [n] at `sound_rate`; as long as the
    pictures, from `sound_start` seconds. times: when each frame appears (seconds, multiples of
    1 ms) instead of a constant `fps`.
    """
    video_codec, audio_codec = _CODECS[path.suffix]
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec or video_codec, rate=fps, options=codec_options or {})
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        track = None
        if sound is not None:
            layout = "mono" if channels == 1 else "stereo"
            track = container.add_stream(audio_codec, rate=sound_rate, layout=layout)
        for number in range(frames):
            image = picture(number, width, height)
            frame = av.VideoFrame.from_ndarray(
                image, format="gray16le" if image.ndim == 2 else "rgb24"
            )
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None:
            seconds = frames / fps - sound_start
            samples = (
                sound if isinstance(sound, np.ndarray) else _samples(sound, seconds, sound_rate)
            )
            _encode_sound(container, track, samples, sound_rate, channels, sound_start)
    return path


def write_audio(
    path: Path,
    *,
    sound: Sound = "tone",
    seconds: float = 1.0,
    rate: int = 48000,
    channels: int = 1,
) -> Path:
    """Writes a sound file; `sound` as in `write_video`, the same in every channel unless [n, C]."""
    with av.open(str(path), "w") as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
        track = container.add_stream(_CODECS[path.suffix][1], rate=rate, layout=layout)
        samples = _samples(sound, seconds, rate)
        _encode_sound(container, track, samples, rate, channels, 0.0)
    return path


def write_frames_folder(
    path: Path,
    *,
    frames: int = 20,
    width: int = 64,
    height: int = 48,
    picture: Picture = moving_square,
    suffix: str = ".png",
) -> Path:
    """A folder of images frame1, frame2, ... frame10: in natural, not alphabetical, order."""
    path.mkdir(parents=True)
    for number in range(frames):
        Image.fromarray(picture(number, width, height)).save(path / f"frame{number + 1}{suffix}")
    return path


def write_depth_png(path: Path, units: np.ndarray) -> Path:
    """A 16-bit greyscale PNG of uint16 [H, W]."""
    Image.fromarray(units.astype(np.uint16)).save(path)
    return path


def write_covered_mp3(path: Path) -> Path:
    """An MP3 with a cover picture in its ID3 tag, which FFmpeg shows as a video stream."""
    write_audio(path)
    cover = path.with_suffix(".cover.png")
    Image.fromarray(moving_square(0, 32, 32)).save(cover)
    body = b"\x00image/png\x00\x03\x00" + cover.read_bytes()
    cover.unlink()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\x00\x00" + body
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\x00\x00" + size + frame + path.read_bytes())
    return path


def write_text(path: Path) -> Path:
    """A text file under the name of something else."""
    path.write_text("This is no media file.\n" * 50)
    return path


def truncate(path: Path, keep: float) -> Path:
    """Cuts off the end of a file, as a broken download does; `keep` is the share that is left."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def rotate_mp4(path: Path) -> Path:
    """Marks an MP4 to be shown turned by 90 degrees clockwise, as phones do."""
    data = path.read_bytes()
    unturned = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    header = data.index(b"tkhd")
    at = data.index(unturned, header)
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])
    return path


def _samples(sound: Sound, seconds: float, rate: int) -> np.ndarray:
    if isinstance(sound, np.ndarray):
        return sound
    time = np.arange(round(seconds * rate)) / rate
    return (0.0 if sound == "mute" else 0.5) * np.sin(2 * np.pi * 440 * time)


def _encode_sound(
    container: av.container.OutputContainer,
    track: av.AudioStream,
    samples: np.ndarray,
    rate: int,
    channels: int,
    start: float,
) -> None:
    each = samples if samples.ndim == 2 else np.repeat(samples[:, None], channels, axis=1)
    packed = np.round(each * 32767).astype(np.int16)
    resampler = av.AudioResampler(format=track.format, layout=track.layout, rate=rate)
    step = 960  # samples; every encoder here takes frames of this size after its own buffering
    for at in range(0, len(packed), step):
        block = packed[at : at + step].reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout=track.layout.name)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = at + round(start * rate)
        for ready in resampler.resample(frame):
            container.mux(track.encode(ready))
    container.mux(track.encode(None))

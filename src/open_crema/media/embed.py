"""Pictures and sounds as the bytes of small files that every browser shows and plays."""

from __future__ import annotations

import io

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler
from PIL import Image

from open_crema.errors import MediaError
from open_crema.media.audio import Audio

_RATE = 16_000  # samples per second
_BITS = (
    40_000  # per second; enough to hear what a sense hears, an eighth of the samples as they are
)


def webp(image: npt.NDArray[np.uint8], *, most: int = 224, quality: int = 82) -> bytes:
    """A .webp of uint8 [H, W, 3] RGB, scaled down where a side is longer than ``most`` pixels.

    Raises ValueError: another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image must be uint8 [H, W, 3], found {image.dtype} {list(image.shape)}")
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=quality, method=4)
    return data.getvalue()


def mp3(sound: Audio, *, seconds: float = 30.0) -> bytes:
    """The first ``seconds`` of a sound as an .mp3.

    Raises MediaError where the FFmpeg of this installation cannot write one.
    """
    samples = sound.samples[: max(1, round(seconds * sound.rate))]
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", layout="mono")
    frame.sample_rate = sound.rate
    data = io.BytesIO()
    try:
        with av.open(data, "w", format="mp3", options={"fflags": "+bitexact"}) as container:
            track = container.add_stream("libmp3lame", rate=_RATE, layout="mono")
            track.bit_rate = _BITS
            resampler = AudioResampler(format="fltp", layout="mono", rate=_RATE)
            for piece in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
    except (av.FFmpegError, ValueError) as error:  # ValueError: it has no such codec
        raise MediaError(f"the sound cannot be written as mp3 ({error})") from None
    if not data.tell():
        raise MediaError("the sound is too short to be written as mp3")
    return data.getvalue()

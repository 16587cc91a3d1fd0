"""Writing media that the readers of this package read back, and any player plays.

The same input gives the same bytes, whenever it is written. A file appears under its name when it
is whole; what was there before stays until then.
"""

import io
import os
import uuid
import wave
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from PIL import Image

from open_crema.errors import MediaError
from open_crema.media.arrays import Array
from open_crema.media.source import PathLike

_VIDEO_OPTIONS = {
    "crf": "10",  # below it files grow, and what is lost is what halved colour loses in any case
    "preset": "veryfast",  # half the time of "medium", at hardly a difference that near to lossless
    # Packets in the order of showing: with B-frames the track would begin before its zero.
    "bf": "0",
    # These spare bits where an eye would miss little; here every pixel counts the same.
    "aq-mode": "0",
    "mbtree": "0",
    "rc-lookahead": "0",
    "threads": "1",  # more of them would change the bytes
    "x264-params": "colormatrix=smpte170m:range=tv",
}
# BT.601 in parts of 65536, for Y of 16 to 235 and U, V of 16 to 240. Those of U and of V sum to 0,
# so that grey has no colour at all.
_LUMA = np.array([16829, 33039, 6416], np.int32)
_CHROMA = np.array([[-9714, -19070, 28784], [28784, -24103, -4681]], np.int32)
_FULL_SCALE = 32768  # of 16-bit sound
_TICKS = 10_000  # a second; mp4 counts time in whole numbers


def write_video(
    path: PathLike,
    frames: npt.NDArray[np.uint8],
    seconds: float,
    sound: npt.NDArray[np.float32] | None = None,
    rate: int = 16_000,
) -> None:
    """An .mp4 of H.264 pictures (yuv420p), and FLAC sound if there is any.

    Args:
        frames: uint8 [T, H, W, 3] RGB, T of 1 or more, H and W even; picture i is shown from
            i / T to (i + 1) / T of `seconds`. Colour is kept as the mean of 2 x 2 pixels: what
            is drawn from even rows and columns to even ones keeps its own.
        seconds: at least 1e-4, and kept to that.
        sound: float32 [n] in [-1, 1], mono, from the first picture on. It is rounded once, to 16
            bits (1 becomes 32767 / 32768), and kept exactly. `read_audio` takes one with no sample
            of 1e-4 or more for absent.
        rate: samples per second.

    The pictures' packets are the same bytes whatever the sound.
    Raises MediaError when the file cannot be written; ValueError: other shapes, types or values.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], {_found(frames)}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"height and width of frames must be even, {_found(frames)}")
    if not 1 / _TICKS <= seconds < np.inf:
        raise ValueError(f"seconds must be at least {1 / _TICKS:g}, got {seconds:g}")
    if rate < 1:
        raise ValueError(f"rate must be at least 1 sample per second, got {rate}")
    quantised = None if sound is None else _quantised(sound)
    try:
        data = _encoded(frames, seconds, quantised, rate)
    except av.FFmpegError as error:
        raise MediaError(f"{path}: cannot be encoded as video: {error.strerror}") from None
    _put(path, ".mp4", data)


def write_cloud(path: PathLike, xyz: npt.NDArray[np.float32], rgb: npt.NDArray[np.uint8]) -> None:
    """A binary .ply of points, float32 [N, 3] metres, and their colours, uint8 [N, 3].

    Raises MediaError when the file cannot be written; ValueError: other shapes or types, no point,
    or NaN or infinity.
    """
    if xyz.dtype != np.float32 or xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz):
        raise ValueError(f"xyz must be float32 [N, 3] of at least one point, {_found(xyz)}")
    if rgb.dtype != np.uint8 or rgb.shape != xyz.shape:
        raise ValueError(f"rgb must be uint8 [{len(xyz)}, 3], {_found(rgb)}")
    if not np.isfinite(xyz).all():
        raise ValueError("xyz must be finite")
    places, colours = ("x", "y", "z"), ("red", "green", "blue")
    points = np.empty(len(xyz), [*((n, "<f4") for n in places), *((n, "u1") for n in colours)])
    for names, values in ((places, xyz), (colours, rgb)):
        for name, column in zip(names, values.T, strict=True):
            points[name] = column
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(xyz)}",
        *(f"property float {name}" for name in places),
        *(f"property uchar {name}" for name in colours),
        "end_header\n",
    ]
    _put(path, ".ply", "\n".join(header).encode() + points.tobytes())


def write_maps(path: PathLike, /, **arrays: Array) -> None:
    """A compressed .npz of the named arrays, of any shapes and types but objects.

    Raises MediaError when the file cannot be written; ValueError: no array, or one of objects.
    """
    if not arrays:
        raise ValueError("write_maps needs at least one array")
    data = io.BytesIO()
    # Not numpy.savez_compressed: it cannot name an array "file", and before NumPy 2.2 it pickles.
    with zipfile.ZipFile(data, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, member.getbuffer(), zipfile.ZIP_DEFLATED)
    _put(path, ".npz", data.getvalue())


def write_image(path: PathLike, image: npt.NDArray[np.uint8]) -> None:
    """A .png of uint8 [H, W, 3] RGB, or [H, W] grey.

    Raises MediaError when the file cannot be written; ValueError: another shape or type.
    """
    channels = image.shape[2:]
    if image.dtype != np.uint8 or image.ndim < 2 or channels not in ((), (3,)) or not image.size:
        raise ValueError(f"image must be uint8 [H, W, 3] or [H, W], {_found(image)}")
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, "PNG")
    _put(path, ".png", data.getvalue())


def write_sound(path: PathLike, sound: npt.NDArray[np.float32], rate: int) -> None:
    """A mono .wav of 16 bits a sample; sound and rate as in `write_video`.

    Raises MediaError when the file cannot be written; ValueError: other shapes, types or values.
    """
    if rate < 1:
        raise ValueError(f"rate must be at least 1 sample per second, got {rate}")
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(_quantised(sound).astype("<i2").tobytes())
    _put(path, ".wav", data.getvalue())


def _quantised(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    if sound.dtype != np.float32 or sound.ndim != 1 or not len(sound):
        raise ValueError(f"sound must be float32 [n] of at least one sample, {_found(sound)}")
    if not (np.abs(sound) <= 1).all():
        raise ValueError("sound must be in [-1, 1]")
    return np.rint(sound * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def _encoded(
    frames: npt.NDArray[np.uint8], seconds: float, sound: npt.NDArray[np.int16] | None, rate: int
) -> bytes:
    """The .mp4 file."""
    step = Fraction(seconds).limit_denominator(_TICKS) / len(frames)
    data = io.BytesIO()
    with av.open(data, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=1 / step, options=_VIDEO_OPTIONS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.flags |= Flags.bitexact
        track = None
        if sound is not None:
            track = container.add_stream("flac", rate=rate, layout="mono", format="s16")
            track.codec_context.flags |= Flags.bitexact
        for number, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(_yuv420(image), format="yuv420p")
            picture.pts, picture.time_base = number, step
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if track is not None and sound is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = rate, 0, Fraction(1, rate)
            container.mux(track.encode(samples))
            container.mux(track.encode(None))
    return data.getvalue()


def _yuv420(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[H, W, 3] as the planes Y, U and V in a row, [H * 3 / 2, W]; U, V are of means of 2 x 2.

    FFmpeg's own conversion takes colour off by up to 40 of 255 inside small objects.
    """
    wide = rgb.astype(np.int32)
    rows = wide[::2] + wide[1::2]
    squares = rows[:, ::2] + rows[:, 1::2]  # sums of four
    luma = (wide @ _LUMA + (16 << 16) + (1 << 15)) >> 16
    chroma = (squares @ _CHROMA.T + (128 << 18) + (1 << 17)) >> 18
    planes = [luma.ravel(), *chroma.reshape(-1, 2).T]
    return np.concatenate(planes).astype(np.uint8).reshape(-1, rgb.shape[1])


def _put(path: PathLike, suffix: str, data: bytes) -> None:
    """Writes beside the path, then renames over it. Nothing half-written is left when it fails."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path}: the name must end in {suffix}")
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            with part.open("xb") as file:
                file.write(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be written: {error.strerror}; check the folder, its permissions and "
            f"the space left"
        ) from None


def _found(array: Array) -> str:
    return f"found {array.dtype} {list(array.shape)}"

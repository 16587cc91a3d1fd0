"""Frames of a video file, chosen by their true time stamps.

Two passes: an index of when each frame appears, then decoding of the chosen ones. Where the
container has a table of its frames (MP4, Matroska) the index needs no decoding, and the second
pass jumps between key frames. Elsewhere, and where that table proves wrong, every frame is decoded
to make the index; the frames chosen are the same.
"""

import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from open_crema.errors import MediaError, SenseAbsent
from open_crema.media.container import (
    check_decoder,
    check_whole,
    declared_seconds,
    decoded,
    moving_pictures,
    opened,
)
from open_crema.media.source import Limits
from open_crema.media.timeline import Floats, Indices

Pictures = npt.NDArray[np.uint8]

_TABLED = ("mov,", "matroska,")  # how the names of FFmpeg's two demuxers begin
_DEFAULT_RATE = 25.0  # frames per second, where a stream says nothing of time


@dataclass(frozen=True)
class Index:
    """When each frame appears.

    starts [n], end: seconds from the first frame, increasing. keys [n]: how to know the frame
    again when it is decoded: its time stamp if `by_time`, else its number. entries: the time
    stamps at which decoding can begin.
    """

    starts: Floats
    end: float
    keys: Sequence[int]
    by_time: bool = False
    entries: Sequence[int] = ()


def read_video(
    path: Path, choose: Callable[[Floats, float], Indices], limits: Limits
) -> tuple[Index, Pictures]:
    """The index of a video and the frames that `choose` picks from it, uint8 [S, H, W, 3] RGB.

    Frames are upright (rotation metadata applied) and of the size of the first one taken.
    Raises SenseAbsent("video") when the file has no moving pictures; MediaError when they cannot
    be decoded, are cut short, too long or too large, or are deep greyscale (depth).
    """
    for make_index in (_index_by_packets, _index_by_decoding):
        with _opened_video(path, limits) as (container, stream):
            index = make_index(path, container, stream, limits)
        if index is None:
            continue
        chosen = choose(index.starts, index.end).tolist()
        wanted = sorted(set(chosen))
        with _opened_video(path, limits) as (container, stream):
            pictures = list(_fetch(path, container, stream, index, wanted, limits))
        if len(pictures) == len(wanted):
            found = dict(zip(wanted, pictures, strict=True))
            return index, np.stack([found[number] for number in chosen])
    raise MediaError(
        f"{path}: no frame of it can be decoded: it is damaged or was cut short. Copy or download "
        f"it again"
    )


@contextmanager
def _opened_video(path: Path, limits: Limits) -> Iterator[tuple[InputContainer, VideoStream]]:
    with opened(path) as container:
        stream = moving_pictures(container)
        if stream is None:
            held = "a sound with a cover picture" if container.streams.video else "no pictures"
            raise SenseAbsent("video", f"{path} holds {held}: there are no moving pictures in it")
        check_decoder(path, stream)
        limits.check_pixels(path, stream.codec_context.width, stream.codec_context.height)
        yield container, stream


def _index_by_packets(
    path: Path, container: InputContainer, stream: VideoStream, limits: Limits
) -> Index | None:
    if not container.format.name.startswith(_TABLED) or stream.time_base is None:
        return None
    unit = float(stream.time_base)
    keys: list[int] = []
    entries: list[int] = []
    durations: dict[int, int] = {}
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard or packet.is_corrupt:
                continue
            if packet.pts is None:
                return None
            keys.append(packet.pts)
            durations[packet.pts] = packet.duration or 0
            if packet.is_keyframe:
                entries.append(packet.pts)
            limits.check_seconds(path, (packet.pts - keys[0]) * unit)
    except FFmpegError:
        pass  # the file ends early; what it holds is in the index
    if not keys or len(durations) < len(keys):
        return None
    keys.sort()
    starts = (np.array(keys) - keys[0]) * unit
    end = float(starts[-1]) + _last_duration(starts, durations[keys[-1]] * unit, stream)
    check_whole(path, keys[0] * unit + end, declared_seconds(container, stream))
    return Index(starts, end, keys, by_time=True, entries=sorted(entries))


def _index_by_decoding(
    path: Path, container: InputContainer, stream: VideoStream, limits: Limits
) -> Index | None:
    rate = float(stream.average_rate or _DEFAULT_RATE)
    unit = float(stream.time_base or 0)
    stamps: list[int | None] = []
    duration = 0
    for frame in decoded(path, container, stream):
        stamps.append(frame.pts)
        duration = frame.duration or 0
        limits.check_seconds(path, len(stamps) / rate)
    if not stamps:
        return None
    known = [stamp for stamp in stamps if stamp is not None]
    # Decoders give frames in the order of showing; some containers stamp them in that of storing.
    starts = np.sort(np.array(known, dtype=np.float64)) * unit
    if len(known) < len(stamps) or (np.diff(starts) <= 0).any():
        starts = np.arange(len(stamps)) / rate
    starts -= starts[0]
    end = float(starts[-1]) + _last_duration(starts, duration * unit, stream)
    limits.check_seconds(path, end)
    return Index(starts, end, range(len(stamps)))


def _last_duration(starts: Floats, declared: float, stream: VideoStream) -> float:
    if declared > 0:
        return declared
    if len(starts) > 1:
        return float(np.median(np.diff(starts)))
    return 1 / float(stream.average_rate or _DEFAULT_RATE)


def _fetch(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    index: Index,
    wanted: Sequence[int],
    limits: Limits,
) -> Iterator[Pictures]:
    """The wanted frames (increasing numbers) in order; it ends at the first that is not there."""
    frames = enumerate(decoded(path, container, stream))
    position = index.keys[0]
    size: tuple[int, int] | None = None
    for number in wanted:
        target = index.keys[number]
        entry = bisect.bisect_right(index.entries, target) - 1
        if entry >= 0 and index.entries[entry] > position:
            position = index.entries[entry]
            try:
                container.seek(position, stream=stream)
            except FFmpegError:
                return
            frames = enumerate(decoded(path, container, stream))
        for order, frame in frames:
            key = frame.pts if index.by_time else order
            if key is not None and key >= target:
                break
        else:
            return
        if key != target:
            return
        position = target
        limits.check_pixels(path, frame.width, frame.height)
        size = size or (frame.width, frame.height)
        yield _picture(path, frame, size)


def _picture(path: Path, frame: VideoFrame, size: tuple[int, int]) -> Pictures:
    components = frame.format.components
    if len(components) == 1 and components[0].bits > 8 and not frame.format.has_palette:
        raise MediaError(
            f"{path}: a greyscale video of more than 8 bits looks like depth maps, not pictures: "
            f"give depth as a folder of 16-bit PNG files or as .npy (read_depth)"
        )
    picture = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    upright = np.rot90(picture, k=round(frame.rotation / 90))
    return np.ascontiguousarray(upright, dtype=np.uint8)

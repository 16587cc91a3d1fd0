"""Pictures from any source: a video file, one image, or a folder of images or of RGB-D."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError, SenseAbsent
from open_crema.media import timeline
from open_crema.media.clip import Clip, TimeLine
from open_crema.media.container import moving_pictures, opened
from open_crema.media.images import read_picture
from open_crema.media.rgbd import find_layout
from open_crema.media.sequence import list_files
from open_crema.media.source import DEFAULT_LIMITS, Limits, PathLike, locate
from open_crema.media.timeline import Floats, Indices, Line
from open_crema.media.video import Pictures, read_video

Choose = Callable[[Line], Indices]


@dataclass(frozen=True)
class Frames:
    """images: uint8 [S, H, W, 3] RGB; times: float64 [S, 2], the interval each stands for.

    Times are seconds from the first picture.
    """

    images: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]


@dataclass(frozen=True)
class MediaInfo:
    """What a source holds. seconds is None without a time line (image, folder); width and height
    (pixels, upright) are None for sound; frames counts pictures; has_audio: there is a sound
    track, which may still be mute."""

    kind: Literal["video", "audio", "image", "folder"]
    seconds: float | None
    width: int | None
    height: int | None
    has_audio: bool
    frames: int | None


def read_pictures(path: PathLike, clip: Clip) -> Frames:
    """At most ``clip.frames`` pictures, aligned to the clip's video as `timeline` says.

    path: a video file, one image, or a folder of images, taken in natural order of names; of an
    RGB-D folder the colour pictures.

    Raises SenseAbsent("video") when the file holds no moving pictures (sound); MediaError when it
    is missing, damaged, not media, or over a limit, when it is a 16-bit depth map, or when it does
    not fit the clip's video.
    """
    line, images = _read(path, lambda line: timeline.choose(path, line, clip)[0], clip)
    timeline.say(path, line, clip)
    return Frames(images, timeline.choose(path, line, clip)[1])


def read_frames(
    path: PathLike, count: int, *, folder_fps: float = 1.0, limits: Limits = DEFAULT_LIMITS
) -> Frames:
    """At most `count` evenly spaced frames: those on the screen at the midpoints of `count` equal
    intervals of the duration. A source with fewer frames gives all: S = min(count, n).

    folder_fps: frames per second of images, where they do not say so themselves. Sources and errors
    are those of `read_pictures`.
    """
    return read_pictures(path, Clip(count, limits, rate=folder_fps))


def read_frame_pairs(
    path: PathLike,
    count: int,
    *,
    gap: float = 0.1,
    folder_fps: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Frames, Frames, Floats]:
    """The frames of `read_frames`, each with the one nearest to `gap` seconds later.

    The later one is at least the next frame. A source's last frame has none: it is the later one of
    its pair, with an earlier one before it. Both of a pair carry the interval it stands for.

    Returns: the earlier frames, the later ones, and the true gaps in seconds [S], all above 0.
    Raises SenseAbsent("flow") for a single picture, and what `read_frames` raises.
    """

    def choose(line: Line) -> Indices:
        if len(line.starts) < 2:
            raise SenseAbsent("flow", f"{path} holds a single picture: motion needs two")
        indices, _ = timeline.even(line.starts, line.end, count)
        return np.concatenate(timeline.pairs(line.starts, indices, gap))

    line, images = _read(path, choose, Clip(count, limits, rate=folder_fps))
    starts = line.starts
    indices, times = timeline.even(starts, line.end, count)
    first, second = timeline.pairs(starts, indices, gap)
    half = len(indices)
    gaps = starts[second] - starts[first]
    return Frames(images[:half], times), Frames(images[half:], times), gaps


def read_time_line(path: PathLike, clip: Clip) -> TimeLine:
    """When the pictures of a video appear, and their size; raises what `read_pictures` does."""
    line, images = _read(path, _first, Clip(1, clip.limits, clip.rate))
    height, width = images.shape[1:3]
    return TimeLine(line.starts, line.end, width, height, str(path), line.zero)


def probe(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> MediaInfo:
    """What a file or folder holds; its first picture is decoded, so it is known to be readable.

    Raises MediaError as the readers do.
    """
    path, kind = locate(path, limits)
    if kind == "container":
        return _probe_container(path, limits)
    line, images = _read(path, _first, Clip(1, limits))
    height, width = images.shape[1:3]
    name: Literal["folder", "image"] = "folder" if kind == "folder" else "image"
    return MediaInfo(name, None, width, height, False, len(line.starts))


def _probe_container(path: Path, limits: Limits) -> MediaInfo:
    with opened(path) as container:
        has_audio = bool(container.streams.audio)
        if moving_pictures(container) is None:
            if not has_audio:
                raise MediaError(f"{path}: holds neither moving pictures nor sound")
            declared = container.duration
            seconds = None if declared is None else declared / 1e6
            return MediaInfo("audio", seconds, None, None, True, None)
    index, images = read_video(path, lambda starts, end: np.zeros(1, np.int64), limits)
    height, width = images.shape[1:3]
    return MediaInfo("video", index.end, width, height, has_audio, len(index.starts))


def _first(line: Line) -> Indices:
    return np.zeros(1, np.int64)


def _read(path: PathLike, choose: Choose, clip: Clip) -> tuple[Line, Pictures]:
    """When each frame of the source appears, and the frames chosen."""
    path, kind = locate(path, clip.limits)
    if kind == "container":

        def line_of(starts: Floats, end: float) -> Line:
            return Line(starts + clip.start, end + clip.start, "timestamps")

        index, images = read_video(path, lambda *times: choose(line_of(*times)), clip.limits)
        return line_of(index.starts, index.end), images
    if kind not in ("image", "folder"):
        raise MediaError(
            f"{path}: holds numbers, not pictures: give it as the sense that it holds (as depth: "
            f"read_depth), or give a video or images"
        )
    layout = find_layout(path, clip.limits)
    files = list_files(path, clip.limits) if layout is None else layout.files(clip.limits)
    line = timeline.place(path, len(files.paths), clip, stamps=files.stamps)
    images = files.load(choose(line), lambda file: _picture(file, clip.limits))
    return line, images


def _picture(file: Path, limits: Limits) -> Pictures:
    locate(file, limits)
    return read_picture(file, limits)

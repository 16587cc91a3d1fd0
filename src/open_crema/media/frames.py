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
from open_crema.media.images import read_picture, stack
from open_crema.media.rgbd import find_layout
from open_crema.media.source import DEFAULT_LIMITS, Limits, PathLike, list_images, locate
from open_crema.media.timeline import Floats, Indices
from open_crema.media.video import Pictures, read_video

Choose = Callable[[Floats, float], Indices]


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


def read_frames(
    path: PathLike, count: int, *, folder_fps: float = 1.0, limits: Limits = DEFAULT_LIMITS
) -> Frames:
    """At most `count` evenly spaced frames: those on the screen at the midpoints of `count` equal
    intervals of the duration. A source with fewer frames gives all: S = min(count, n).

    Args:
        path: a video file, one image, or a folder of images, taken in natural order of names; of an
            RGB-D folder the colour pictures, at the times that it states itself.
        folder_fps: frames per second of images, which do not say so themselves.

    Raises SenseAbsent("video") when the file holds no moving pictures (sound); MediaError when it
    is missing, damaged, not media, or over a limit, or when it is a 16-bit depth map.
    """
    starts, end, images = _read(
        path, lambda starts, end: timeline.even(starts, end, count)[0], folder_fps, limits
    )
    return Frames(images, timeline.even(starts, end, count)[1])


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

    def choose(starts: Floats, end: float) -> Indices:
        if len(starts) < 2:
            raise SenseAbsent("flow", f"{path} holds a single picture: motion needs two")
        return np.concatenate(timeline.pairs(starts, timeline.even(starts, end, count)[0], gap))

    starts, end, images = _read(path, choose, folder_fps, limits)
    indices, times = timeline.even(starts, end, count)
    first, second = timeline.pairs(starts, indices, gap)
    half = len(indices)
    gaps = starts[second] - starts[first]
    return Frames(images[:half], times), Frames(images[half:], times), gaps


def read_time_line(path: PathLike, clip: Clip) -> TimeLine:
    """When the pictures of a video appear, and their size; raises what `read_frames` does."""
    starts, end, images = _read(
        path, lambda starts, end: np.zeros(1, np.int64), clip.rate or 1.0, clip.limits
    )
    return TimeLine(starts, end, images.shape[2], images.shape[1], str(path))


def probe(path: PathLike, *, limits: Limits = DEFAULT_LIMITS) -> MediaInfo:
    """What a file or folder holds; its first picture is decoded, so it is known to be readable.

    Raises MediaError as the readers do.
    """
    path, kind = locate(path, limits)
    if kind == "container":
        return _probe_container(path, limits)
    starts, _, images = _read(path, lambda starts, end: np.zeros(1, np.int64), 1.0, limits)
    height, width = images.shape[1:3]
    name: Literal["folder", "image"] = "folder" if kind == "folder" else "image"
    return MediaInfo(name, None, width, height, False, len(starts))


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


def _read(
    path: PathLike, choose: Choose, folder_fps: float, limits: Limits
) -> tuple[Floats, float, Pictures]:
    """When each frame of the source appears, when the last one goes, and the frames chosen."""
    path, kind = locate(path, limits)
    if kind == "container":
        index, images = read_video(path, choose, limits)
        return index.starts, index.end, images
    if kind == "array":
        raise MediaError(f"{path}: holds an array, not pictures: give it as depth (read_depth)")
    layout = find_layout(path) if kind == "folder" else None
    if layout is not None:
        files, (starts, end) = list(layout.colour), layout.time_line(folder_fps, limits)
    else:
        files = list_images(path) if kind == "folder" else [path]
        starts, end = timeline.regular(len(files), folder_fps)
    chosen = [files[i] for i in choose(starts, end).tolist()]
    for file in chosen:
        locate(file, limits)
    return starts, end, stack(chosen, (read_picture(file, limits) for file in chosen))

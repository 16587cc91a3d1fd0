"""When each map of a sequence appears, and which of them to take. Times are in seconds.

The one place that aligns a sense to the clip's video. What says when the maps appear, the first of
these that applies:

1. "timestamps": the file's own;
2. "rate": maps per second, stated in the data file or in the file itself;
3. "pictures": there are as many maps as the video has pictures;
4. "whole": there is one map, which stands for the whole clip;
5. "second": there is no video; one map a second.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media.clip import Clip
from open_crema.media.source import PathLike

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Rule = Literal["timestamps", "rate", "pictures", "whole", "second"]

# Seconds. A frame that starts right at a midpoint is on the screen there, and the earlier of two
# equally near frames is the nearest, whichever way floating point rounds.
_ROUNDING = 1e-6
_COVERED = 0.8  # of the video's time; a sense that covers less is worth a warning


@dataclass(frozen=True)
class Line:
    """When each of n maps appears on the clip's time line: starts [n], increasing; end: when the
    last one goes. rule: what said so. zero: what the file's own time stamps call second 0."""

    starts: Floats
    end: float
    rule: Rule
    zero: float = 0.0


def place(
    path: PathLike,
    count: int,
    clip: Clip,
    *,
    stamps: Floats | None = None,
    rate: float | None = None,
    between: bool = False,
) -> Line:
    """When each of `count` maps appears, by the first rule of this module that applies.

    Args:
        stamps: the file's own time stamps, [n] or [n, 2] (start and end). They are in the clock of
            the video's own, if it has any, else from its first picture on; without a video the
            first one is the zero.
        rate: maps per second as the file says; the data file's (``clip.rate``) goes before it.
        between: each map is of two consecutive pictures (flow), so one less than those is enough.

    Raises MediaError: stamps that do not fit, too long, or nothing tells when the maps appear.
    """
    video, rate = clip.video, rate if clip.rate is None else clip.rate
    if stamps is not None:
        starts, end = _checked(path, count, stamps)
        zero = float(starts[0]) if video is None else video.zero
        line = Line(starts - zero + clip.start, end - zero + clip.start, "timestamps", zero)
    elif rate is not None:
        starts, end = regular(count, rate)
        line = Line(starts + clip.start, end + clip.start, "rate")
    elif video is not None and count == len(video.starts):
        line = Line(video.starts + clip.start, video.end + clip.start, "pictures")
    elif video is not None and between and count == len(video.starts) - 1:
        starts, end = video.starts + clip.start, float(video.starts[-1]) + clip.start
        line = Line(starts[:-1], end, "pictures")
    elif count == 1:
        line = Line(np.zeros(1), 1.0 if video is None else video.end, "whole")
    elif video is None:
        starts, end = regular(count, 1.0)
        line = Line(starts + clip.start, end + clip.start, "second")
    else:
        raise MediaError(
            f"{path}: {count} maps, while the video {video.name} has {len(video.starts)} pictures, "
            f"and nothing says when they appear: write a timestamps.txt into the folder (an array "
            f"'times' into the .npz), seconds from the video's first picture, or state their "
            f'"rate" in the data file'
        )
    clip.limits.check_seconds(path, line.end - float(line.starts[0]))
    return line


def choose(path: PathLike, line: Line, clip: Clip) -> tuple[Indices, Floats]:
    """At most ``clip.frames`` maps, [S], and the interval that each stands for, [S, 2].

    With a video they are those on the screen at the midpoints of the video's own intervals, so that
    segment i is the same moment in every sense; where there is no map yet, or none any more, the
    nearest. A single map stands for the whole clip (S = 1). Without a video, as `even`.

    Raises MediaError when the maps lie outside the video's time.
    """
    video = clip.video
    if video is None:
        first = line.starts[0]
        indices, times = even(line.starts - first, line.end - first, clip.frames)
        return indices, times + first
    if line.starts[0] >= video.end or line.end <= 0:
        raise MediaError(
            f"{path}: its maps are from {line.starts[0]:g} to {line.end:g} s, the video "
            f"{video.name} is from 0 to {video.end:g} s: they have no time in common. Correct its "
            f'time stamps, or "start" in the data file'
        )
    if len(line.starts) == 1:
        return np.zeros(1, np.int64), np.array([[0.0, video.end]])
    _, times = even(video.starts, video.end, clip.frames)
    return _shown(line.starts, times.mean(axis=1)).clip(min=0), times


def say(path: PathLike, line: Line, clip: Clip) -> None:
    """Logs, for a sense that is aligned to a video, what said when its maps appear; and warns where
    that leaves much of the video without maps, as a wrong rate does."""
    if clip.video is not None:
        how = {
            "timestamps": "its own time stamps",
            "rate": "the stated rate",
            "pictures": "their count, picture by picture",
            "whole": "being one for the whole clip",
        }
        log.info("%s: %d maps, aligned by %s", path, len(line.starts), how[line.rule])
        span = min(line.end, clip.video.end) - max(float(line.starts[0]), 0.0)
        if line.rule in ("timestamps", "rate") and 0 < span < _COVERED * clip.video.end:
            log.warning(
                "%s: its maps are from %.3g to %.3g s, the video's pictures from 0 to %.3g s: "
                "elsewhere the nearest map stands in. Check their times",
                path,
                line.starts[0],
                line.end,
                clip.video.end,
            )


def even(starts: Floats, end: float, count: int) -> tuple[Indices, Floats]:
    """The frames on the screen at the midpoints of `count` equal intervals, and the intervals.

    Args: starts [n], increasing from 0: when each frame appears; end: when the last one goes.
    Returns: indices [S] and intervals [S, 2]; all n frames with their own intervals if n <= count.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if len(starts) <= count:
        ends = np.append(starts[1:], end)
        return np.arange(len(starts)), np.stack([starts, ends], axis=1)
    edges = np.linspace(0.0, end, count + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    return _shown(starts, middles), np.stack([edges[:-1], edges[1:]], axis=1)


def _shown(starts: Floats, moments: Floats) -> Indices:
    """What is on the screen at each moment; -1 before the first."""
    return np.searchsorted(starts, moments + _ROUNDING, side="right") - 1


def _checked(path: PathLike, count: int, stamps: Floats) -> tuple[Floats, float]:
    """Starts [n] and the end of all, from time stamps [n] or [n, 2]."""
    if stamps.shape not in ((count,), (count, 2)):
        raise MediaError(
            f"{path}: {count} maps need time stamps [{count}] or [{count}, 2], found "
            f"{list(stamps.shape)}: give one a map, in seconds"
        )
    starts = stamps.astype(np.float64)
    if not np.isfinite(starts).all():
        raise MediaError(f"{path}: its time stamps hold NaN or infinity: give seconds")
    if starts.ndim == 2:
        if (starts[:, 1] <= starts[:, 0]).any():
            raise MediaError(f"{path}: its time stamps hold an interval that ends before it starts")
        starts, end = starts[:, 0], float(starts[:, 1].max())
    else:
        end = float(starts[-1] + (np.median(np.diff(starts)) if count > 1 else 1.0))
    back = np.flatnonzero(np.diff(starts) <= 0)
    if len(back):
        at = int(back[0])
        raise MediaError(
            f"{path}: its time stamps must increase, but {starts[at + 1]:g} s follows "
            f"{starts[at]:g} s (map {at + 2}): sort the maps, or correct the times"
        )
    return starts, end


def pairs(starts: Floats, indices: Indices, gap: float) -> tuple[Indices, Indices]:
    """For each frame, itself and the frame nearest to `gap` seconds later, at least the next one.

    The last frame has none later: it is the second of its pair, after the frame nearest to `gap`
    seconds before it. Needs at least two frames.
    """
    if gap <= 0:
        raise ValueError(f"gap must be above 0 seconds, got {gap}")
    last = len(starts) - 1
    first, second = [], []
    for i in indices.tolist():
        if i < last:
            first.append(i)
            second.append(i + 1 + _nearest(starts[i + 1 :], starts[i] + gap))
        else:
            first.append(_nearest(starts[:last], starts[i] - gap))
            second.append(last)
    return np.array(first), np.array(second)


def _nearest(starts: Floats, time: float) -> int:
    distance = np.abs(starts - time)
    return int((distance <= distance.min() + _ROUNDING).argmax())


def regular(count: int, rate: float) -> tuple[Floats, float]:
    """Starts and end of `count` frames at `rate` frames a second."""
    if rate <= 0:
        raise ValueError(f"frames per second must be above 0, got {rate}")
    return np.arange(count) / rate, count / rate

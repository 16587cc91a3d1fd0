"""What a reader is told beside a file's path: how much to read, and the time line it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from open_crema.media.source import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class TimeLine:
    """The pictures of a clip's video, which its other senses are aligned to.

    starts: float64 [n] seconds, when each picture appears, the first at 0; end: seconds, when the
    last one goes; width, height: pixels, upright. name: the video's path, for messages.
    """

    starts: npt.NDArray[np.float64]
    end: float
    width: int
    height: int
    name: str


@dataclass(frozen=True)
class Clip:
    """What every reader and expert gets: ``reader(path, clip) -> media``.

    frames: segments to keep at most, evenly spaced. limits: larger media are refused. rate:
    pictures (or samples) per second of this file, where its user states it; start: seconds on the
    video's time line at which it begins. video: the time line of the clip's video; None where there
    is none, or the file is the video.
    """

    frames: int = 8
    limits: Limits = field(default=DEFAULT_LIMITS)
    rate: float | None = None
    start: float = 0.0
    video: TimeLine | None = None

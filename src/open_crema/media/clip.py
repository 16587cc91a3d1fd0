"""What a reader is told beside a file's path: how much to read, and the time line it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media.source import DEFAULT_LIMITS, Limits, PathLike

_ASPECT = 0.05  # maps are often made at sizes rounded to a network's stride


@dataclass(frozen=True)
class TimeLine:
    """The pictures of a clip's video, which its other senses are aligned to.

    starts: float64 [n] seconds, when each picture appears, the first at 0; end: seconds, when the
    last one goes; width, height: pixels, upright. name: the video's path, for messages. zero: what
    the video's own time stamps call the moment of its first picture.
    """

    starts: npt.NDArray[np.float64]
    end: float
    width: int
    height: int
    name: str
    zero: float = 0.0


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

    def check_view(self, path: PathLike, width: int, height: int) -> None:
        """That maps of this size can show the video's view: the same aspect ratio within 5 %.

        Raises MediaError that names both sizes. Without a video anything goes.
        """
        video = self.video
        if video and abs(width * video.height / (height * video.width) - 1) > _ASPECT:
            raise MediaError(
                f"{path}: {width} x {height} pixels, while the video {video.name} has "
                f"{video.width} x {video.height}: another shape shows another view. Crop or render "
                f"it to the video's view"
            )

"""Reading media: the one place that opens video, sound, image and depth files.

Everything comes with its times in seconds, counted from the first picture, and within `Limits`.
An unusable file is a `MediaError`; a sense that the file just does not hold is a `SenseAbsent`.
"""

from open_crema.media.audio import Audio, read_audio
from open_crema.media.clip import Clip, TimeLine
from open_crema.media.depth import DepthMaps, read_depth
from open_crema.media.frames import (
    Frames,
    MediaInfo,
    probe,
    read_frame_pairs,
    read_frames,
    read_time_line,
)
from open_crema.media.rgbd import Rgbd, is_rgbd, read_rgbd
from open_crema.media.source import Limits

__all__ = [
    "Audio",
    "Clip",
    "DepthMaps",
    "Frames",
    "Limits",
    "MediaInfo",
    "Rgbd",
    "TimeLine",
    "is_rgbd",
    "probe",
    "read_audio",
    "read_depth",
    "read_frame_pairs",
    "read_frames",
    "read_rgbd",
    "read_time_line",
]

"""Reading and writing media: the one place that opens video, sound, image and depth files.

Everything comes with its times in seconds, counted from the first picture, and within `Limits`.
An unusable file is a `MediaError`; a sense that the file just does not hold is a `SenseAbsent`.
"""

from open_crema.media.audio import Audio, read_audio
from open_crema.media.clip import Clip, TimeLine
from open_crema.media.cloud import Cloud, read_cloud
from open_crema.media.depth import DepthMaps, is_metric_depth, read_depth
from open_crema.media.flow import FlowMaps, is_flow, read_flow
from open_crema.media.frames import (
    Frames,
    MediaInfo,
    probe,
    read_frame_pairs,
    read_frames,
    read_pictures,
    read_time_line,
)
from open_crema.media.maps import PICTURES, MapKind, Maps, holds_maps, read_maps
from open_crema.media.precomputed import Precomputed, holds_features, read_features
from open_crema.media.rgbd import Rgbd, is_rgbd, read_rgbd
from open_crema.media.source import Limits
from open_crema.media.write import (
    write_cloud,
    write_image,
    write_maps,
    write_sound,
    write_video,
)

__all__ = [
    "PICTURES",
    "Audio",
    "Clip",
    "Cloud",
    "DepthMaps",
    "FlowMaps",
    "Frames",
    "Limits",
    "MapKind",
    "Maps",
    "MediaInfo",
    "Precomputed",
    "Rgbd",
    "TimeLine",
    "holds_features",
    "holds_maps",
    "is_flow",
    "is_metric_depth",
    "is_rgbd",
    "probe",
    "read_audio",
    "read_cloud",
    "read_depth",
    "read_features",
    "read_flow",
    "read_frame_pairs",
    "read_frames",
    "read_maps",
    "read_pictures",
    "read_rgbd",
    "read_time_line",
    "write_cloud",
    "write_image",
    "write_maps",
    "write_sound",
    "write_video",
]

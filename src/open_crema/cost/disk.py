"""Bytes of the feature store: bfloat16 tokens of every frozen encoder, once a clip."""

from __future__ import annotations

from open_crema import modality
from open_crema.config import Config
from open_crema.cost.encoders import work_of
from open_crema.cost.operations import Workload
from open_crema.encoders.registry import width_for

_TOKEN, _KEY, _TIMES = 2, 1, 16  # bytes of a number, of a key's mask, of a segment's two times


def store_bytes(config: Config, work: Workload) -> dict[str, int]:
    """sense -> bytes of one clip: ``data.store_frames`` frames, as many windows of sound as the
    workload says. Headers (under a kilobyte each) are not counted."""
    found = {}
    for sense in modality.canonical(config.model.senses):
        kind = modality.get(sense)
        keys = work_of(kind, config.model.encoders).tokens
        wide = width_for(kind, config.model.encoders)
        frames = kind.alignment == "frames"
        segments = config.data.store_frames if frames else work.segments(sense)
        found[sense] = segments * (keys * (wide * _TOKEN + _KEY) + _TIMES)
    return found

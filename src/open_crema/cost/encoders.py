"""Frozen encoders as arithmetic: tokens and multiply-accumulates of one segment, without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from open_crema.config import EncodersConfig
from open_crema.encoders import registry
from open_crema.encoders.yamnet import BANDS, HOP, PATCH, RATE, STEPS
from open_crema.errors import ConfigError
from open_crema.modality import Modality


@dataclass(frozen=True)
class EncoderWork:
    """tokens: K of one segment (a frame, a window of sound, a scene). macs: multiply-accumulates
    that make them; None where a third party's encoder does not say."""

    tokens: int
    macs: int | None


def work_of(modality: Modality, config: EncodersConfig) -> EncoderWork:
    """What the configured encoder of a sense does for one segment.

    A third party's encoder may say ``tokens`` (as it says ``width``); one is counted otherwise.
    """
    kind = modality.encoder
    if kind == "vision":
        return _vision(config.vision, config.resolution)
    if kind == "audio":
        return _named(_SOUND, config.audio)(config)
    if kind == "point":
        return _named(_POINTS, config.point)(config)
    tokens = getattr(kind, "tokens", None)
    return EncoderWork(tokens if isinstance(tokens, int) and tokens > 0 else 1, None)


def transformer(layers: int, tokens: int, width: int, ffn: int) -> int:
    """Multiply-accumulates of plain encoder layers: four projections, scores and their sum over
    values, two layers of feed-forward."""
    return layers * tokens * (4 * width * width + 2 * width * ffn + 2 * tokens * width)


def _picture(layers: int, width: int, ffn: int, patch: int, resolution: int) -> EncoderWork:
    patches = (resolution // patch) ** 2
    embedding = patches * 3 * patch * patch * width
    return EncoderWork(patches + 1, embedding + transformer(layers, patches + 1, width, ffn))


# name: layers, width, feed-forward, patch in pixels
_VIT = {
    "eva-vit-g": (39, 1408, 6144, 14),  # BLIP-2 leaves out the fortieth
    "dinov2-small": (12, 384, 1536, 14),
}


@cache
def _vision(name: str, resolution: int) -> EncoderWork:
    if name in _VIT:
        return _picture(*_VIT[name], resolution)
    if Path(name).is_dir():
        return _folder(name, resolution)
    return _named({}, name)(EncodersConfig())


def _folder(name: str, resolution: int) -> EncoderWork:
    """A vision model of transformers, run on the meta device."""
    from transformers import AutoConfig, AutoModel, Blip2VisionModel

    try:
        config: Any = AutoConfig.from_pretrained(name, local_files_only=True)
        eva = config.model_type == "blip_2_vision_model"
        with torch.device("meta"), torch.no_grad():
            model = (Blip2VisionModel if eva else AutoModel.from_config)(config).eval()
            with FlopCounterMode(display=False) as counter:
                out = model(pixel_values=torch.empty(1, 3, resolution, resolution))
    except Exception as error:  # a config.json may be wrong in any way, and fails in as many
        raise ConfigError(
            f"model.encoders.vision {name}: its config.json describes no vision model that can be "
            f"counted at {resolution} px: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from None
    return EncoderWork(out.last_hidden_state.shape[1], counter.get_total_flops() // 2)


def _beats(config: EncodersConfig) -> EncoderWork:
    """Patches of 16 x 16 of a spectrogram of 128 bands and 10 ms frames; 12 layers of 768."""
    width, patch, kernel, groups, heads = 768, 16, 128, 16, 12
    tokens = round(config.audio_window * 100) // patch * (128 // patch)
    embedding = tokens * (patch * patch * 512 + 512 * width)
    # Padded by half its even kernel, the convolution that gives positions makes one too many.
    positions = (tokens + 1) * width * (width // groups) * kernel
    gates = 12 * tokens * heads * (width // heads) * 8  # of the relative position bias
    return EncoderWork(tokens, embedding + positions + gates + transformer(12, tokens, width, 3072))


# MobileNet v1 as YAMNet has it: the stride of each depthwise convolution, and its channels out.
_YAMNET = (
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *[(1, 512)] * 5,
    *((2, 1024), (1, 1024)),
)


def _yamnet(config: EncodersConfig) -> EncoderWork:
    patches = -(-round(config.audio_window * RATE / HOP) // PATCH)
    height, width, channels = PATCH // 2, 64 // 2, 32
    macs = height * width * channels * 9
    for stride, out in _YAMNET:
        height, width = -(-height // stride), -(-width // stride)
        macs += height * width * channels * (9 + out)
        channels = out
    return EncoderWork(patches * STEPS * BANDS, patches * macs)


def _points(config: EncodersConfig) -> EncoderWork:
    """The vision encoder over each view of a cloud; averaging adds no products."""
    seen = _vision(config.vision, config.resolution).macs
    return EncoderWork(config.max_points, None if seen is None else config.cloud_views * seen)


def _ready_points(config: EncodersConfig) -> EncoderWork:
    return EncoderWork(config.max_points, 0)


_Count = Callable[[EncodersConfig], EncoderWork]
_SOUND: Mapping[str, _Count] = {"beats-iter3": _beats, "yamnet": _yamnet}
_POINTS: Mapping[str, _Count] = {"points": _points, "points-3dllm": _ready_points}


def _named(known: Mapping[str, _Count], name: str) -> _Count:
    registry.spec(name)  # an unknown name is an error that says the nearest
    if name not in known:
        raise ConfigError(f"encoder {name!r}: what it computes is not known to `crema cost`")
    return known[name]

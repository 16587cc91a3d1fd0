"""Features: what a frozen encoder says of one sense, the contract between encoders and model; and
those of a point cloud before their places are told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Frozen-encoder output of one sense for one sample.

    tokens: ``[S, K, W]`` floating point; S segments (frames, audio windows; 1 for a point cloud),
        K tokens a segment, W the encoder's width.
    mask: ``[S, K]`` bool, True where a token is real; padding is never attended.
    times: ``[S, 2]`` float64 seconds, start and end of each segment on the video's time line.
    """

    tokens: Tensor
    mask: Tensor
    times: Tensor

    def __post_init__(self) -> None:
        segments, keys = self.mask.shape
        if self.tokens.ndim != 3 or self.tokens.shape[:2] != (segments, keys):
            raise ValueError(
                f"tokens {tuple(self.tokens.shape)} do not fit the mask {(segments, keys)}"
            )
        if self.times.shape != (segments, 2):
            raise ValueError(f"times {tuple(self.times.shape)} must be [{segments}, 2]")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, not {self.mask.dtype}")
        if not segments or not bool(self.mask.any(dim=1).all()):
            raise ValueError("at least one segment, and in every segment at least one real token")


@dataclass(frozen=True)
class Points:
    """A point cloud: features ``[N, W]`` floating point, integer voxels ``[N, 3]``.

    times: start and end, in seconds, of the part of the video that the cloud was built from.
    """

    features: Tensor
    voxels: Tensor
    times: tuple[float, float] = (0.0, 0.0)

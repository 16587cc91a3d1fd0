"""Features of a point cloud with the code of their position added, as the method defines it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from open_crema.config import EncodersConfig
from open_crema.errors import MediaError
from open_crema.features import Features, Points


class PointFeatures:
    """Points to ``[1, N, W]`` tokens: their features plus ``position_scale`` times the code of
    their voxels (0.01 in the paper's code).

    A cloud of more than ``max_points`` is thinned to evenly spaced rows, always the same ones. One
    of fewer than ``filled`` gets points of zeros at voxel 0, not masked, up to that many, as in the
    released code (REFERENCE 4.4); 0, the default, adds none. The fingerprint covers this step
    alone; whoever stores the result adds that of the features' source.
    """

    name = "points"

    def __init__(
        self,
        width: int,
        *,
        max_points: int = 5000,
        filled: int = 0,
        position_scale: float = 0.01,
    ) -> None:
        if width < 6 or max_points < 1 or filled > max_points:
            raise ValueError(
                f"width {width} must be at least 6, max_points {max_points} at least 1, and filled "
                f"{filled} no more than that"
            )
        self.width = width
        self.max_points = max_points
        self.filled = filled
        self.position_scale = position_scale
        self.fingerprint = f"points/{width}/{max_points}/{position_scale:g}"
        if filled:
            self.fingerprint += f"/filled to {filled}"

    @classmethod
    def from_config(cls, width: int, config: EncodersConfig) -> Self:
        """Keeps what `model.encoders.point_choice` needs to choose from."""
        drawn = config.point_choice != "even"
        return cls(
            width,
            max_points=config.stored_points if drawn else config.max_points,
            filled=config.max_points if config.point_choice == "reference" else 0,
            position_scale=config.position_scale,
        )

    def __call__(self, media: Points, /) -> Features:
        """Encode a cloud. Raises MediaError when it is empty or its parts do not fit."""
        if not isinstance(media, Points):  # what `ScenePoints` takes
            raise MediaError(
                "this encoder takes point features that were made before: give an .npz with "
                "'features' and 'voxels', or use model.encoders.point: points"
            )
        count = len(media.features)
        if count == 0:
            raise MediaError("the point cloud has no point")
        if media.features.shape != (count, self.width) or media.voxels.shape != (count, 3):
            raise MediaError(
                f"point features {tuple(media.features.shape)} and voxels "
                f"{tuple(media.voxels.shape)} must be [N, {self.width}] and [N, 3]"
            )
        if media.voxels.is_floating_point():
            raise MediaError(f"voxels must be integer grid coordinates, not {media.voxels.dtype}")
        kept = even(count, self.max_points)
        more = (0, 0, 0, max(0, self.filled - len(kept)))  # rows behind the last
        tokens, voxels = (pad(t[kept], more) for t in (media.features, media.voxels))
        tokens = tokens.float() + self.position_scale * position_code(voxels, self.width)
        return Features(
            tokens[None],
            torch.ones(1, len(tokens), dtype=torch.bool),
            torch.tensor([media.times], dtype=torch.float64),
        )


def even(count: int, most: int) -> Tensor:
    """``min(count, most)`` evenly spaced ones of ``range(count)``, increasing."""
    most = min(count, most)
    return torch.arange(most) * count // most


def position_code(coordinates: Tensor, width: int) -> Tensor:
    """Fixed sinusoids of ``[N, d]`` coordinates: ``[N, width]`` float32 in [-1, 1].

    Each coordinate gets ``floor(width / d)`` channels, sine and cosine in turn, with frequencies
    ``10000^(-2i / w)`` where w is that number rounded up to even; channels left over are zero.
    """
    axes = coordinates.shape[1]
    share = width // axes
    even = share + share % 2
    frequencies = 10000.0 ** (-torch.arange(0, even, 2, dtype=torch.float32) / even)
    angles = coordinates.float()[:, :, None] * frequencies
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(2)[:, :, :share]
    code = coordinates.new_zeros((len(coordinates), width), dtype=torch.float32)
    code[:, : axes * share] = waves.flatten(1)
    return code

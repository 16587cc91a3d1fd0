"""Features that a frozen encoder gave before: read instead of media, for any sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from open_crema.errors import MediaError
from open_crema.features import Features
from open_crema.media import timeline
from open_crema.media.arrays import array_names, load_npz
from open_crema.media.clip import Clip
from open_crema.media.maps import checked_rate
from open_crema.media.source import Limits, PathLike, locate

_ARRAYS = ("features", "mask", "times", "rate")


@dataclass(frozen=True)
class Precomputed:
    """features: as the sense's encoder would give them; encoder: the name or fingerprint of the one
    that did, "" where the file does not say; path: of the file, for messages."""

    features: Features
    encoder: str
    path: Path

    def of(self, name: str, fingerprint: str, width: int) -> Features:
        """The features, where they can be this encoder's.

        Raises MediaError where the file names another encoder, or the width differs.
        """
        if self.encoder not in ("", name, fingerprint):
            raise MediaError(
                f"{self.path}: its features are of encoder {self.encoder!r}, this sense has "
                f"{name!r} ({fingerprint}): make them with that one, or configure the other"
            )
        found = self.features.tokens.shape[2]
        if found != width:
            raise MediaError(
                f"{self.path}: its features are {found} wide, those of encoder {name!r} {width}: "
                f"make them with that encoder, or configure the one that made them"
            )
        return self.features


def holds_features(path: PathLike, limits: Limits) -> bool:
    """Whether a file is .safetensors, or an .npz with ``features`` and no ``voxels`` (those are
    points). Raises MediaError when it cannot be opened."""
    path, kind = locate(path, limits)
    if kind != "array" or path.suffix.lower() != ".npz":
        return kind == "tensors"
    names = array_names(path)
    return "features" in names and "voxels" not in names


def read_features(path: PathLike, clip: Clip, *, every: bool = False) -> Precomputed:
    """Features from an .npz or .safetensors file.

    ``features`` [S, K, W] or [S, W] floats; optional ``mask`` [S, K] (0 or False: padding),
    ``times`` [S] or [S, 2] seconds, ``rate`` (segments per second), and ``encoder``, the name or
    fingerprint of what made them (a string array; metadata in safetensors).

    ``clip.frames`` segments are kept, aligned to the clip's video as `timeline` says; as many
    segments as that are taken to be those of the video's own intervals. every: keep all (sound);
    then several segments need times or a rate.
    Raises MediaError: damaged, over a limit, another shape or dtype, NaN or infinity, a segment
    without a token, or not fitting the clip's video.
    """
    path, kind = locate(path, clip.limits)
    tensors, encoder = _of_archive(path, clip.limits) if kind == "array" else _of_safetensors(path)
    tokens = _tokens(path, tensors)
    count, keys = tokens.shape[:2]
    mask = _mask(path, tensors, (count, keys))
    rate = _rate(path, tensors)
    stamps = tensors["times"].double().numpy() if "times" in tensors else None
    untimed = stamps is None and (clip.rate or rate) is None
    video = clip.video
    if every and untimed and count > 1:
        raise MediaError(
            f"{path}: nothing says when its {count} segments are: save 'times' [{count}, 2] in "
            f'seconds, or state "rate", segments per second, in the data file'
        )
    if untimed and video and count == min(clip.frames, len(video.starts)):
        chosen, times = np.arange(count), timeline.even(video.starts, video.end, count)[1]
    else:
        line = timeline.place(path, count, clip, stamps=stamps, rate=rate)
        timeline.say(path, line, clip)
        wanted = Clip(count, clip.limits, start=clip.start) if every else clip
        chosen, times = timeline.choose(path, line, wanted)
        if every and stamps is not None and stamps.ndim == 2:
            times = stamps - line.zero + clip.start
    features = Features(tokens[chosen], mask[chosen], torch.from_numpy(times))
    return Precomputed(features, encoder, path)


def _tokens(path: Path, tensors: dict[str, Tensor]) -> Tensor:
    """[S, K, W] float32."""
    if "features" not in tensors:
        raise MediaError(
            f"{path}: has no 'features'; it holds {', '.join(map(repr, tensors)) or 'nothing'}"
        )
    tokens = tensors["features"]
    if tokens.ndim not in (2, 3) or not tokens.numel() or not tokens.is_floating_point():
        raise MediaError(
            f"{path}: 'features' must be floating point [S, K, W] or [S, W], found {tokens.dtype} "
            f"{list(tokens.shape)}"
        )
    tokens = tokens.float() if tokens.ndim == 3 else tokens.float()[:, None]
    bad = (~tokens.isfinite().all(dim=(1, 2))).nonzero()
    if len(bad):
        raise MediaError(
            f"{path}: 'features' holds NaN or infinity in {len(bad)} of {len(tokens)} segments, "
            f"the first is {int(bad[0])}: make them again"
        )
    return tokens


def _mask(path: Path, tensors: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
    mask = tensors.get("mask")
    if mask is None:
        return torch.ones(shape, dtype=torch.bool)
    if mask.shape != shape or mask.is_floating_point() or mask.is_complex():
        raise MediaError(
            f"{path}: 'mask' must be bool {list(shape)} like 'features', found {mask.dtype} "
            f"{list(mask.shape)}"
        )
    mask = mask.bool()
    empty = (~mask.any(dim=1)).nonzero()
    if len(empty):
        raise MediaError(
            f"{path}: 'mask' leaves no token in segment {int(empty[0])}: leave the segment out"
        )
    return mask


def _rate(path: Path, tensors: dict[str, Tensor]) -> float | None:
    for name in ("times", "rate"):
        if name in tensors and (tensors[name].is_complex() or tensors[name].dtype == torch.bool):
            raise MediaError(f"{path}: {name!r} must be numbers, found {tensors[name].dtype}")
    if "rate" not in tensors:
        return None
    if tensors["rate"].numel() != 1:
        raise MediaError(f"{path}: 'rate' must be one number of segments per second")
    return checked_rate(path, float(tensors["rate"]))


def _of_archive(path: Path, limits: Limits) -> tuple[dict[str, Tensor], str]:
    arrays = load_npz(path, limits)
    encoder = str(arrays["encoder"]) if "encoder" in arrays else ""
    tensors = {}
    for name in _ARRAYS:
        if name in arrays:
            try:
                tensors[name] = torch.from_numpy(arrays[name])
            except (TypeError, ValueError):
                raise MediaError(
                    f"{path}: {name!r} must be numbers, found {arrays[name].dtype}"
                ) from None
    return tensors, encoder


def _of_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    try:
        with safe_open(path, framework="pt") as file:
            found = [name for name in file.keys() if name in _ARRAYS]  # noqa: SIM118 - no mapping
            tensors = {name: file.get_tensor(name) for name in found}
            return tensors, (file.metadata() or {}).get("encoder", "")
    except Exception as error:  # of a crate of its own; damage surfaces as several kinds
        reason = " ".join(str(error).split())
        raise MediaError(
            f"{path}: not a readable safetensors file ({reason}): save it again"
        ) from None

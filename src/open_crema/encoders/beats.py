"""Frozen BEATs (iter3+), the paper's encoder of sound, from a converted folder.

The names of its parts are those of the published checkpoint. Sizes are read off the tensors.
"""

from __future__ import annotations

import math
import re
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import audio_utils

from open_crema import backbones
from open_crema.errors import ConfigError, MediaError
from open_crema.features import Features

if TYPE_CHECKING:
    from open_crema.media import Audio

RATE, BANDS, PATCH = 16_000, 128, 16  # Hz; of a spectrogram; its squares
_FRAME, _HOP = 400, 160  # samples
_MEAN, _SPREAD = 15.41663, 2 * 6.55582  # of the spectrograms it was trained on
MAX_DISTANCE = 800  # of relative positions
_SHORTEST_TAIL = 0.48  # seconds: a last piece shorter than that gets no window of its own
Windows = Literal["whole", "start"]


class Beats:
    """Mono sound at 16 kHz to ``[S, K, W]`` tokens of S windows of ``window`` seconds.

    A token is a square of 16 frames (0.16 s) by 16 of 128 bands, row by row in time. windows:
    "whole" covers the track, with its last window's rest masked, and evenly spaced windows where
    there are more than ``max_windows``; "start" is the released code's: always ``max_windows``
    from the start, filled with zeros behind the end, nothing masked (REFERENCE 4.3).

    Raises ConfigError, naming the folder, where that is no BEATs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        window: float = 5.12,
        max_windows: int = 12,
        windows: Windows = "whole",
    ) -> None:
        frames = round(window * RATE / _HOP)
        if frames < PATCH or max_windows < 1:
            raise ValueError(f"window {window} must be at least 0.16 s, max_windows at least 1")
        self.folder, self.window, self.max_windows, self.windows = (
            folder,
            window,
            max_windows,
            windows,
        )
        self.name = str(folder)
        self.frames = frames
        self.width = size_of(folder)[0]
        source = backbones.fingerprint_of(folder)
        self.fingerprint = f"{source}/{window:g}s/{max_windows}/{windows}"

    @cached_property
    def model(self) -> BeatsModel:
        """Loaded when first asked for."""
        try:
            tensors = load_file(self.folder / "model.safetensors")
            with torch.device("meta"):
                model = BeatsModel(tensors)
            model.load_state_dict(tensors, assign=True)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{self.folder}: not a usable BEATs: {reason}") from None
        return model.float().eval().requires_grad_(False)

    def __call__(self, media: Audio, /) -> Features:
        """Encode a track. Raises MediaError when it is empty, not finite or not at 16 kHz."""
        if len(media.samples) == 0 or media.rate != RATE:
            raise MediaError(
                f"{len(media.samples)} samples at {media.rate} Hz; need some at {RATE} Hz"
            )
        if not np.isfinite(media.samples).all():
            raise MediaError("the sound has samples that are not finite numbers; decode it again")
        duration = len(media.samples) / RATE
        starts = self._starts(duration)
        sound = spectrogram(media.samples)
        pieces = torch.zeros(len(starts), self.frames, BANDS)
        mask = torch.ones(len(starts), self.frames // PATCH, dtype=torch.bool)
        for i, start in enumerate(starts):
            first = round(start * RATE / _HOP)
            own = sound[first : first + self.frames]
            pieces[i, : len(own)] = own
            if self.windows == "whole":
                mask[i] = torch.arange(self.frames // PATCH) * PATCH < max(len(own), 1)
        with torch.inference_mode():
            tokens = torch.cat([self.model(piece[None]) for piece in pieces]).clone()
        ends = np.minimum(starts + self.window, max(duration, self.window))
        if self.windows == "whole":
            ends = np.minimum(starts + self.window, duration)
        return Features(
            tokens,
            mask.repeat_interleave(BANDS // PATCH, dim=1),
            torch.from_numpy(np.stack([starts, ends], axis=1) + media.start),
        )

    def _starts(self, duration: float) -> Any:
        """Where the windows start ``[S]``, in seconds of the track."""
        if self.windows == "start":
            return np.arange(self.max_windows) * self.window
        needed = max(1, math.ceil((duration - _SHORTEST_TAIL) / self.window))
        if needed <= self.max_windows:
            return np.arange(needed) * self.window
        part = duration / self.max_windows
        return (np.arange(self.max_windows) + 0.5) * part - self.window / 2


def spectrogram(samples: Any) -> Tensor:
    """``[n]`` samples in -1 .. 1 to ``[frames, 128]``: kaldi's log mel bands, 25 ms every 10 ms,
    scaled as BEATs was trained.

    By transformers, whose bands may be so narrow that no frequency falls into one, as those of the
    released code are; kaldi itself, and kaldi-native-fbank, refuse 128 bands of 16 kHz.
    """
    padded = np.asarray(samples, dtype=np.float64) * 2**15
    if padded.size < _FRAME:  # a sound shorter than a frame
        padded = np.pad(padded, (0, _FRAME - padded.size))
    bands = audio_utils.spectrogram(
        padded,
        audio_utils.window_function(_FRAME, "povey", periodic=False),
        frame_length=_FRAME,
        hop_length=_HOP,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=_mel(),
        log_mel="log",
        mel_floor=float(np.finfo(np.float32).eps),
        remove_dc_offset=True,
    )
    return (torch.from_numpy(bands.T.astype(np.float32)) - _MEAN) / _SPREAD


@cache
def _mel() -> Any:
    return audio_utils.mel_filter_bank(
        num_frequency_bins=257,
        num_mel_filters=BANDS,
        min_frequency=20,
        max_frequency=RATE // 2,
        sampling_rate=RATE,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )


class BeatsModel(nn.Module):
    """``forward([B, frames, 128]) -> [B, frames / 16 * 8, W]``; built to the sizes of tensors."""

    def __init__(self, like: dict[str, Tensor]) -> None:
        super().__init__()
        patches, width = like["patch_embedding.weight"].shape[0], like["encoder.layer_norm.weight"]
        self.patch_embedding = nn.Conv2d(1, patches, PATCH, stride=PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(patches)
        self.post_extract_proj = (
            nn.Linear(patches, len(width)) if "post_extract_proj.weight" in like else None
        )
        self.encoder = _Encoder(like, len(width))

    def forward(self, sound: Tensor) -> Tensor:
        x = self.patch_embedding(sound[:, None]).flatten(2).transpose(1, 2)
        x = self.layer_norm(x)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        encoded: Tensor = self.encoder(x)
        return encoded


class _Encoder(nn.Module):
    def __init__(self, like: dict[str, Tensor], width: int) -> None:
        super().__init__()
        _, each, reach = like["encoder.pos_conv.0.weight_v"].shape
        conv = nn.Conv1d(width, width, reach, padding=reach // 2, groups=width // each)
        # It reads the names of the old weight norm, which the checkpoint has.
        self.pos_conv = nn.Sequential(nn.utils.parametrizations.weight_norm(conv, dim=2))
        self.cut = 1 - reach % 2  # an even kernel gives one place too many
        self.layer_norm = nn.LayerNorm(width)
        found = (re.fullmatch(r"encoder\.layers\.(\d+)\.fc1\.weight", name) for name in like)
        count = len([name for name in found if name])
        inner = len(like["encoder.layers.0.fc1.bias"])
        bias = like["encoder.layers.0.self_attn.relative_attention_bias.weight"]
        self.layers = nn.ModuleList(
            _Layer(width, inner, *bias.shape, alpha=(2 * count) ** 0.25) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        placed = self.pos_conv(x.transpose(1, 2))
        placed = placed[..., : placed.shape[2] - self.cut]
        x = self.layer_norm(x + functional.gelu(placed).transpose(1, 2))
        first: Any = self.layers[0]
        places = first.self_attn.places(x.shape[1], x.device)  # all layers share the first's
        for layer in self.layers:
            x = layer(x, places)
        return x


class _Layer(nn.Module):
    """Post-norm; what a layer adds to is raised by ``alpha`` (DeepNet)."""

    def __init__(self, width: int, inner: int, buckets: int, heads: int, *, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.self_attn = _Attention(width, buckets, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, places))
        inner = self.fc2(functional.gelu(self.fc1(x)))
        normed: Tensor = self.final_layer_norm(self.alpha * x + inner)
        return normed


class _Attention(nn.Module):
    """Self-attention with relative positions that the query gates."""

    def __init__(self, width: int, buckets: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.relative_attention_bias = nn.Embedding(buckets, heads)
        self.grep_linear = nn.Linear(width // heads, 8)
        self.grep_a = nn.Parameter(torch.empty(1, heads, 1, 1))

    def places(self, length: int, device: torch.device) -> Tensor:
        """``[heads, L, L]``: what each distance adds, before the gate. Small distances have a
        bucket each, larger ones share them by their logarithm, as in T5."""
        half = self.relative_attention_bias.num_embeddings // 2
        exact = half // 2
        there = torch.arange(length, device=device)
        distance = there[None] - there[:, None]
        size = distance.abs()
        share = torch.log(size.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
        far = (exact + share * (half - exact)).long().clamp(max=half - 1)
        bucket = torch.where(size < exact, size, far) + (distance > 0) * half
        found: Tensor = self.relative_attention_bias(bucket)
        return found.permute(2, 0, 1)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        q, k, v = (self._split(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        gates = self.grep_linear(q).view(*q.shape[:3], 2, 4).sum(dim=-1).sigmoid()
        first, second = gates.chunk(2, dim=-1)  # [B, heads, L, 1]
        gate = first * (second * self.grep_a - 1.0) + 2.0
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=gate * places)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def size_of(folder: Path) -> tuple[int, int]:
    """Width of its features and number of its parameters, without reading one. Raises
    ConfigError."""
    from safetensors import safe_open

    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
        width = shapes["encoder.layer_norm.weight"][0]
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(f"{folder}: not a BEATs ({' '.join(str(error).split())})") from None
    shared = r"encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight"
    sizes = [math.prod(s) for n, s in shapes.items() if not re.fullmatch(shared, n)]
    return width, sum(sizes)

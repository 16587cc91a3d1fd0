"""Any frozen vision model of transformers, from a local folder: EVA ViT-g/14, CLIP, SigLIP, ..."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from open_crema import backbones, weights
from open_crema.encoders.dinov2 import IMAGENET_MEAN, IMAGENET_STD, prepare
from open_crema.errors import ConfigError, MediaError
from open_crema.features import Features

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from open_crema.media import Frames

_BLIP2 = "blip_2_vision_model"
EVA_G: dict[str, Any] = {  # of BLIP-2
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}


class VisionFolder:
    """Frames ``uint8 [S, H, W, 3]`` to ``[S, K, W]`` tokens, the model's last hidden state.

    The class token, where the model has one, comes first, then the patches row by row. BLIP-2's EVA
    ViT gives what stands before its last norm, which is every adapter's own (paper 3.2; it has the
    BLIP-2 norm's weights at the start). Frames are resized to a square directly; mean and deviation
    are those of the folder's ``preprocessor_config.json``, or ImageNet's without one.

    Raises ConfigError, naming the folder, where it holds no vision model of this resolution.
    """

    def __init__(self, folder: Path, *, resolution: int, batch: int = 8) -> None:
        self.folder, self.resolution, self.batch = folder, resolution, batch
        self.name = str(folder)
        self.width, _ = size_of(folder)
        said = read_json(folder / "config.json")
        patch = said.get("patch_size")
        if said.get("image_size") not in (None, resolution) and said["model_type"] != "dinov2":
            raise ConfigError(
                f"{folder}: takes pictures of {said['image_size']} pixels a side; set "
                f"model.encoders.resolution={said['image_size']}"
            )
        if isinstance(patch, int) and resolution % patch:
            raise ConfigError(f"{folder}: model.encoders.resolution is no multiple of {patch}")
        if isinstance(patch, int):
            self.grid = (resolution // patch, resolution // patch)
        prepared = folder / "preprocessor_config.json"
        scale = read_json(prepared) if prepared.exists() else {}
        self.mean = tuple(scale.get("image_mean") or IMAGENET_MEAN)
        self.std = tuple(scale.get("image_std") or IMAGENET_STD)
        scaled = f"{self.mean}/{self.std}"
        self.fingerprint = f"{backbones.fingerprint_of(folder)}/{resolution}px/{scaled}"

    @cached_property
    def model(self) -> PreTrainedModel:
        """The transformers model, loaded when first asked for. Raises ConfigError, WeightsError."""
        from transformers import AutoModel, Blip2VisionConfig, Blip2VisionModel

        try:
            if read_json(self.folder / "config.json")["model_type"] != _BLIP2:
                loaded: PreTrainedModel = weights.load_frozen(AutoModel, self.folder)
                return loaded
            config = Blip2VisionConfig.from_pretrained(self.folder)
            with torch.device("meta"):
                model: Any = Blip2VisionModel(config)
            model.post_layernorm = nn.Identity()
            model.load_state_dict(self._tensors(), assign=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{self.folder}: not a usable vision model: {reason}") from None
        frozen: PreTrainedModel = model.eval().requires_grad_(False)
        return frozen

    def _tensors(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return found

    def __call__(self, media: Frames, /) -> Features:
        """Encode frames, ``batch`` at a time. Raises MediaError when there are none."""
        count = len(media.images)
        if count == 0:
            raise MediaError("there is no frame to encode; give a video with at least one frame")
        tokens = []
        kind = next(self.model.parameters()).dtype
        for start in range(0, count, self.batch):
            some = media.images[start : start + self.batch]
            pixels = prepare(some, self.resolution, self.mean, self.std)
            with torch.inference_mode():
                found = self.model(pixel_values=pixels.to(kind)).last_hidden_state
            tokens.append(found.float().clone())
        stacked = torch.cat(tokens)
        return Features(
            stacked,
            torch.ones(stacked.shape[:2], dtype=torch.bool),
            torch.from_numpy(np.asarray(media.times, dtype=np.float64)),
        )


def size_of(folder: Path) -> tuple[int, int]:
    """Width of its features and number of its parameters, without reading one.

    Raises ConfigError, naming the folder, where it is no vision model's.
    """
    said = read_json(folder / "config.json")
    said = said.get("vision_config", said)
    width = said.get("hidden_size")
    if not isinstance(width, int):
        raise ConfigError(f"{folder}: no vision model (config.json says no hidden_size)")
    count = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                count += int(np.prod(opened.get_slice(name).get_shape()))
    if not count:
        raise ConfigError(f"{folder}: holds no *.safetensors; pickled weights are not read")
    return width, count


def config_of(folder: Path) -> Any:
    """transformers' configuration of the folder's model. Raises ConfigError."""
    from transformers import CONFIG_MAPPING, Blip2VisionConfig

    said = read_json(folder / "config.json")
    kind = said.get("model_type")
    if kind == _BLIP2:
        return Blip2VisionConfig(**said)
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"{folder}: config.json names no model of transformers ({kind!r})")
    return CONFIG_MAPPING[kind](**said)


def read_json(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return said

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

from open_crema import backbones, repositories, weights
from open_crema.encoders.dinov2 import IMAGENET_MEAN, IMAGENET_STD, prepare
from open_crema.errors import ConfigError, MediaError
from open_crema.features import Features

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from open_crema.media import Frames

REPOSITORY = "Salesforce/blip2-flan-t5-xl"
_INDEX = "model.safetensors.index.json"
_SMALL = ("config.json", "preprocessor_config.json", _INDEX)
_BLIP2 = "blip_2_vision_model"
_PREFIX = "vision_model."  # of the ViT in a whole BLIP-2
_NORM = f"{_PREFIX}post_layernorm."  # which is every adapter's own
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # which EVA keeps to
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
EVA_G: dict[str, Any] = {  # of BLIP-2
    "hidden_size": 1408,
    "intermediate_size": 6144,
    "num_hidden_layers": 39,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}


class EvaVitG:
    """EVA ViT-g/14 of BLIP-2 from the hub: :class:`VisionFolder` for ``REPOSITORY``, of which the
    files that hold the ViT alone are downloaded, at the first call.

    Frames ``uint8 [S, H, W, 3]`` to ``[S, 257, 1408]`` tokens. The ViT is the same in every BLIP-2.
    Raises ValueError for another resolution than 224, WeightsError where it cannot be had.
    """

    name = "eva-vit-g"
    width = EVA_G["hidden_size"]

    def __init__(
        self, *, resolution: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> None:
        if resolution != EVA_G["image_size"]:
            raise ValueError(f"resolution {resolution}; it takes pictures of 224 pixels a side")
        self.resolution, self.dtype, self.device = resolution, dtype, device
        side = resolution // EVA_G["patch_size"]
        self.grid = (side, side)
        self.fingerprint = f"{self.name}:{REPOSITORY}/{resolution}px{_told(dtype)}"

    @cached_property
    def folder(self) -> VisionFolder:
        """What encodes; its files are downloaded when it is first asked for."""
        return VisionFolder(
            fetch(), resolution=self.resolution, dtype=self.dtype, device=self.device
        )

    @property
    def model(self) -> PreTrainedModel:
        return self.folder.model

    def __call__(self, media: Frames, /) -> Features:
        return self.folder(media)


def fetch() -> Path:
    """The local folder of BLIP-2's files that hold its ViT. Raises WeightsError, ConfigError."""
    folder = repositories.snapshot(REPOSITORY, _SMALL)
    index, shards = folder / _INDEX, ["model.safetensors"]
    if index.exists():
        places = read_json(index).get("weight_map", {})
        shards = sorted({file for name, file in places.items() if name.startswith(_PREFIX)})
    return repositories.snapshot(REPOSITORY, [*_SMALL, *shards])


class VisionFolder:
    """Frames ``uint8 [S, H, W, 3]`` to ``[S, K, W]`` tokens, the model's last hidden state.

    folder: of a vision model, or of a whole BLIP-2, of which the ViT alone is read. dtype, device:
    of the weights, which are read tensor by tensor and never there twice.

    The class token, where the model has one, comes first, then the patches row by row. BLIP-2's EVA
    ViT gives what stands before its last norm, which is every adapter's own (paper 3.2; it has the
    BLIP-2 norm's weights at the start). Frames are resized to a square directly; mean and deviation
    are those of the folder's ``preprocessor_config.json``, or without one ImageNet's (CLIP's for a
    BLIP-2).

    Raises ConfigError, naming the folder, where it holds no vision model of this resolution.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resolution: int,
        batch: int = 8,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        weights.check_device(device, "model.encoders.device")
        self.folder, self.resolution, self.batch = folder, resolution, batch
        self.dtype, self.device = dtype, device
        self.name = str(folder)
        self.width, _ = size_of(folder)
        said, self._prefix = _said(folder)
        patch = said.get("patch_size")
        self._blip2 = said.get("model_type") == _BLIP2
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
        self.mean = tuple(scale.get("image_mean") or (CLIP_MEAN if self._blip2 else IMAGENET_MEAN))
        self.std = tuple(scale.get("image_std") or (CLIP_STD if self._blip2 else IMAGENET_STD))
        scaled = f"{self.mean}/{self.std}"
        self.fingerprint = f"{backbones.fingerprint_of(folder)}/{resolution}px/{scaled}"
        self.fingerprint += _told(dtype)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The transformers model, loaded when first asked for. Raises ConfigError, WeightsError."""
        from transformers import AutoModel, Blip2VisionConfig, Blip2VisionModel

        try:
            if not self._blip2:
                loaded: Any = weights.load_frozen(AutoModel, self.folder, dtype=self.dtype)
                moved: PreTrainedModel = loaded.to(self.device)
                return moved
            config = Blip2VisionConfig(**_said(self.folder)[0])
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
                for name in opened.keys():  # noqa: SIM118
                    if name.startswith(self._prefix) and not name.startswith(_NORM):
                        tensor = opened.get_tensor(name).to(self.device, self.dtype)
                        found[name.removeprefix(self._prefix)] = tensor
        return found

    def __call__(self, media: Frames, /) -> Features:
        """Encode frames, ``batch`` at a time. Raises MediaError when there are none."""
        count = len(media.images)
        if count == 0:
            raise MediaError("there is no frame to encode; give a video with at least one frame")
        tokens = []
        for start in range(0, count, self.batch):
            some = media.images[start : start + self.batch]
            pixels = prepare(some, self.resolution, self.mean, self.std)
            with torch.inference_mode():
                found = self.model(
                    pixel_values=pixels.to(self.device, self.dtype)
                ).last_hidden_state
            # A clone made outside inference mode may take part in training.
            tokens.append(found.float().cpu().clone())
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
    said, prefix = _said(folder)
    width = said.get("hidden_size")
    if not isinstance(width, int):
        raise ConfigError(f"{folder}: no vision model (config.json says no hidden_size)")
    count = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if not name.startswith(prefix) or name.startswith(_NORM):
                    continue
                count += int(np.prod(opened.get_slice(name).get_shape()))
    if not count:
        raise ConfigError(f"{folder}: holds no *.safetensors; pickled weights are not read")
    return width, count


def config_of(folder: Path) -> Any:
    """transformers' configuration of the folder's model. Raises ConfigError."""
    from transformers import CONFIG_MAPPING, Blip2VisionConfig

    said, _ = _said(folder)
    kind = said.get("model_type")
    if kind == _BLIP2:
        return Blip2VisionConfig(**said)
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"{folder}: config.json names no model of transformers ({kind!r})")
    return CONFIG_MAPPING[kind](**said)


def _said(folder: Path) -> tuple[dict[str, Any], str]:
    """The vision model's configuration, and what its tensors' names start with."""
    said = read_json(folder / "config.json")
    own = said.get("vision_config")
    if not isinstance(own, dict):
        return said, ""
    if said.get("model_type") == "blip-2":
        return {**own, "model_type": _BLIP2}, _PREFIX
    return own, ""


def _told(dtype: torch.dtype) -> str:
    return "" if dtype == torch.float32 else f"/{dtype}"


def read_json(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return said

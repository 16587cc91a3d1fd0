"""Frozen DINOv2-S over frames: patch tokens of each image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from open_crema import weights
from open_crema.errors import MediaError
from open_crema.features import Features

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from open_crema.media import Frames

NAME = "dinov2-small-focus"
PATCH = 14
TAP = "/backbone/layernorm/Add_1_output_0"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# Frozen, so the encoders of pictures and of points share one while either is in use.
_loaded: WeakValueDictionary[tuple[Path, torch.dtype, str], PreTrainedModel] = WeakValueDictionary()


def fetch() -> Path:
    """The folder of the converted backbone, downloaded first where missing. Raises WeightsError."""
    return weights.ensure(NAME, _convert)


class DinoV2:
    """Frames ``uint8 [S, H, W, 3]`` to ``[S, 1 + (resolution / 14)^2, 384]`` tokens.

    The class token comes first, then the patches row by row (``grid`` is their rows and columns),
    all after the last layer norm; every token is real. A frame is resized to a square directly,
    without cropping, so nothing at its border is lost and a wide frame is squeezed. Segment times
    are the frames' own. The weights wait for the first call, which downloads them where they are
    missing (WeightsError).
    """

    name = "dinov2-small"
    width = 384

    def __init__(
        self,
        resolution: int = 112,
        *,
        batch: int = 16,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        if resolution <= 0 or resolution % PATCH:
            raise ValueError(f"resolution {resolution} is not a positive multiple of {PATCH}")
        if batch < 1:
            raise ValueError(f"batch {batch} must be at least 1 frame")
        self.resolution = resolution
        self.grid = (resolution // PATCH, resolution // PATCH)
        self.batch = batch
        self.dtype = dtype
        self.device = device
        self.fingerprint = f"{weights.fingerprint(NAME)}/{resolution}px/{dtype}"

    @cached_property
    def model(self) -> PreTrainedModel:
        """The transformers model, loaded when first asked for. Raises WeightsError."""
        from transformers import Dinov2Model

        key = (fetch(), self.dtype, self.device)
        if (loaded := _loaded.get(key)) is not None:
            return loaded
        model: PreTrainedModel = weights.load_frozen(Dinov2Model, key[0], dtype=self.dtype)
        _loaded[key] = model.to(self.device)
        return model

    def __call__(self, media: Frames, /) -> Features:
        """Encode frames, ``batch`` at a time. Raises MediaError when there are none."""
        count = len(media.images)
        if count == 0:
            raise MediaError("there is no frame to encode; give a video with at least one frame")
        tokens = []
        for start in range(0, count, self.batch):
            pixels = prepare(media.images[start : start + self.batch], self.resolution)
            with torch.inference_mode():
                found = self.model(pixels.to(self.device, self.dtype)).last_hidden_state
            # A clone made outside inference mode may take part in training.
            tokens.append(found.float().cpu().clone())
        stacked = torch.cat(tokens)
        return Features(
            stacked,
            torch.ones(stacked.shape[:2], dtype=torch.bool),
            torch.from_numpy(np.asarray(media.times, dtype=np.float64)),
        )


def prepare(
    images: npt.NDArray[np.uint8],
    resolution: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """``uint8 [S, H, W, 3]`` RGB to ``float32 [S, 3, resolution, resolution]`` at that scale."""
    resized = []
    for image in images:  # one at a time: a batch of large frames in float would take gigabytes
        planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        resized.append(
            functional.interpolate(
                planes, (resolution, resolution), mode="bicubic", antialias=True
            ).clamp(0, 255)
        )
    middle = torch.tensor(mean).view(3, 1, 1)
    return (torch.cat(resized) / 255 - middle) / torch.tensor(std).view(3, 1, 1)


def _convert(raw: Path, out: Path) -> None:
    import onnx
    from transformers import Dinov2Config

    model = onnx.load(raw)
    save_file(_tensors(model.graph), out / "model.safetensors", metadata={"format": "pt"})
    Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=518, use_mask_token=False
    ).save_pretrained(out)
    save_file(_taps(model), out / "onnx_taps.safetensors")


def _tensors(graph: Any) -> dict[str, Tensor]:
    """The backbone's tensors by their names in transformers."""
    from onnx import numpy_helper

    constants = {
        entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy())
        for entry in graph.initializer
    }
    prefix = "backbone."
    tensors = {
        name.removeprefix(prefix): constant
        for name, constant in constants.items()
        if name.startswith(prefix)
    }
    position: dict[str, Tensor] = {}
    for node in graph.node:
        anonymous = [name for name in node.input if name.startswith("onnx::") and name in constants]
        if not anonymous:
            continue
        constant = constants[anonymous[0]]
        if node.op_type == "MatMul":  # x @ W, where torch keeps the transpose of W
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{name}.weight"] = constant.T.contiguous()
        else:  # the export keeps the class row and the grid of the position embedding apart
            position[node.op_type] = constant
    tensors["embeddings.position_embeddings"] = torch.cat(
        [position["Concat"], position["Reshape"]], dim=1
    )
    return tensors


def _taps(model: Any) -> dict[str, Tensor]:
    """The ONNX's own tokens of a random image at two sizes, so that the mapping can be checked."""
    import onnx
    import onnxruntime

    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"pixels_{axis}"
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(TAP, onnx.TensorProto.FLOAT, ["batch", "tokens", 384])
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    generator = np.random.default_rng(0)
    taps = {}
    for size in (112, 224):
        pixels = generator.standard_normal((1, 3, size, size), dtype=np.float32)
        tokens = session.run([TAP], {session.get_inputs()[0].name: pixels})[0]
        taps[f"pixels_{size}"] = torch.from_numpy(pixels)
        taps[f"tokens_{size}"] = torch.from_numpy(tokens)
    return taps

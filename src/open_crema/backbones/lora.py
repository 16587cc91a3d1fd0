"""A low-rank update of an LLM, in the layout of the PEFT library, merged into its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from open_crema.errors import WeightsError

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
TEMPLATE = "chat_template.jinja"  # where the update was trained on another than the LLM's own
# What PEFT would scale, transpose or add otherwise.
_OTHER_SUMS = ("use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern")
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


@torch.no_grad()
def merge(llm: Any, folder: Path, *, base: str) -> str:
    """Adds ``alpha / r * B A`` to each weight ``[out, in]`` that the update names, A ``[r, in]``, B
    ``[out, r]``. Returns the sha256 of the update's tensors.

    base: what the update must have been made for. Raises WeightsError where it does not fit.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        scale = config["lora_alpha"] / config["r"]
        other = [name for name in _OTHER_SUMS if config.get(name)]
        meant = config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise WeightsError(f"{folder}: no low-rank update that can be read ({error})") from None
    if meant != base:
        raise WeightsError(f"{folder}: an update of {meant!r}, not of {base!r}")
    if other:
        raise WeightsError(f"{folder}: {other[0]} is set; only a plain low-rank update is merged")
    weights, left = dict(llm.named_parameters()), set(tensors)
    for name in sorted(tensors):
        if not name.endswith(_A):
            continue
        target = name.removeprefix(_PREFIX).removesuffix(_A)
        a, b = tensors[name].float(), tensors.get(name.removesuffix(_A) + _B)
        weight = weights.get(f"{target}.weight")
        if weight is None or b is None or weight.shape != (b.shape[0], a.shape[1]):
            raise WeightsError(f"{folder}: {name} does not fit the LLM; make the update again")
        weight += (scale * (b.float() @ a)).to(weight)
        left -= {name, name.removesuffix(_A) + _B}
    if left:
        raise WeightsError(f"{folder}: {min(left)} is no part of a plain low-rank update")
    return hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()

"""The frozen parts that a checkpoint holds, as folders that transformers reads, and back.

MODEL/llm/                  T5, in the transformers layout
MODEL/encoders/eva-vit-g/   EVA ViT, as transformers' Blip2VisionModel has it
MODEL/encoders/beats-iter3/ BEATs, by its own names
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from open_crema.convert import sizes
from open_crema.convert.source import Entry, State, read_folder
from open_crema.encoders.vision import CLIP_MEAN, CLIP_STD
from open_crema.errors import WeightsError
from open_crema.storage import write_json

LLM, EVA, BEATS = "llm", "encoders/eva-vit-g", "encoders/beats-iter3"
_SHARD = 2 * 2**30  # bytes: no more than this is in memory at once
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight


def _eva_names(layers: int) -> dict[str, str]:
    """The released code's -> transformers', but for the biases of query and value."""
    table = {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
    }
    both = {"patch_embed.proj": "embeddings.patch_embedding"}
    for i in range(layers):
        old, new = f"blocks.{i}", f"encoder.layers.{i}"
        table[f"{old}.attn.qkv.weight"] = f"{new}.self_attn.qkv.weight"
        both |= {
            f"{old}.attn.proj": f"{new}.self_attn.projection",
            f"{old}.norm1": f"{new}.layer_norm1",
            f"{old}.norm2": f"{new}.layer_norm2",
            f"{old}.mlp.fc1": f"{new}.mlp.fc1",
            f"{old}.mlp.fc2": f"{new}.mlp.fc2",
        }
    for kind in ("weight", "bias"):
        table |= {f"{old}.{kind}": f"{new}.{kind}" for old, new in both.items()}
    return table


def without(state: State, prefix: str) -> State:
    """The entries under a prefix, named without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def write_llm(state: State, folder: Path, tokenizer: Path | None) -> None:
    """A T5. tokenizer: a folder with the files of its tokenizer, which no checkpoint holds."""
    if "shared.weight" not in state:
        raise WeightsError("t5_model: no shared.weight; not a T5")
    shared = state["shared.weight"].load()
    for name in _COPIES:
        if name in state and not torch.equal(state[name].load(), shared):
            raise WeightsError(f"t5_model.{name} differs from t5_model.shared.weight: not a T5")
    own = {name: entry for name, entry in state.items() if name not in _COPIES}
    _write(own, folder, sizes.t5_config(own))
    if tokenizer is not None:
        files = [
            f for f in tokenizer.iterdir() if re.match(r"(tokenizer|spiece|special_tok)", f.name)
        ]
        if not files:
            raise WeightsError(
                f"{tokenizer}: no files of a tokenizer (tokenizer.json, spiece.model)"
            )
        for file in files:
            shutil.copyfile(file, folder / file.name)


def write_vision(state: State, folder: Path, heads: int | None) -> None:
    """An EVA ViT by transformers' names, without the norm after it, which is every sense's own."""
    config = sizes.vision_config(state, heads)
    _write(state, folder, config)
    size = {"height": config["image_size"], "width": config["image_size"]}
    said = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "size": size}
    write_json(folder / "preprocessor_config.json", said)


def write_beats(state: State, folder: Path) -> None:
    """By its own names."""
    _write(state, folder, {"model_type": "beats"})


def eva_to_transformers(state: State) -> State:
    """By transformers' names: the biases of query and value, with zeros for the key's, are one.

    Raises WeightsError that lists what is no tensor of an EVA ViT, or is not there.
    """
    if not state:
        return {}
    layers = len([name for name in state if name.endswith(".attn.qkv.weight")])
    table = _eva_names(layers)
    biases = {f"blocks.{i}.attn.{part}_bias" for i in range(layers) for part in "qv"}
    if wrong := sorted({*state} ^ {*table, *biases}):
        raise WeightsError(
            f"visual_encoder: missing or not of an EVA ViT of {layers} layers: {', '.join(wrong)}"
        )
    found = {new: state[old] for old, new in table.items()}
    for i in range(layers):
        query, value = (state[f"blocks.{i}.attn.{part}_bias"] for part in "qv")
        whole = Entry((3 * query.shape[0],), partial(_joined, query, value))
        found[f"encoder.layers.{i}.self_attn.qkv.bias"] = whole
    return found


def eva_from_transformers(state: State) -> State:
    layers = len([name for name in state if name.endswith(".self_attn.qkv.weight")])
    found = {old: state[new] for old, new in _eva_names(layers).items()}
    for i in range(layers):
        whole = state[f"encoder.layers.{i}.self_attn.qkv.bias"]
        width = whole.shape[0] // 3
        for part, start in (("q", 0), ("v", 2 * width)):
            own = Entry((width,), partial(_part, whole, start, width))
            found[f"blocks.{i}.attn.{part}_bias"] = own
    return found


def read(model: Path, kept: list[str]) -> State:
    """The frozen parts that stand beside a model, by the released code's names. kept: the names
    that the checkpoint had, copies among them."""
    state: State = {}
    if (model / LLM).is_dir():
        own = read_folder(model / LLM)
        for name in _COPIES:
            if f"t5_model.{name}" in kept:
                own[name] = own["shared.weight"]
        state |= {f"t5_model.{name}": entry for name, entry in own.items()}
    if (model / EVA).is_dir():
        own = eva_from_transformers(read_folder(model / EVA))
        state |= {f"visual_encoder.{name}": entry for name, entry in own.items()}
    if (model / BEATS).is_dir():
        own = read_folder(model / BEATS)
        state |= {f"audio_encoder.model.{name}": entry for name, entry in own.items()}
    return state


def _write(state: State, folder: Path, config: dict[str, Any]) -> None:
    """Shard by shard, so that no second copy of billions of weights is in memory."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    shards = list(_shards(state))
    places: dict[str, str] = {}
    for i, shard in enumerate(shards):
        file = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        )
        tensors = {name: state[name].load().contiguous().clone() for name in shard}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def _shards(state: State) -> Iterator[list[str]]:
    shard: list[str] = []
    held = 0
    for name, entry in state.items():
        size = 4 * torch.Size(entry.shape).numel()
        if shard and held + size > _SHARD:
            yield shard
            shard, held = [], 0
        shard.append(name)
        held += size
    yield shard


def _joined(query: Entry, value: Entry) -> Tensor:
    q, v = query.load(), value.load()
    return torch.cat([q, torch.zeros_like(q), v])


def _part(entry: Entry, start: int, length: int) -> Tensor:
    return entry.load()[start : start + length]

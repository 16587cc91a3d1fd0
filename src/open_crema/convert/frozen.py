"""The frozen parts that a checkpoint holds, as folders that transformers reads, and back.

MODEL/llm/                  T5, in the transformers layout
MODEL/encoders/eva-vit-g/   EVA ViT, as transformers' Blip2VisionModel has it
MODEL/encoders/beats-iter3/ BEATs, by its own names
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from open_crema.convert import sizes
from open_crema.convert.source import Entry, State, read_folder
from open_crema.encoders.vision import CLIP_MEAN, CLIP_STD
from open_crema.errors import WeightsError
from open_crema.storage import write_json, write_tensors

T5, VIT, SOUND = "t5_model.", "visual_encoder.", "audio_encoder.model."
LLM, EVA, BEATS = "llm", "encoders/eva-vit-g", "encoders/beats-iter3"
_SHARD = 2 * 2**30  # bytes: no more than this is in memory at once
_PLACES = ".self_attn.relative_attention_bias.weight"  # a copy in every layer of BEATs
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight
Shapes = dict[str, tuple[int, ...]]


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
    shared = state["shared.weight"].load()
    for name in _COPIES:
        if name in state and not torch.equal(state[name].load(), shared):
            raise WeightsError(f"{T5}{name} differs from {T5}shared.weight: not a T5")
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


def write_beats(state: State, folder: Path, said: Mapping[str, Any] | None = None) -> None:
    """By its own names. said: more of its configuration; nothing of it needs to be known.

    Raises WeightsError where its layers do not share their relative positions, as those of every
    BEATs do.
    """
    first, *others = (name for name in state if name.endswith(_PLACES))
    for name in others:
        if not torch.equal(state[name].load(), state[first].load()):
            raise WeightsError(f"{name} differs from {first}: not a BEATs")
    _write(state, folder, {"model_type": "beats", **(said or {})})


def faults(live: State, vision_heads: int | None) -> tuple[list[str], list[str]]:
    """What of T5, ViT and BEATs does not fit, in words, and which keys are no part of them.

    live: a checkpoint's tensors by the released code's names.
    """
    wrong: list[str] = []
    others = sorted(k for k in live if k.startswith("audio_encoder.") and not k.startswith(SOUND))
    for prefix, expected in (
        (T5, _t5_shapes(without(live, T5), wrong)),
        (VIT, _vit_shapes(without(live, VIT), vision_heads, wrong)),
        (SOUND, beats_shapes(without(live, SOUND), wrong)),
    ):
        state = without(live, prefix)
        if state and expected is not None:
            unfit, unknown = compared(state, expected, prefix)
            wrong += unfit
            others += unknown
    return wrong, others


def compared(state: State, expected: Shapes, prefix: str = "") -> tuple[list[str], list[str]]:
    """Which tensors are missing or of another shape, in words, and which keys are not expected.
    prefix: before each of their names."""
    wrong = [f"missing {prefix}{key}" for key in sorted({*expected} - {*state} - {*_COPIES})]
    wrong += [
        f"{prefix}{key} is {list(entry.shape)}, expected {list(expected[key])}"
        for key, entry in sorted(state.items())
        if key in expected and entry.shape != expected[key]
    ]
    return wrong, [f"{prefix}{key}" for key in sorted({*state} - {*expected})]


def _t5_shapes(state: State, wrong: list[str]) -> Shapes | None:
    """Of every tensor of the T5 that a checkpoint's keys say."""
    from transformers import T5Config, T5ForConditionalGeneration

    if not state:
        return None
    try:
        config = sizes.t5_config(state)
        with torch.device("meta"):
            llm = T5ForConditionalGeneration(T5Config(**config))
    except KeyError as error:  # without it there is nothing to compare with
        wrong.append(f"missing {T5}{error.args[0]}")
        return None
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        wrong.append(f"{T5}* has the shapes of no T5 ({error})")
        return None
    found = {name: tuple(tensor.shape) for name, tensor in llm.state_dict().items()}
    if config["tie_word_embeddings"]:
        del found["lm_head.weight"]
    return found


def _vit_shapes(state: State, heads: int | None, wrong: list[str]) -> Shapes | None:
    from transformers import Blip2VisionConfig, Blip2VisionModel

    if not state:
        return None
    layers = sum(name.endswith(".attn.qkv.weight") for name in state)
    measured = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    table = _eva_names(layers)
    if lacking := [name for name in measured if name not in state]:
        wrong.extend(f"missing {VIT}{name}" for name in lacking)
        return None
    known = {new: state[old] for old, new in table.items() if old in state}
    try:
        with torch.device("meta"):
            vit = Blip2VisionModel(Blip2VisionConfig(**sizes.vision_config(known, heads)))
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        wrong.append(f"{VIT}* has the shapes of no EVA ViT, or --vision-heads is wrong ({error})")
        return None
    shapes = {name: tuple(tensor.shape) for name, tensor in vit.state_dict().items()}
    found = {old: shapes[new] for old, new in table.items()}
    width = found["cls_token"][-1]
    biases = [f"blocks.{i}.attn.{part}_bias" for i in range(layers) for part in "qv"]
    return found | dict.fromkeys(biases, (width,))


def beats_shapes(like: State, wrong: list[str], prefix: str = SOUND) -> Shapes | None:
    """Of every tensor of a BEATs that is of the sizes of these; None, and why among ``wrong``,
    where they are those of none. prefix: before the names there."""
    from open_crema.encoders.beats import BeatsModel

    if not like:
        return None
    try:
        with torch.device("meta"):
            model = BeatsModel({name: torch.empty(entry.shape) for name, entry in like.items()})
    except KeyError as error:
        wrong.append(f"missing {prefix}{error.args[0]}")
        return None
    except (ValueError, ZeroDivisionError, RuntimeError) as error:
        wrong.append(f"{prefix}* has the shapes of no BEATs ({error})")
        return None
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):  # of a weight norm
        conv = "encoder.pos_conv.0."
        shapes[f"{conv}{old}"] = shapes.pop(f"{conv}parametrizations.weight.{new}")
    return shapes


def eva_to_transformers(state: State) -> State:
    """By transformers' names: the biases of query and value, with zeros for the key's, are one."""
    if not state:
        return {}
    layers = sum(name.endswith(".attn.qkv.weight") for name in state)
    found = {new: state[old] for old, new in _eva_names(layers).items()}
    for i in range(layers):
        query, value = (state[f"blocks.{i}.attn.{part}_bias"] for part in "qv")
        whole = Entry((3 * query.shape[0],), partial(_joined, query, value))
        found[f"encoder.layers.{i}.self_attn.qkv.bias"] = whole
    return found


def eva_from_transformers(state: State) -> State:
    """By the released code's names; what has none keeps its own. The key's bias goes: it moves all
    scores of a query alike, so attention is the same without it."""
    layers = sum(name.endswith(".self_attn.qkv.weight") for name in state)
    names = {new: old for old, new in _eva_names(layers).items()}
    biases = [f"encoder.layers.{i}.self_attn.qkv.bias" for i in range(layers)]
    found = {names.get(name, name): state[name] for name in state if name not in biases}
    for i, name in enumerate(biases):
        if name not in state:
            continue
        whole = state[name]
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
            if f"{T5}{name}" in kept:
                own[name] = own["shared.weight"]
        state |= {f"{T5}{name}": entry for name, entry in own.items()}
    if (model / EVA).is_dir():
        own = eva_from_transformers(read_folder(model / EVA))
        state |= {f"{VIT}{name}": entry for name, entry in own.items()}
    if (model / BEATS).is_dir():
        own = read_folder(model / BEATS)
        state |= {f"{SOUND}{name}": entry for name, entry in own.items()}
    return state


def _write(state: State, folder: Path, config: dict[str, Any]) -> None:
    """Shard by shard, so that no second copy of billions of weights is in memory."""
    folder.mkdir(parents=True, exist_ok=True)
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
        write_tensors(folder / file, tensors, {"format": "pt"})
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

"""Random state dicts with the official names, at a tiny size, where every parameter matters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from reference.plain import Tensors, base_name

# The official class registers its per-modality parts in these orders.
QUERY_ORDER = ("rgb", "flow", "norm", "depth", "pc", "audio")
LORA_ORDER = ("rgb", "depth", "flow", "norm", "pc", "audio")


class Draw:
    """Named random tensors from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.tensors: Tensors = {}

    def normal(self, name: str, shape: Sequence[int], std: float, mean: float = 0.0) -> Tensor:
        value = torch.randn(*shape, generator=self.generator) * std + mean
        self.tensors[name] = value
        return value

    def linear(self, name: str, out: int, width: int) -> None:
        self.normal(f"{name}.weight", (out, width), 0.8 * width**-0.5)
        self.normal(f"{name}.bias", (out,), 0.08)

    def norm(self, name: str, width: int) -> None:
        self.normal(f"{name}.weight", (width,), 0.08, mean=1.0)
        self.normal(f"{name}.bias", (width,), 0.08)


def random_weights(
    size: Mapping[str, Any], modalities: Sequence[str], task: str, generator: torch.Generator
) -> Tensors:
    """A full state dict for a modality set; the fusion layer only where `task` has espresso."""
    names = {base_name(m) for m in modalities}
    hidden, width, d_model = size["qf"]["hidden_size"], size["width"], size["t5"]["d_model"]
    draw = Draw(generator)
    present = [m for m in QUERY_ORDER if m in names]
    for m in present:
        draw.normal(f"query_tokens_{m}", (1, size["num_query"], hidden), 1.0)
    if "audio" in names:
        draw.norm("ln_audio", width)
    _draw_qformer(draw, size, [m for m in LORA_ORDER if m in names])
    _draw_llm(draw, size["t5"])
    for m in present:
        draw.linear(f"t5_proj_{m}", d_model, hidden)
        if m != "audio":
            draw.norm(f"ln_{m}", width)
    if "audio" in names:
        draw.linear("projection_audio", width, size["beats"]["encoder_embed_dim"])
    if "espresso" in task:
        draw.linear("fusion.0", d_model, d_model * (len(names) - 1))
    return draw.tensors


def _draw_qformer(draw: Draw, size: Mapping[str, Any], lora: Sequence[str]) -> None:
    qf, rank = size["qf"], size["rank"]
    hidden, inner, width = qf["hidden_size"], qf["intermediate_size"], size["width"]
    positions = torch.arange(qf["max_position_embeddings"])[None]
    draw.tensors["Qformer.bert.embeddings.position_ids"] = positions
    draw.norm("Qformer.bert.embeddings.LayerNorm", hidden)
    for i in range(qf["num_hidden_layers"]):
        layer = f"Qformer.bert.encoder.layer.{i}"
        for part in ("query", "value"):
            projection = f"{layer}.attention.self.{part}"
            draw.linear(f"{projection}.w", hidden, hidden)
            for m in lora:
                draw.normal(f"{projection}.w_a_{m}.weight", (rank, hidden), 0.3)
                draw.normal(f"{projection}.w_b_{m}.weight", (hidden, rank), 0.3)
        draw.linear(f"{layer}.attention.self.key", hidden, hidden)
        draw.linear(f"{layer}.attention.output.dense", hidden, hidden)
        draw.norm(f"{layer}.attention.output.LayerNorm", hidden)
        if i % 2 == 0:
            cross = f"{layer}.crossattention"
            draw.linear(f"{cross}.self.query", hidden, hidden)
            draw.linear(f"{cross}.self.key", hidden, width)
            draw.linear(f"{cross}.self.value", hidden, width)
            draw.linear(f"{cross}.output.dense", hidden, hidden)
            draw.norm(f"{cross}.output.LayerNorm", hidden)
        draw.linear(f"{layer}.intermediate_query.dense", inner, hidden)
        draw.linear(f"{layer}.output_query.dense", hidden, inner)
        draw.norm(f"{layer}.output_query.LayerNorm", hidden)


def _draw_llm(draw: Draw, t5: Mapping[str, Any]) -> None:
    with torch.device("meta"):
        shapes = T5ForConditionalGeneration(T5Config(**t5)).state_dict()
    for key, like in shapes.items():
        name = f"t5_model.{key}"
        if key.endswith("embed_tokens.weight"):
            draw.tensors[name] = draw.tensors["t5_model.shared.weight"].clone()
        elif key.endswith("layer_norm.weight"):
            draw.normal(name, like.shape, 0.08, mean=0.2)
        else:
            draw.normal(name, like.shape, 0.25 if like.shape[0] == t5["vocab_size"] else 0.16)


def random_vit(*, width: int, layers: int = 2, side: int = 4) -> dict[str, Tensor]:
    """An EVA ViT of 14 x 14 patches by the published class's names; side: patches in a row."""
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) / 3

    found = {
        "cls_token": normal(1, 1, width),
        "pos_embed": normal(1, side * side + 1, width),
        "patch_embed.proj.weight": normal(width, 3, 14, 14),
        "patch_embed.proj.bias": normal(width),
    }
    for i in range(layers):
        for name, shape in {
            "norm1": (width,),
            "norm2": (width,),
            "attn.proj": (width, width),
            "mlp.fc1": (60, width),
            "mlp.fc2": (width, 60),
        }.items():
            found[f"blocks.{i}.{name}.weight"] = normal(*shape)
            found[f"blocks.{i}.{name}.bias"] = normal(shape[0])
        found[f"blocks.{i}.attn.qkv.weight"] = normal(3 * width, width)
        found[f"blocks.{i}.attn.q_bias"] = normal(width)
        found[f"blocks.{i}.attn.v_bias"] = normal(width)
    return {f"visual_encoder.{name}": tensor for name, tensor in found.items()}


def random_beats(width: int = 24, patches: int = 16, heads: int = 3, layers: int = 2) -> Tensors:
    """A BEATs by the published checkpoint's names."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.2

    found = {
        "patch_embedding.weight": normal(patches, 1, 16, 16),
        "layer_norm.weight": torch.ones(patches),
        "layer_norm.bias": normal(patches),
        "post_extract_proj.weight": normal(width, patches),
        "post_extract_proj.bias": normal(width),
        "encoder.pos_conv.0.bias": normal(width),
        "encoder.pos_conv.0.weight_g": torch.ones(1, 1, 8),
        "encoder.pos_conv.0.weight_v": normal(width, width // 4, 8),
        "encoder.layer_norm.weight": torch.ones(width),
        "encoder.layer_norm.bias": normal(width),
    }
    places = normal(32, heads)
    for i in range(layers):
        at = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found[f"{at}.self_attn.{name}.weight"] = normal(width, width)
            found[f"{at}.self_attn.{name}.bias"] = normal(width)
        found[f"{at}.self_attn.relative_attention_bias.weight"] = places.clone()
        found[f"{at}.self_attn.grep_linear.weight"] = normal(8, width // heads)
        found[f"{at}.self_attn.grep_linear.bias"] = normal(8)
        found[f"{at}.self_attn.grep_a"] = torch.ones(1, heads, 1, 1)
        for name, shape in (("fc1", (40, width)), ("fc2", (width, 40))):
            found[f"{at}.{name}.weight"] = normal(*shape)
            found[f"{at}.{name}.bias"] = normal(shape[0])
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            found[f"{at}.{name}.weight"] = torch.ones(width)
            found[f"{at}.{name}.bias"] = normal(width)
    return found

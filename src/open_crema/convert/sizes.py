"""What a checkpoint's shapes say of the model: nothing is assumed that can be read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from open_crema.config import ModelConfig, from_dict
from open_crema.convert.keys import LAYER, Modality
from open_crema.convert.source import State
from open_crema.errors import WeightsError

_RELEASED = {
    "prompt": {"layout": "reference", "max_text_tokens": 77, "overflow": "truncate"},
    "align": {"audio": "mean"},
}
HEAD = 64  # width of an attention head, in BERT and so in BLIP-2's Q-Former


def model_config(
    state: State,
    order: Sequence[Modality],
    where: object,
    *,
    encoders: Mapping[str, Any],
    heads: int | None,
    placement: str,
    released: bool,
) -> ModelConfig:
    """A configuration at the checkpoint's sizes. released: with the released code's prompt layout
    and alignment (``configs/reference.yaml``).

    Raises WeightsError that names what is not there to be measured.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise WeightsError(
                f"{where}: no {name}; a checkpoint with trained tensors only needs the others from "
                "--base FILE"
            )
        return state[name].shape

    first = order[0].name
    layers = _indexes(state, rf"{re.escape(LAYER)}\.(\d+)\.attention\.self\.key\.weight")
    crosses = _indexes(state, rf"{re.escape(LAYER)}\.(\d+)\.crossattention\.self\.key\.weight")
    if not layers or not crosses:
        raise WeightsError(
            f"{where}: has no Q-Former ({LAYER}.*); a checkpoint with trained tensors only needs "
            "the others from --base FILE"
        )
    every = crosses[1] - crosses[0] if len(crosses) > 1 else len(layers)
    width, encoder_width = shape(f"{LAYER}.{crosses[0]}.crossattention.self.key.weight")
    loras = [one.name for one in order if not one.skip]
    rank_of = f"{LAYER}.0.attention.self.query.w_a_{{}}.weight"
    rank = shape(rank_of.format(loras[0]))[0] if loras else 1
    merged = "fusion.0.weight" in state
    config: ModelConfig = from_dict(
        {
            "senses": [one.sense for one in order],
            "encoders": encoders,
            "qformer": {
                "layers": len(layers),
                "width": width,
                "heads": heads or max(width // HEAD, 1),
                "ffn": shape(f"{LAYER}.0.intermediate_query.dense.weight")[0],
                "queries": shape(f"query_tokens_{first}")[-2],
                "encoder_width": encoder_width,
                "cross_every": every,
            },
            "lora": {"rank": rank, "skip": [one.sense for one in order if one.skip]},
            "fusion": {"kind": "self-gated" if merged else "concat", "placement": placement},
            **(_RELEASED if released else {}),
        },
        schema=ModelConfig,
        where=str(where),
    )
    return config


def encoder_widths(state: State, order: Sequence[Modality], memory: int) -> dict[str, int]:
    """sense -> width of its encoder's features; memory: what the Q-Former attends to."""
    found = {}
    for one in order:
        projection = state.get(f"projection_{one.name}.weight")
        found[one.sense] = memory if projection is None else projection.shape[1]
    return found


def llm_width(state: State, order: Sequence[Modality], where: object) -> int:
    name = f"t5_proj_{order[0].name}.weight"
    if name not in state:
        raise WeightsError(f"{where}: no {name}; does --order name the checkpoint's modalities?")
    return state[name].shape[0]


def t5_config(state: State) -> dict[str, Any]:
    """transformers' configuration of a T5, read off its tensors (without the prefix
    ``t5_model.``)."""
    buckets, heads = state[
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ].shape
    rows, width = state["encoder.block.0.layer.0.SelfAttention.q.weight"].shape
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in state
    wide = "wi_0" if gated else "wi"
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": state["shared.weight"].shape[0],
        "d_model": width,
        "d_kv": rows // heads,
        "d_ff": state[f"encoder.block.0.layer.1.DenseReluDense.{wide}.weight"].shape[0],
        "num_layers": len(_indexes(state, r"encoder\.block\.(\d+)\.layer\.0\.layer_norm\.weight")),
        "num_decoder_layers": len(
            _indexes(state, r"decoder\.block\.(\d+)\.layer\.0\.layer_norm\.weight")
        ),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "tie_word_embeddings": "lm_head.weight" not in state,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def vision_config(state: State, heads: int | None) -> dict[str, Any]:
    """Of an EVA ViT as transformers' BLIP-2 has it (its names, without ``vision_model.``)."""
    width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    places = state["embeddings.position_embedding"].shape[1]
    return {
        "model_type": "blip_2_vision_model",
        "hidden_size": width,
        "intermediate_size": state["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(_indexes(state, r"encoder\.layers\.(\d+)\.mlp\.fc1\.weight")),
        "num_attention_heads": heads or max(width // 88, 1),  # ViT-g's heads are 88 wide
        "image_size": math.isqrt(places - 1) * patch,
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }


def _indexes(state: State, pattern: str) -> list[int]:
    found = (re.fullmatch(pattern, name) for name in state)
    return sorted(int(match[1]) for match in found if match)

"""Golden files of the official format, seen through this project's model.

A golden file is one forward pass (``*__*``) or one training run (``trace_*``) of the published
class at a tiny size. This module builds our model with a file's weights and turns its inputs into
our batches, so that the tests go the way a user's data goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import ModelConfig, from_dict
from open_crema.convert import keys
from open_crema.convert.keys import SENSES as OURS
from open_crema.data.sample import Batch, Sample, SenseBatch
from open_crema.encoders.points import position_code
from open_crema.model.crema import Crema

OPTIONAL_TEXTS = ("3D Model: ", "Audio: ")  # any other text that a file does not hold is a fault
PREFIX_IDS = {"tok/pc_prefix_ids", "tok/audio_prefix_ids"}


def base(name: str) -> str:
    """ "rgb-skip" is the modality "rgb" without LoRA."""
    return name.removesuffix("-skip")


@dataclass(frozen=True)
class Golden:
    """One golden file: its json and its tensors."""

    info: dict[str, Any]
    tensors: dict[str, Tensor]

    @staticmethod
    def read(path: Path) -> Golden:
        info = json.loads(path.with_suffix(".json").read_text())
        tensors = load_file(path.with_suffix(".safetensors"))
        # Traces do not hold the ids of "Audio: " and "3D Model: "; the forward cases beside them,
        # made with the same tokenizer, do.
        for other in sorted(path.parent.glob("*__*.safetensors")):
            with safe_open(other, framework="pt") as cases:
                for name in (PREFIX_IDS - set(tensors)) & set(cases.keys()):
                    tensors[name] = cases.get_tensor(name)
            if set(tensors) >= PREFIX_IDS:
                break
        return Golden(info, tensors)

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}

    @property
    def modalities(self) -> list[str]:
        return [base(m) for m in self.info["modalities"]]


class GoldenTokenizer:
    """The ids that the file holds for the texts that it used; no tokenizer files are needed."""

    pad_token_id = 0
    eos_token_id = 1

    def __init__(self, golden: Golden) -> None:
        self.known: dict[str, list[int]] = {}
        info, tokens = golden.info, golden.group("tok/")

        def learn(texts: list[str], kind: str, *, ends: bool) -> None:
            if f"{kind}_ids" not in tokens:
                return
            ids = tokens[f"{kind}_ids"]
            masks = tokens.get(f"{kind}_mask", torch.ones_like(ids))
            for text, row, mask in zip(texts, ids, masks, strict=True):
                own = row[mask.bool()].tolist()
                if ends:
                    assert own[-1] == self.eos_token_id
                    own = own[:-1]
                self.known[text] = own

        frames = info["size"]["frames"]
        default = [f"Frame {i + 1}: " for i in range(frames)] if frames > 1 else ["Frame: "]
        learn(info.get("prefixes", default), "prefix", ends=False)
        learn(info["qa_input"], "text", ends=True)
        learn(info["qa_output"], "answer", ends=True)
        learn(["3D Model: "], "pc_prefix", ends=False)
        learn(["Audio: "], "audio_prefix", ends=False)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        if text in OPTIONAL_TEXTS and text not in self.known:
            pytest.skip(f"the golden file does not hold the token ids of {text!r}")
        return self.known[text]

    def decode(self, token_ids: Tensor, *, skip_special_tokens: bool) -> str:
        return " ".join(str(int(i)) for i in token_ids)


def model_config(golden: Golden) -> ModelConfig:
    """The overlay of reference values, at the size of the file."""
    size, task = golden.info["size"], golden.info["task"]
    shape = size["qf"]
    return from_dict(
        {
            "senses": [OURS[m] for m in golden.modalities],
            "qformer": {
                "layers": shape["num_hidden_layers"],
                "width": shape["hidden_size"],
                "heads": shape["num_attention_heads"],
                "ffn": shape["intermediate_size"],
                "queries": size["num_query"],
                "encoder_width": size["width"],
                "dropout": 0.0,
            },
            "lora": {
                "rank": size["rank"],
                "dropout": 0.0,
                "skip": [OURS[base(m)] for m in golden.info["modalities"] if m.endswith("-skip")],
            },
            "fusion": {
                "kind": "self-gated" if "espresso" in task else "concat",
                "placement": "append" if "espresso-concat" in task else "add",
            },
            "prompt": {"layout": "reference", "max_text_tokens": 77, "overflow": "truncate"},
            "align": {"audio": "mean"},
        },
        schema=ModelConfig,
    )


def build_backbone(golden: Golden, weights: Mapping[str, Tensor]) -> EncoderDecoder:
    """The tiny T5 of the file: gated gelu with the EXACT gelu, untied head, no dropout."""
    config = T5Config(
        **{**golden.info["size"]["t5"], "dropout_rate": 0.0}, decoder_start_token_id=0
    )
    config.dense_act_fn = "gelu"
    own = {k.removeprefix("t5_model."): v for k, v in weights.items() if k.startswith("t5_model.")}
    llm = T5ForConditionalGeneration(config)
    llm.lm_head.weight = torch.nn.Parameter(own["lm_head.weight"].clone())
    missing, unexpected = llm.load_state_dict(own, strict=False)
    assert not unexpected
    assert all("embed_tokens" in k for k in missing)
    assert torch.equal(llm.shared.weight, own["shared.weight"])
    assert torch.equal(llm.lm_head.weight, own["lm_head.weight"])
    return EncoderDecoder(llm.eval(), GoldenTokenizer(golden))


def to_ours(
    model: Crema, modalities: list[str], official: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Official tensors (weights or gradients; what is not there is left out) by our names."""
    found = {}
    for ours, theirs in keys.names(model, keys.modalities(modalities)).items():
        if theirs in official:
            found[ours] = official[theirs].reshape(model.get_parameter(ours).shape)
    if "fusion.0.weight" in official and model.fusion.bias is not None:
        assistants = [m for m in modalities if m != "rgb"]  # in listed order
        blocks = official["fusion.0.weight"].chunk(len(assistants), dim=1)
        for m, block in zip(assistants, blocks, strict=True):
            found[f"fusion.blocks.{OURS[m]}"] = block.contiguous()
        found["fusion.bias"] = official["fusion.0.bias"]
    return found


def build(golden: Golden, weights: Mapping[str, Tensor]) -> Crema:
    """Our model with the file's weights, every parameter accounted for."""
    width = golden.info["size"]["width"]
    audio = golden.info["size"].get("beats", {}).get("encoder_embed_dim", width)
    encoder_widths = {OURS[m]: audio if m == "audio" else width for m in golden.modalities}
    model = Crema(model_config(golden), build_backbone(golden, weights), encoder_widths)
    ours = to_ours(model, golden.modalities, weights)
    expected = {n for n, _ in model.named_parameters() if not n.startswith("backbone.")}
    assert set(ours) == expected, set(ours) ^ expected
    model.load_state_dict(ours, strict=False)
    return model.eval()


def batch_of(golden: Golden, raw: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Batch:
    """Frozen-encoder outputs of the file as one of our batches."""
    info = golden.info
    questions, answers = info["qa_input"], info["qa_output"]
    senses = {}
    for m in golden.modalities:
        if m == "pc":
            tokens = inputs["pc_feat"] + 0.01 * torch.stack(
                [position_code(v, inputs["pc_feat"].shape[2]) for v in inputs["pc"]]
            )
            tokens = tokens[:, None]
        elif m == "audio":
            tokens = raw["audio"]
        else:
            tokens = raw[m].unflatten(0, (len(questions), -1))
        b, s, k, _ = tokens.shape
        edges = torch.linspace(0, 1, s + 1, dtype=torch.float64)
        times = torch.stack([edges[:-1], edges[1:]], dim=1).expand(b, -1, -1)
        senses[OURS[m]] = SenseBatch(tokens, torch.ones(b, s, k, dtype=torch.bool), times)
    samples = tuple(
        Sample(str(i), q, {}, answers=(a,))
        for i, (q, a) in enumerate(zip(questions, answers, strict=True))
    )
    return Batch(samples, senses)

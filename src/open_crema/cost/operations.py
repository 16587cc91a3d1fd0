"""Multiply-accumulate operations of one forward pass of one sample, by part.

They are counted by running the model's own modules on the meta device under torch's counter,
halved: MACs, the unit in which the paper prints "GFLOPs". Experts (flow, normals from other media)
are no modules; :mod:`open_crema.cost.experts` counts them approximately, beside the total.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import BaseModelOutput

from open_crema import modality
from open_crema.backbones.base import Backbone
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import EncodersConfig, LoraConfig, ModelConfig, QFormerConfig
from open_crema.cost.experts import Expert, expert
from open_crema.cost.parameters import architecture, backbone_of, skeleton
from open_crema.encoders import registry
from open_crema.encoders.vision import EVA_G, config_of
from open_crema.model.adapter import Adapter
from open_crema.model.crema import Crema
from open_crema.model.fusion_kinds import kind_of
from open_crema.model.qformer import QFormer

_YAMNET_PATCH = 0.96  # seconds; a patch gives 3 steps of 2 bands
_YAMNET = 69_200_000  # of a patch, as its authors count


@dataclass(frozen=True)
class Tokens:
    """What a sample is counted with; the defaults are those of the published figures as far as
    they can be made out. label: of each block's text, as "Frame 1: ". windows: of sound."""

    frames: int = 4
    windows: int = 2
    points: int = 5000
    label: int = 4
    text: int = 40
    answer: int = 3


@dataclass(frozen=True)
class Operations:
    """experts, encoders, qformer: by sense, None where a third party's encoder cannot be counted.
    qformer includes the adapter's own projections. llm_prompt, llm_answer: of encoder and decoder,
    or of a decoder-only LLM's prompt and answer. prompt_tokens: length of the LLM's input. total:
    without experts, which are approximate and not needed where files give the sense."""

    experts: Mapping[str, Expert]
    encoders: Mapping[str, int | None]
    qformer: Mapping[str, int]
    fusion: int
    llm_prompt: int
    llm_answer: int
    prompt_tokens: int

    @property
    def total(self) -> int:
        encoders = sum(n for n in self.encoders.values() if n is not None)
        return (
            encoders + sum(self.qformer.values()) + self.fusion + self.llm_prompt + self.llm_answer
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "expert": {sense: own.macs for sense, own in self.experts.items()},
            "expert_said": {sense: own.said for sense, own in self.experts.items()},
            "expert_of_paper": {sense: own.paper for sense, own in self.experts.items()},
            "encoder": dict(self.encoders),
            "qformer": dict(self.qformer),
            "fusion": self.fusion,
            "llm_encoder": self.llm_prompt,
            "llm_decoder": self.llm_answer,
            "prompt_tokens": self.prompt_tokens,
            "total": self.total,
        }


def operations(config: ModelConfig, tokens: Tokens | None = None) -> Operations:
    """Of one sample that has all senses. Raises what :func:`skeleton` does."""
    given = tokens or Tokens()
    model = skeleton(config)
    segments = {sense: segments_of(sense, given) for sense in model.senses}
    length = prompt_tokens(config, given)
    prompt, answer = _llm(config.llm, length, given.answer)
    return Operations(
        experts={s: expert(s, given.frames) for s in model.senses},
        encoders={s: _encoder(s, config.encoders, given) for s in model.senses},
        qformer={
            sense: _query(
                sense,
                config.qformer,
                config.lora,
                segments[sense],
                keys_of(sense, config, given),
                (cast(Adapter, model.adapters[sense]).encoder_width, model.backbone.width),
            )
            for sense in model.senses
        },
        fusion=_fusion(model, segments[model.senses[0]]),
        llm_prompt=prompt,
        llm_answer=answer,
        prompt_tokens=length,
    )


def counted(run: Callable[[], Any]) -> int:
    """MACs of what is run."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run()
    return int(counter.get_total_flops()) // 2


def kind_of_encoder(sense: str) -> str | None:
    kind = modality.get(sense).encoder
    return kind if isinstance(kind, str) and kind in ("vision", "audio", "point") else None


def segments_of(sense: str, tokens: Tokens) -> int:
    kind = kind_of_encoder(sense)
    return {"audio": tokens.windows, "point": 1}.get(kind or "", tokens.frames)


def keys_of(sense: str, config: ModelConfig, tokens: Tokens) -> int:
    """Tokens that the Q-Former attends to in one segment; 1 for an encoder that does not say."""
    kind, encoders = kind_of_encoder(sense), config.encoders
    if kind == "point":
        return tokens.points
    if kind == "audio":
        if encoders.audio != "yamnet":
            return beats_keys(encoders.audio_window)
        return math.ceil(round(encoders.audio_window / _YAMNET_PATCH, 6)) * 6
    if kind == "vision":
        side = encoders.resolution // 14 if encoders.vision == "dinov2-small" else _grid(encoders)
        return side**2 + 1
    return 1


def beats_keys(seconds: float) -> int:
    """Patches of 16 x 16 of a spectrogram of 100 frames a second and 128 bands."""
    return round(seconds * 100) // 16 * 8


def prompt_tokens(config: ModelConfig, tokens: Tokens) -> int:
    """Length of the LLM's input, by ``model.prompt.layout`` (:mod:`open_crema.model.prompt`)."""
    queries, label = config.qformer.queries, tokens.label
    senses = modality.canonical(config.senses)
    each = {sense: segments_of(sense, tokens) for sense in senses}
    first = each[senses[0]] * (label + queries)
    reference = config.prompt.layout == "reference"
    if config.fusion.kind != "concat" and len(senses) > 1:
        if config.fusion.placement == "add":
            return first + tokens.text
        # The fused tokens of all frames are one block with one label; the released code has every
        # frame's again.
        labels = each[senses[0]] * label if reference else label
        return first + labels + each[senses[0]] * queries + tokens.text
    if not reference:
        return sum(each.values()) * (label + queries) + tokens.text
    pictures = [s for s in senses if kind_of_encoder(s) not in ("audio", "point")]
    length = tokens.frames * (label + queries * len(pictures)) if pictures else 0
    if "audio" in senses:  # unlabelled beside frames, and points beside it are dropped
        length += each["audio"] * queries + (0 if pictures else label)
    elif "point" in senses:
        length += label + queries
    return length + tokens.text


@cache
def _query(
    sense: str,
    qformer: QFormerConfig,
    lora: LoraConfig,
    segments: int,
    keys: int,
    widths: tuple[int, int],
) -> int:
    """widths: of the encoder's features and of the LLM."""
    config = replace(ModelConfig(), qformer=qformer, lora=lora)
    # Of the processor: the Q-Former asks whether anything is masked.
    mask = torch.ones(segments, keys, dtype=torch.bool)
    with torch.device("meta"):
        shared = QFormer(qformer)
        adapter = Adapter(modality.get(sense), config, *widths)
        features = torch.empty(segments, keys, widths[0])
        return counted(lambda: adapter(shared, features, mask))


def _fusion(model: Crema, segments: int) -> int:
    config, width = model.config, model.backbone.width
    shape = config.qformer
    kind = kind_of(config.fusion.kind, width, shape.queries, shape.width)
    blocks = {s: model.fusion.blocks[s] for s in model.senses[1:] if s in model.fusion.blocks}
    if kind is None or not blocks:
        return 0
    given = shape.width if kind.inside else width
    tokens = {s: torch.empty(1, segments, shape.queries, given, device="meta") for s in blocks}
    present = {s: torch.ones(1, dtype=torch.bool, device="meta") for s in blocks}
    shared = dict(model.fusion.shared)
    projections = {s: cast(Adapter, model.adapters[s]).projection for s in blocks}

    def run() -> Tensor:
        return kind.merge(kind.parts(tokens, present, blocks, shared, projections), shared)

    return counted(run)


def _encoder(sense: str, config: EncodersConfig, tokens: Tokens) -> int | None:
    kind = kind_of_encoder(sense)
    if kind == "vision":
        return tokens.frames * _picture(config.vision, config.resolution)
    if kind == "audio":
        if config.audio != "yamnet":
            return tokens.windows * beats_operations(beats_keys(config.audio_window))
        patches = math.ceil(round(config.audio_window / _YAMNET_PATCH, 6))
        return tokens.windows * patches * _YAMNET
    if kind == "point":
        if registry.spec(config.point).uses_vision:
            return config.cloud_views * _picture(config.vision, config.resolution)
        return 0  # precomputed
    return None


def beats_operations(keys: int) -> int:
    """BEATs iter3: patches, their projection, grouped convolution for places, 12 layers with gated
    relative positions."""
    width, inner, patch = 768, 3072, 512
    start = keys * (16 * 16 * patch + patch * width) + keys * width * (width // 16) * 128
    layer = keys * (4 * width**2 + 2 * width * inner) + 2 * keys**2 * width
    gates = keys * width * 8  # 12 heads, 64 wide, to 8 numbers
    return start + 12 * (layer + gates)


@cache
def _picture(name: str, resolution: int) -> int:
    """Of a vision encoder and one picture."""
    model = _vision(name)
    pixels = torch.empty(1, 3, resolution, resolution, device="meta")
    return counted(lambda: model(pixel_values=pixels))


@cache
def _vision(name: str) -> nn.Module:
    from transformers import AutoModel, Blip2VisionConfig, Blip2VisionModel, Dinov2Config

    config: Any
    if name == "dinov2-small":
        config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518)
    elif name == "eva-vit-g":
        config = Blip2VisionConfig(**EVA_G)
    else:
        config = config_of(Path(name))
    with torch.device("meta"):
        blip2 = isinstance(config, Blip2VisionConfig)
        made: nn.Module = Blip2VisionModel(config) if blip2 else AutoModel.from_config(config)
    return made


def _grid(config: EncodersConfig) -> int:
    if config.vision == "eva-vit-g":
        return config.resolution // 14
    return config.resolution // int(config_of(Path(config.vision)).patch_size)


@cache
def _llm(name: str, prompt: int, answer: int) -> tuple[int, int]:
    """Of prompt and answer. Layers are alike, so that one and two of them tell the rest: to run all
    24 of Flan-T5's takes ten times as long."""
    said = architecture(name)
    own = [key for key in ("num_layers", "num_decoder_layers", "num_hidden_layers") if key in said]
    if not own or "layer_types" in said:
        return _llm_of(backbone_of(name), prompt, answer)
    one, two = (
        _llm_of(backbone_of(name, {**said, **dict.fromkeys(own, layers)}), prompt, answer)
        for layers in (1, 2)
    )
    first: int = said["num_layers"] if "num_layers" in said else said["num_hidden_layers"]
    last: int = said.get("num_decoder_layers", first)
    return (
        one[0] + (first - 1) * (two[0] - one[0]),
        one[1] + (last - 1) * (two[1] - one[1]),
    )


def _llm_of(backbone: Backbone, prompt: int, answer: int) -> tuple[int, int]:
    llm, width = backbone.llm, backbone.width
    embeds = torch.empty(1, prompt, width, device="meta")
    if isinstance(backbone, EncoderDecoder):
        encoder = llm.get_encoder()
        first = counted(lambda: encoder(inputs_embeds=embeds))
        ids = torch.zeros(1, answer, dtype=torch.long, device="meta")
        hidden = BaseModelOutput(last_hidden_state=embeds)
        return first, counted(lambda: llm(encoder_outputs=hidden, decoder_input_ids=ids))
    first = counted(lambda: llm.get_decoder()(inputs_embeds=embeds))
    whole = torch.empty(1, prompt + answer, width, device="meta")
    both = counted(lambda: llm(inputs_embeds=whole, logits_to_keep=answer + 1))
    return first, both - first

"""Multiply-accumulates of one sample, part by part.

The paper's GFLOPs are these in units of 1e9: one multiplication with its addition is one. Counted
is what multiplies matrices (projections, attention, convolutions); norms, activations and
embeddings are not, nor are experts that are no networks (optical flow by OpenCV).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from open_crema import modality
from open_crema.config import Config, ModelConfig
from open_crema.cost.encoders import EncoderWork, work_of
from open_crema.errors import ConfigError
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens

_PUBLISHED_WINDOWS = 2


@dataclass(frozen=True)
class Workload:
    """What one sample holds, in tokens.

    frames: of video and of every sense that follows it. audio_windows: of sound. text: the
    question with all that closes it, and a decoder-only LLM's chat template. answer: the target,
    end token included. label: a text prefix as "Frame 1: ".
    """

    frames: int = 4
    audio_windows: int = _PUBLISHED_WINDOWS
    text: int = 40
    answer: int = 3
    label: int = 4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name == "label" else 1):
                raise ConfigError(f"{name} {value}: a sample needs at least one")

    @classmethod
    def of(cls, config: Config, **given: int | None) -> Workload:
        """The run's frames, and the paper's numbers for what a configuration does not say."""
        windows = min(_PUBLISHED_WINDOWS, config.model.encoders.audio_max_windows)
        said = {"frames": config.data.frames, "audio_windows": windows}
        return cls(**{**said, **{k: v for k, v in given.items() if v is not None}})

    def segments(self, sense: str) -> int:
        """S: frames, windows, or 1 for what is the same throughout."""
        alignment = modality.get(sense).alignment
        if alignment == "repeat":
            return 1
        return self.frames if alignment == "frames" else self.audio_windows


Part = Literal["expert", "encoder", "qformer", "fusion", "llm_encoder", "llm_decoder"]
PARTS: tuple[Part, ...] = (
    "expert",
    "encoder",
    "qformer",
    "fusion",
    "llm_encoder",
    "llm_decoder",
)


@dataclass(frozen=True)
class Operations:
    """parts: multiply-accumulates of one forward pass over one sample; expert is 0 as long as no
    expert is a network. prompt: tokens that the LLM reads before the answer. encoders: each sense's
    share of ``parts["encoder"]``, None where a third party's is unknown and not in the sum.
    training: of one optimizer step's share of a sample, with features from the store: forward and
    backward passes of every sub-step, weights that are not trained having no gradient.
    """

    parts: Mapping[Part, int]
    prompt: int
    encoders: Mapping[str, int | None]
    training: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def operations(config: Config, model: Crema, work: Workload) -> Operations:
    """model: its skeleton. Raises ConfigError where an encoder cannot be counted."""
    shape = config.model
    encoders: dict[str, int | None] = {}
    reading: dict[str, int] = {}
    for sense in model.senses:
        one = work_of(modality.get(sense), shape.encoders)
        segments = work.segments(sense)
        encoders[sense] = None if one.macs is None else one.macs * segments
        reading[sense] = segments * _query(model, sense, one)
    prompt = prompt_tokens(shape, work)
    encoder, decoder = _llm(model, prompt, work.answer)
    fusion = _fusion(model, work)
    parts: dict[Part, int] = {
        "expert": 0,
        "encoder": sum(n for n in encoders.values() if n is not None),
        "qformer": sum(reading.values()),
        "fusion": fusion,
        "llm_encoder": encoder,
        "llm_decoder": decoder,
    }
    after = fusion + encoder + decoder
    training = _training(config, list(reading.values()), after)
    return Operations(parts, prompt, encoders, training)


def prompt_tokens(config: ModelConfig, work: Workload) -> int:
    """Length of the LLM's input for one sample that has every sense: see
    :mod:`open_crema.model.prompt`."""
    senses = modality.canonical(config.senses)
    merges = config.fusion.kind != "concat"
    if config.prompt.layout == "reference":
        return work.text + _reference_tokens(config, work, senses, merges)
    queries = config.qformer.queries
    led = senses[:1] if merges else senses
    blocks = sum(work.segments(s) * (work.label + queries) for s in led)
    if merges and len(senses) > 1 and config.fusion.placement == "append":
        blocks += work.label + work.segments(senses[0]) * queries
    return work.text + blocks


def _reference_tokens(
    config: ModelConfig, work: Workload, senses: Sequence[str], merges: bool
) -> int:
    """As the released code lays them out (docs/differences.md, ``model.prompt.layout``)."""
    queries, label = config.qformer.queries, work.label
    video = "video" in senses
    pictures = [s for s in senses if modality.get(s).alignment == "frames"]
    if merges and len(senses) > 1:
        frame = work.segments(senses[0]) * (label + queries)
        return frame * (2 if config.fusion.placement == "append" else 1)
    blocks = work.frames * (label + queries * len(pictures)) if video else 0
    if "audio" in senses:
        blocks += work.audio_windows * queries + (0 if video else label)
    elif "point" in senses:
        blocks += label + queries
    return blocks


def _query(model: Crema, sense: str, encoder: EncoderWork) -> int:
    """One segment through a sense's adapter and the Q-Former."""
    adapter, shape = model.adapter(sense), model.config.qformer
    q, h, k = shape.queries, shape.width, encoder.tokens
    macs = q * adapter.projection.weight.numel()
    if adapter.input_projection is not None:
        macs += k * adapter.input_projection.weight.numel()
    macs += q * sum(matrix.numel() for matrix in adapter.lora_matrices())
    crossing = -(-shape.layers // shape.cross_every)
    itself = 4 * q * h * h + 2 * q * q * h
    across = 2 * q * h * h + 2 * k * shape.encoder_width * h + 2 * q * k * h
    return macs + shape.layers * (itself + 2 * q * h * shape.ffn) + crossing * across


def _fusion(model: Crema, work: Workload) -> int:
    """The merge of the assistants' tokens, run on the meta device."""
    first, *others = model.senses
    if model.fusion.kind is None or not others:
        return 0
    width, queries = model.backbone.width, model.config.qformer.queries

    def tokens(sense: str) -> QueryTokens:
        s = work.segments(sense)
        return QueryTokens(
            torch.empty(1, s, queries, width),
            torch.empty(1, s, dtype=torch.bool),
            torch.empty(1, s, 2, dtype=torch.float64),
        )

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.fusion.merge(tokens(first), {sense: tokens(sense) for sense in others})
    return int(counter.get_total_flops()) // 2


def _llm(model: Crema, prompt: int, answer: int) -> tuple[int, int]:
    """Of the LLM's encoder and decoder; a decoder-only LLM has no encoder.

    Dense attention over the whole sequence, as it is computed: what a causal or sliding mask hides
    is counted. Of a mixture of experts, those that a token visits. Layers that are no attention
    (state spaces) are counted by their projections alone.
    """
    llm: Any = model.backbone.llm
    head = llm.get_output_embeddings().weight.numel()
    decoder = llm.get_decoder()
    config = llm.config.get_text_config()
    if not llm.config.is_encoder_decoder:
        length = prompt + answer
        heads = config.num_attention_heads
        wide = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        scores = config.num_hidden_layers * 2 * length * length * wide
        return 0, length * _matrices(decoder, config) + scores + (answer + 1) * head
    encoder = llm.get_encoder()
    if not hasattr(config, "d_kv"):
        raise ConfigError(
            f"model.llm {model.config.llm}: of encoder-decoders, only the T5 family is counted"
        )
    wide = config.num_heads * config.d_kv
    encoding = prompt * _matrices(encoder, config) + config.num_layers * 2 * prompt**2 * wide
    crossing = [m.EncDecAttention for m in decoder.modules() if hasattr(m, "EncDecAttention")]
    memory = sum(m.k.weight.numel() + m.v.weight.numel() for m in crossing)
    decoding = answer * (_matrices(decoder, config) - memory + head) + prompt * memory
    decoding += config.num_decoder_layers * 2 * answer * (answer + prompt) * wide
    return encoding, decoding


def _matrices(module: nn.Module, config: Any) -> int:
    """How many weights of a module multiply each token."""
    return sum(_touched(m, weight, config) for m in module.modules() for weight in _own(m))


def _own(module: nn.Module) -> Iterator[Tensor]:
    if not isinstance(module, nn.Embedding):
        yield from (p for p in module.parameters(recurse=False) if p.ndim in (2, 3))


def _touched(module: nn.Module, weight: Tensor, config: Any) -> int:
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if weight.ndim == 3 and weight.shape[0] == experts:
        return weight.numel() // weight.shape[0] * int(config.num_experts_per_tok)
    return weight.numel()


def _training(config: Config, reading: Sequence[int], after: int) -> int:
    """A backward pass costs as much as the forward pass: gradients of activations, and of little
    else. What is trained besides (LoRA, projections) is below a hundredth of it.

    Sequential (docs: ``training/strategy.py``): each sense's tokens are made once with a gradient
    and, while other senses train, without one before and after its own turn.
    """
    if config.train.strategy == "joint":
        return 2 * (sum(reading) + after)
    turns = len(reading)
    again = [(i > 0) + (i < turns - 1) for i in range(turns)]
    live = sum((2 + more) * macs for more, macs in zip(again, reading, strict=True))
    return live + 2 * turns * after

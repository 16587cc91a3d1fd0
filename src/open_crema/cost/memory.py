"""Memory of a training step beyond the loaded model, and disk for cached features.

What autograd keeps for the backward pass is counted, not guessed: the step's modules run on the
meta device, and every tensor that is saved is summed once by its storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from open_crema.backbones.base import IGNORED
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import Config, ModelConfig
from open_crema.cost.operations import Tokens, keys_of, prompt_tokens, segments_of
from open_crema.cost.parameters import skeleton
from open_crema.encoders import registry
from open_crema.modality import get
from open_crema.model.adapter import Adapter
from open_crema.model.crema import Crema
from open_crema.model.fusion_kinds import kind_of

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Memory:
    """Bytes, fp32. weights: of the LLM, Q-Former, adapters and fusion (encoders are not needed
    where features are cached). saved: what the backward pass needs. updates: gradients and the
    optimizer's two moments. working: the largest step of the backward pass."""

    weights: int
    saved: int
    updates: int
    working: int

    @property
    def training(self) -> int:
        """Peak above the loaded model."""
        return self.saved + self.updates + self.working


def training_memory(config: Config, tokens: Tokens | None = None) -> Memory:
    """Of one optimizer step of a run, all samples of a micro-batch as long as the tokens say.

    Raises what :func:`~open_crema.cost.skeleton` does.
    """
    given = tokens or Tokens()
    model = skeleton(config.model)
    model.requires_grad_(False)
    batch = config.train.batch_size
    trained = [model.adapters[sense] for sense in model.senses]
    if config.train.qformer != "frozen":
        trained.append(model.qformer)
    sequential = config.train.strategy == "sequential"
    peak = 0
    turns = [[sense] for sense in model.senses] if sequential else [list(model.senses)]
    for turn in turns:
        for sense in turn:
            model.adapters[sense].requires_grad_(True)
        model.fusion.requires_grad_(True)
        if config.train.qformer != "frozen":
            model.qformer.requires_grad_(True)
        peak = max(peak, _saved(model, turn, batch, given))
        model.requires_grad_(False)
    size = sum(p.numel() for part in (*trained, model.fusion) for p in part.parameters())
    moments = {"adamw": 2, "sgd": 0}[config.train.optimizer]
    return Memory(
        weights=_FLOAT * sum(p.numel() for p in model.parameters()),
        saved=peak,
        updates=_FLOAT * size * (1 + moments),
        working=_working(config.model, model, batch, given),
    )


def _saved(model: Crema, moving: Sequence[str], batch: int, tokens: Tokens) -> int:
    """Bytes that one forward pass keeps, parameters left out."""
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # held, so that no storage is freed and counted as another

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept.setdefault(storage._cdata, tensor)
        return tensor

    model.train()
    model.backbone.eval()
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(pack, _same):
        _forward(model, moving, batch, tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _forward(model: Crema, moving: Sequence[str], batch: int, tokens: Tokens) -> Tensor:
    config, width = model.config, model.backbone.width
    time, queries = segments_of(model.senses[0], tokens), config.qformer.queries
    kind = kind_of(config.fusion.kind, width, queries, config.qformer.width)
    queried, merged = {}, {}
    for sense in model.senses:
        adapter = cast(Adapter, model.adapters[sense])
        segments, keys = segments_of(sense, tokens), keys_of(sense, config, tokens)
        features = torch.empty(batch * segments, keys, adapter.encoder_width)
        mask = torch.ones(batch * segments, keys, dtype=torch.bool, device="cpu")
        with torch.set_grad_enabled(sense in moving):
            states = adapter.states(model.qformer, features, mask)
            queried[sense] = adapter.projection(states)
        merged[sense] = states if kind is not None and kind.inside else queried[sense]
    first = model.senses[0]
    parts = [queried[first].view(batch, time * queries, width)]
    others = [sense for sense in model.senses if sense != first]
    if kind is None or not others:
        parts += [queried[sense].view(batch, -1, width) for sense in others]
    else:
        aligned = {}
        for sense in others:
            own = merged[sense].view(batch, -1, queries, merged[sense].shape[-1])
            aligned[sense] = own[:, :1].expand(-1, time, -1, -1).contiguous()
        present = {sense: torch.ones(batch, dtype=torch.bool) for sense in others}
        blocks = {sense: model.fusion.blocks[sense] for sense in others}
        shared = dict(model.fusion.shared)
        projections = {sense: cast(Adapter, model.adapters[sense]).projection for sense in others}
        fused = kind.merge(kind.parts(aligned, present, blocks, shared, projections), shared)
        parts.append(fused.view(batch, -1, width))
    whole = torch.cat(parts, dim=1)
    text = torch.empty(batch, max(prompt_tokens(config, tokens) - whole.shape[1], 1), width)
    return _loss(model, torch.cat([whole, text], dim=1), batch, tokens.answer)


def _loss(model: Crema, embeds: Tensor, batch: int, answer: int) -> Tensor:
    llm: Any = model.backbone.llm
    labels = torch.zeros(batch, answer, dtype=torch.long)
    if isinstance(model.backbone, EncoderDecoder):
        logits = llm(inputs_embeds=embeds, decoder_input_ids=labels).logits
    else:
        target = llm.get_input_embeddings()(labels)
        logits = llm(
            inputs_embeds=torch.cat([embeds, target], dim=1),
            logits_to_keep=answer + 1,
        ).logits[:, :-1]
    flat = logits.float().flatten(0, 1)
    loss: Tensor = nn.functional.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED)
    return loss


def _working(config: ModelConfig, model: Crema, batch: int, tokens: Tokens) -> int:
    """The largest tensors that a backward step holds besides: gradients of an LLM layer's widest
    activation, of its attention or of the logits, in and out."""
    said: Any = model.backbone.llm.config
    text: Any = said.get_text_config() if hasattr(said, "get_text_config") else said
    wide: int = getattr(text, "intermediate_size", None) or getattr(
        text, "d_ff", 4 * text.hidden_size
    )
    length = prompt_tokens(config, tokens)
    layer = batch * (length + tokens.answer) * wide
    vocabulary: int = batch * (tokens.answer + 1) * text.vocab_size
    attention: int = batch * text.num_attention_heads * length**2
    largest: int = max(layer, vocabulary, attention)
    return _FLOAT * 2 * largest


def store_bytes(config: Config, tokens: Tokens | None = None) -> dict[str, int]:
    """Of one clip's features in the store (bf16), by sense; frames are data.store_frames."""
    given = tokens or Tokens()
    found = {}
    for sense in config.model.senses:
        width = registry.width_for(get(sense), config.model.encoders)
        segments = segments_of(sense, given)
        if segments == given.frames and sense not in ("audio", "point"):
            segments = config.data.store_frames
        found[sense] = segments * keys_of(sense, config.model, given) * width * 2
    return found

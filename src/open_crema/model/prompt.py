"""The prompt: blocks of query tokens and text become one sequence for the LLM (paper 3.2).

Two layouts. "packed" (the default): only valid tokens, padded at one end, so that a sample's result
does not depend on its batch. "reference": the released code's, with padded prefixes in place and
its mask, kept for exact comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from open_crema import modality
from open_crema.backbones.base import Backbone, Prompt
from open_crema.config import ModelConfig, PromptConfig
from open_crema.errors import ConfigError, DataError
from open_crema.model.fusion import Block

Piece = tuple[Tensor, Tensor]  # embeds [B, n, D], mask [B, n] bool


def assemble(
    backbone: Backbone, blocks: Sequence[Block], questions: Sequence[str], config: ModelConfig
) -> Prompt:
    """Blocks of a batch and its questions -> the LLM's input.

    Raises DataError for a text longer than ``prompt.max_text_tokens`` (overflow "error").
    """
    texts = _texts(backbone, questions, config.prompt)
    if config.prompt.layout == "reference":
        return _reference(backbone, blocks, texts, config)
    batch = len(questions)
    pieces = [
        _constant(backbone, backbone.before, batch),
        *_labelled(backbone, blocks, batch),
        _ragged(backbone, texts),
    ]
    embeds, mask = _concatenate(pieces, backbone)
    return pack(embeds, mask, backbone.side)


def assemble_shared(
    backbone: Backbone,
    blocks: Sequence[Block],
    questions: Sequence[Sequence[str]],
    config: ModelConfig,
) -> tuple[Prompt, list[list[list[int]]]]:
    """For several questions about each of the media: what stands before them, once, and the token
    ids of each question. Together they are what :func:`assemble` makes of each.

    Raises ConfigError for the layout "reference", DataError as assemble.
    """
    if config.prompt.layout == "reference":
        raise ConfigError("train.questions above 1 needs model.prompt.layout=packed")
    pieces = [
        _constant(backbone, backbone.before, len(questions)),
        *_labelled(backbone, blocks, len(questions)),
    ]
    texts = [_texts(backbone, own, config.prompt) for own in questions]
    return pack(*_concatenate(pieces, backbone), backbone.side), texts


def blocks_alone(backbone: Backbone, blocks: Sequence[Block], batch: int) -> Prompt:
    """The blocks with their labels and no other text, valid tokens first: ``[B, N, D]``, N = 0
    where there is none. What is spliced into a VLM's own prompt."""
    embeds, mask = _concatenate(
        [_constant(backbone, [], batch), *_labelled(backbone, blocks, batch)], backbone
    )
    return pack(embeds, mask, "right")


def _labelled(backbone: Backbone, blocks: Sequence[Block], batch: int) -> list[Piece]:
    """Each block after its label, both only where the block is present."""
    pieces = []
    for block in blocks:
        label, everywhere = _constant(backbone, backbone.encode(block.label), batch)
        pieces.append((label, everywhere & block.present[:, None]))
        pieces.append((block.tokens, block.mask))
    return pieces


def pack(embeds: Tensor, mask: Tensor, side: str) -> Prompt:
    """Moves valid tokens together, in order, and pads at the other end.

    embeds ``[B, L, D]``, mask ``[B, L]`` bool; the result is as long as the longest sample.
    """
    longest = int(mask.sum(dim=1).max())
    valid_first = side == "right"
    order = torch.argsort(mask.int(), dim=1, stable=True, descending=valid_first)
    order = order[:, :longest] if valid_first else order[:, mask.shape[1] - longest :]
    packed = embeds.gather(1, order[:, :, None].expand(-1, -1, embeds.shape[2]))
    kept = mask.gather(1, order)
    return Prompt(packed * kept[:, :, None].to(packed.dtype), kept.long())


def _texts(backbone: Backbone, questions: Sequence[str], config: PromptConfig) -> list[list[int]]:
    """Token ids of each question, closed as the backbone wants it."""
    room = config.max_text_tokens - len(backbone.after)
    if room < 1:
        raise ConfigError(
            f"prompt.max_text_tokens {config.max_text_tokens} leaves no room for a question: "
            f"{len(backbone.after)} tokens close it"
        )
    texts = []
    for question in questions:
        ids = backbone.encode(question)
        if len(ids) > room and config.overflow == "error":
            raise DataError(
                f"question of {len(ids)} tokens, {room} fit (prompt.max_text_tokens); "
                f"shorten it or raise the limit: {question[:60]!r}..."
            )
        texts.append([*ids[:room], *backbone.after])
    return texts


def _constant(backbone: Backbone, ids: Sequence[int], batch: int) -> Piece:
    """The same text for every sample."""
    tensor = torch.tensor(ids, dtype=torch.long, device=backbone.device)
    embeds = backbone.embed(tensor).expand(batch, -1, -1)
    return embeds, torch.ones(embeds.shape[:2], dtype=torch.bool, device=backbone.device)


def _ragged(backbone: Backbone, texts: Sequence[Sequence[int]]) -> Piece:
    """Texts of different lengths, padded on the right with the padding token's embedding."""
    ids = backbone.pad(texts, backbone.pad_id)
    lengths = torch.tensor([len(t) for t in texts], device=backbone.device)
    return backbone.embed(ids), torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


def _concatenate(pieces: Sequence[Piece], backbone: Backbone) -> Piece:
    dtype = backbone.llm.get_input_embeddings().weight.dtype
    embeds = torch.cat([e.to(dtype) for e, _ in pieces], dim=1)
    return embeds, torch.cat([m for _, m in pieces], dim=1)


def _reference(
    backbone: Backbone,
    blocks: Sequence[Block],
    texts: Sequence[Sequence[int]],
    config: ModelConfig,
) -> Prompt:
    """The released code's layout and mask, its oddities included.

    Only the video's prefix "Frame i: " is used, padded to the longest; the fused half repeats all
    prefixes in one run and copies the first half's mask, although its order differs; "add" marks
    the pads as real; with both audio and points in plain concatenation the points are dropped;
    points alone are introduced as "Audio: ". Needs an encoder-decoder, and a batch in which all
    samples have the same senses; no other sense goes without video.
    """
    if not all(bool(b.mask.all()) for b in blocks):
        raise DataError("prompt.layout=reference needs every sample to have the same senses")
    batch = len(texts)
    of = {s: [b for b in blocks if b.sense == s] for s in config.senses}
    fused = [b for b in blocks if b.sense is None]
    frames = of.get("video", [])
    if not reference_takes([s for s in config.senses if of[s]]):
        raise DataError("prompt.layout=reference: without video only audio or points can be used")
    pieces: list[Piece] = []
    if frames:
        labels = (
            [f"Frame {i + 1}: " for i in range(len(frames))] if len(frames) > 1 else ["Frame: "]
        )
        prefixes = _ragged(backbone, [backbone.encode(label) for label in labels])
        alongside = [s for s in config.senses if s != "video" and of[s] and _visual(s)]
        for t, frame in enumerate(frames):
            pieces.append((prefixes[0][t].expand(batch, -1, -1), prefixes[1][t].expand(batch, -1)))
            for block in (frame, *(of[s][t] for s in alongside)):
                pieces.append((block.tokens, block.mask))
        if config.fusion.kind != "concat" and config.fusion.placement == "add":
            pieces = [(e, torch.ones_like(m)) for e, m in pieces]
        if fused:
            first_half = torch.cat([m for _, m in pieces], dim=1)
            every = prefixes[0].flatten(0, 1).expand(batch, -1, -1)
            second = torch.cat([every, *(b.tokens for b in fused)], dim=1)
            pieces.append((second, first_half))
    sounds, points = of.get("audio", []), of.get("point", [])
    trailing, prefix = (sounds, "Audio: ") if sounds else (points, "3D Model: ")
    if not frames:
        prefix = "Audio: "
    if trailing and not (frames and sounds):
        pieces.append(_constant(backbone, backbone.encode(prefix), batch))
    pieces += [(b.tokens, b.mask) for b in trailing]
    pieces.append(_ragged(backbone, texts))
    embeds, mask = _concatenate(pieces, backbone)
    return Prompt(embeds, mask.long())


def reference_takes(senses: Sequence[str]) -> bool:
    """Whether the released layout has a place for these senses: nothing seen goes without video."""
    return "video" in senses or not any(map(_visual, senses))


def _visual(sense: str) -> bool:
    return modality.get(sense).alignment == "frames"

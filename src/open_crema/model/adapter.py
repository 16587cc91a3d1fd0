"""One sense's MMQA, the modality-specific multi-query adapter (paper 3.2): all that is trained."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from open_crema.config import ModelConfig
from open_crema.errors import DataError
from open_crema.modality import Modality
from open_crema.model.qformer import Attention, LoraLayer, QFormer


@cache
def grid_code(keys: int, width: int) -> Tensor:
    """``[K, E]``: sines and cosines of the row and column of each patch of a square picture, half
    of the width each; 0 for the class token that stands before them, if one does.

    Raises DataError where the tokens make no square.
    """
    side = math.isqrt(keys)
    extra = keys - side * side
    if extra > 1 or width % 4:
        raise DataError(
            f"qformer.positions=grid: {keys} tokens of width {width} are no square of patches; use "
            "none"
        )
    place = torch.arange(side, dtype=torch.float32)[:, None]
    rate = torch.pi / 2 ** torch.linspace(0, math.log2(2 * side), width // 4)
    waves = torch.cat([torch.sin(place * rate), torch.cos(place * rate)], dim=1)  # [side, E / 2]
    rows = waves[:, None].expand(side, side, -1)
    code = torch.cat([rows, rows.transpose(0, 1)], dim=2).flatten(0, 1)
    return torch.cat([code.new_zeros(extra, width), code])


class Adapter(nn.Module):
    """Queries, low-rank updates and projections of one sense.

    ``forward(qformer, tokens [N, K, W], mask [N, K] or None) -> [N, Q, D]``: N segments of
    frozen-encoder output become Q tokens each in the LLM's embedding space. :meth:`memory` and
    :meth:`read` are its two halves: what the Q-Former attends to, and what it makes of it.

    own: the sense's own Q-Former, under model.qformer.own=each; it is trained with the rest.

    fresh (bool tensor): it was added to a trained model and no training has used it yet; until
    then evaluation leaves the sense out, so that adding it changes nothing.
    """

    def __init__(
        self, modality: Modality, config: ModelConfig, encoder_width: int, llm_width: int
    ) -> None:
        super().__init__()
        shape = config.qformer
        self.encoder_width = encoder_width
        self.fresh: Tensor
        self.register_buffer("fresh", torch.tensor(False))
        self.uses_lora = modality.name not in config.lora.skip and shape.own == "shared"
        self.queries = nn.Parameter(torch.empty(shape.queries, shape.width))
        nn.init.normal_(self.queries, std=0.02)
        # "a fully connected layer when dimension misalignment happens" (paper 3.2)
        self.input_projection = (
            nn.Linear(encoder_width, shape.encoder_width)
            if encoder_width != shape.encoder_width or modality.name in config.input_projection
            else None
        )
        if self.input_projection is not None and encoder_width == shape.encoder_width:
            nn.init.eye_(self.input_projection.weight)  # begins as a sense that has none
            nn.init.zeros_(self.input_projection.bias)
        self.input_norm = nn.LayerNorm(shape.encoder_width) if modality.norm else None
        self.grid = shape.positions == "grid" and modality.encoder == "vision"
        self.own = QFormer(shape) if shape.own == "each" else None
        self.lora = nn.ModuleList(
            LoraLayer(shape.width, config.lora)
            for _ in range(shape.layers if self.uses_lora else 0)
        )
        self.projection = nn.Linear(shape.width, llm_width)

    def memory(self, tokens: Tensor) -> Tensor:
        """``[N, K, W] -> [N, K, E]``, what the Q-Former's cross-attention reads."""
        tokens = tokens.to(self.queries.dtype)
        if self.input_projection is not None:
            tokens = self.input_projection(tokens)
        if self.input_norm is not None:
            tokens = self.input_norm(tokens)
        return tokens + grid_code(*tokens.shape[1:]).to(tokens) if self.grid else tokens

    def read(self, qformer: QFormer, memory: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, K, E] -> [N, Q, H]``, the Q-Former's output with this sense's updates, or that of
        the sense's own."""
        if self.own is not None:
            own: Tensor = self.own(self.queries, memory, mask)
            return own
        out: Tensor = qformer(self.queries, memory, mask, self.lora if self.uses_lora else None)
        return out

    def states(self, qformer: QFormer, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """``[N, K, W] -> [N, Q, H]``, what the projection to the LLM is given."""
        if self.training and torch.is_grad_enabled():
            self.fresh.fill_(False)
        return self.read(qformer, self.memory(tokens), mask)

    def forward(self, qformer: QFormer, tokens: Tensor, mask: Tensor | None) -> Tensor:
        projected: Tensor = self.projection(self.states(qformer, tokens, mask))
        return projected

    @torch.no_grad()
    def start_as(self, other: Adapter) -> None:
        """Takes over every tensor that both have in one shape; an input projection that the other
        one does not need stays as it is."""
        given = dict(other.named_parameters())
        for name, parameter in self.named_parameters():
            if name in given and given[name].shape == parameter.shape:
                parameter.copy_(given[name])

    @torch.no_grad()
    def take_own(self, qformer: QFormer) -> None:
        """From now on the sense has a Q-Former of its own, which starts as that one with the
        sense's updates in its weights: what it computes stays the same. One that it has already is
        left as it is."""
        if self.own is not None:
            return
        self.own = deepcopy(qformer).requires_grad_(True)
        # Without updates where LoRA is skipped.
        for layer, update in zip(self.own.layers, self.lora, strict=False):
            attention, lora = cast(Attention, layer.attention), cast(LoraLayer, update)
            attention.query.weight += lora.query.b @ lora.query.a
            attention.value.weight += lora.value.b @ lora.value.a
        self.lora, self.uses_lora = nn.ModuleList(), False

    def lora_matrices(self) -> list[nn.Parameter]:
        """The matrices whose gradient the released code's early exit watches; of a Q-Former of the
        sense's own, those that LoRA would have updated."""
        if self.own is None:
            return list(self.lora.parameters())
        attentions = [cast(Attention, layer.attention) for layer in self.own.layers]
        return [cast(nn.Parameter, x.weight) for a in attentions for x in (a.query, a.value)]

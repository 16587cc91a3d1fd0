"""The shared, frozen Q-Former: queries read a sense's features through cross-attention (paper 3.1).

BERT's shape without its text half: no word or position embeddings, no text feed-forward, no text
input. What is specific to a sense (queries, low-rank updates) is handed in by its adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from open_crema.config import LoraConfig, QFormerConfig
from open_crema.errors import ConfigError

NORM_EPS = 1e-12  # BERT's


class LowRank(nn.Module):
    """``B(A(dropout(x)))``, the low-rank update of one frozen projection (paper eq. 1, 2).

    No bias and no scaling, as published. B starts at zero, so a fresh update changes nothing.
    """

    def __init__(self, width: int, config: LoraConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, width))
        self.b = nn.Parameter(torch.zeros(width, config.rank))
        self.dropout = nn.Dropout(config.dropout)
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        # As rows: of more dimensions torch folds by what requires a gradient, and rounds otherwise.
        rows = self.dropout(x).flatten(0, -2)
        return functional.linear(functional.linear(rows, self.a), self.b).view_as(x)


class LoraLayer(nn.Module):
    """The two updates that one sense has in one layer: self-attention query and value."""

    def __init__(self, width: int, config: LoraConfig) -> None:
        super().__init__()
        self.query = LowRank(width, config)
        self.value = LowRank(width, config)


class Attention(nn.Module):
    """Multi-head attention, output projection, residual and norm.

    ``forward(x [N, Q, H], memory [N, K, E], mask [N, K] or None, lora) -> [N, Q, H]``; for
    self-attention ``memory is x``. Masked memory is never attended.
    """

    def __init__(self, config: QFormerConfig, memory_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(memory_width, config.width)
        self.value = nn.Linear(memory_width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.out_dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None, lora: LoraLayer | None = None
    ) -> Tensor:
        query, key, value = self.query(x), self.key(memory), self.value(memory)
        if lora is not None:
            query = query + lora.query(x)
            value = value + lora.value(memory)
        attended = functional.scaled_dot_product_attention(
            self._split(query),
            self._split(key),
            self._split(value),
            attn_mask=None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged = attended.transpose(1, 2).flatten(2)
        normed: Tensor = self.norm(self.out_dropout(self.out(merged)) + x)
        return normed

    def _split(self, x: Tensor) -> Tensor:
        """``[N, L, H] -> [N, heads, L, H / heads]``"""
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention (in every ``cross_every``-th layer), feed-forward."""

    def __init__(self, config: QFormerConfig, index: int) -> None:
        super().__init__()
        crosses = index % config.cross_every == 0
        self.attention = Attention(config, config.width)
        self.cross = Attention(config, config.encoder_width) if crosses else None
        self.up = nn.Linear(config.width, config.ffn)
        self.down = nn.Linear(config.ffn, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(
        self, x: Tensor, memory: Tensor, mask: Tensor | None, lora: LoraLayer | None
    ) -> Tensor:
        x = self.attention(x, x, None, lora)
        if self.cross is not None:
            x = self.cross(x, memory, mask)
        normed: Tensor = self.norm(self.dropout(self.down(functional.gelu(self.up(x)))) + x)
        return normed


def _gain(name: str) -> float:
    """Of the "xavier" init: cross-attention chooses sharply from the start, and what is added to
    the residual stream starts small."""
    if name.endswith(("cross.query", "cross.key")):
        return 1.4
    return 0.5 if name.endswith((".out", ".down")) else 1.0


class QFormer(nn.Module):
    """``forward(queries [Q, H], memory [N, K, E], mask [N, K] or None, lora) -> [N, Q, H]``.

    N is any flattening of batch and segments. ``lora`` has one LoraLayer a layer, or is None to
    use the frozen weights alone.
    """

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ConfigError(
                f"qformer.width {config.width} is not a multiple of qformer.heads {config.heads}"
            )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(QFormerLayer(config, i) for i in range(config.layers))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if config.init == "bert":
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight, gain=_gain(name))

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        lora: Sequence[LoraLayer] | nn.ModuleList | None = None,
    ) -> Tensor:
        # Without padding the mask says nothing, and attention without one is faster and exact.
        padded = None if mask is None or bool(mask.all()) else mask
        x: Tensor = self.dropout(self.norm(queries).expand(memory.shape[0], -1, -1))
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, padded, None if lora is None else lora[i])
        return x

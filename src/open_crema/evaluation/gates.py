"""How strongly each assisting sense reaches the LLM: its share of each frame's fused tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from open_crema.model.fusion import Fusion, QueryTokens

Gates = dict[str, tuple[float, ...]]

_DIGITS = 4  # more would hang on the batch that a sample happens to be in


@torch.no_grad()
def gates(fusion: Fusion, tokens: Mapping[str, QueryTokens], count: int) -> list[Gates]:
    """For each of ``count`` samples ``{assisting sense: its share of each frame}``.

    A share is the norm of a sense's part (``W_m q_m`` in paper eq. 3) in one segment of the primary
    sense over the sum of all assistants' norms there, as :meth:`Fusion.shares` has it for all
    segments together. Shares of a frame sum to 1. Empty where the sample has no assistant, and
    where the model merges none.
    """
    found: list[Gates] = [{} for _ in range(count)]
    if not fusion.merges:
        return found
    alike: dict[tuple[str, ...], list[int]] = {}
    for row in range(count):
        there = [s for s in fusion.senses if s in tokens and bool(tokens[s].present[row])]
        alike.setdefault(tuple(there), []).append(row)
    for (primary, *assistants), rows in ((s, r) for s, r in alike.items() if len(s) > 1):
        main = tokens[primary].rows(rows)
        parts = fusion.parts(main, {sense: tokens[sense].rows(rows) for sense in assistants})
        norms = torch.stack([_norms(parts[sense]) for sense in assistants])  # [M, B, T]
        total = norms.sum(dim=0)
        shares = (norms / total.clamp(min=torch.finfo(total.dtype).tiny)).tolist()
        for i, row in enumerate(rows):
            real = main.segments[i].tolist()
            found[row] = {
                sense: tuple(round(x, _DIGITS) for x, r in zip(own[i], real, strict=True) if r)
                for sense, own in zip(assistants, shares, strict=True)
            }
    return found


def _norms(part: Tensor) -> Tensor:
    """``[B, T]``"""
    norms: Tensor = part.flatten(2).float().norm(dim=2)
    return norms

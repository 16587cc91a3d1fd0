"""The fusions that merge: how the assistants' tokens of a segment become one block.

They are those of the paper's ablation (Section 4, Table 7) and the self-gated one without its gate.
Each is ``finish(b + sum_m part_m)``, where a sense's part comes of its own tokens and its own block
of parameters, so that each grows by blocks and says what every sense brings. Sums run in the order
of the senses that they are given (the canonical one), and an absent sense's part is exactly 0.

A block of zeros, with which a sense is added to a trained model, adds nothing at all to
"self-gated", "ungated" and "linear", not even in training. In "mixture-of-experts" its tokens are
mixed in as they are, in "cross-attention" they are attended to. These two promise only what holds
for every kind: a sense that is absent, or left out by evaluation because it has not been trained,
changes no bit. docs/fusion.md has the formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Projections = Mapping[str, Callable[[Tensor], Tensor]]

_HEAD = 64  # width of an attention head; an LLM of another width has one head


class Kind(ABC):
    """One way to merge. It holds no parameters: :class:`~open_crema.model.fusion.Fusion` has them.

    needs_shared: whether the shared parameters are there before any assistant is, as part of the
    base. hears_zeros: whether a sense is heard although its block is zeros. inside: whether it
    merges what leaves the Q-Former's last layer, ``inner`` wide, and not what is projected to the
    LLM, ``width`` wide.
    """

    needs_shared = False
    hears_zeros = False
    inside = False

    def __init__(self, width: int, queries: int, inner: int) -> None:
        self.width = width
        self.queries = queries
        self.inner = inner

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of a sense's own parameters."""
        return (self.width, self.width)

    @property
    def shared(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters that are no sense's own."""
        return {"bias": (self.width,)}

    def fan_in(self, senses: int) -> int:
        """How many numbers an output is a sum of."""
        return senses * self.width

    def identity(self) -> Tensor:
        """The block with which a sense begins near itself."""
        return torch.eye(*self.block)

    def start(self, senses: list[str], identity: bool) -> tuple[dict[str, Tensor], Tensors]:
        """Blocks of the assisting senses, and the shared parameters. As nn.Linear draws them; both
        starts draw as many numbers."""
        bound = self.fan_in(len(senses)) ** -0.5
        blocks = {s: torch.empty(self.block).uniform_(-bound, bound) for s in senses}
        shared = {n: torch.empty(x).uniform_(-bound, bound) for n, x in self.shared.items()}
        if identity:
            return {s: self.identity() for s in senses}, self.zeros()
        return blocks, shared

    def grown(self, identity: bool) -> Tensor:
        """The block of a sense that is added to a model."""
        return self.identity() if identity else torch.zeros(self.block)

    def zeros(self) -> dict[str, Tensor]:
        """The shared parameters that a model gets with its first assistant, if it had none."""
        return {name: torch.zeros(shape) for name, shape in self.shared.items()}

    @abstractmethod
    def parts(
        self,
        tokens: Tensors,
        present: Tensors,
        blocks: Tensors,
        shared: Tensors,
        projections: Projections,
    ) -> dict[str, Tensor]:
        """``{sense: [B, T, Q, D]}``, what each assistant adds.

        tokens: ``{sense: [B, T, Q, D]}`` (``inside``: ``[B, T, Q, H]``, of the Q-Former) on the
        primary sense's segments, 0 where absent. present: ``{sense: [B]}`` bool. blocks: of each of
        these senses. projections: what turns each one's H into D; only read ``inside``.
        """

    def merge(self, parts: Tensors, shared: Tensors) -> Tensor:
        """``[B, T, Q, D]``, the fused tokens."""
        merged = self._bias(shared)
        for part in parts.values():
            merged = merged + part
        return self._finish(merged)

    def _bias(self, shared: Tensors) -> Tensor:
        return shared["bias"]

    def _finish(self, merged: Tensor) -> Tensor:
        return merged


class Ungated(Kind):
    """``x = sum_m W_m q_m + b``: eq. 3 without the gate."""

    def parts(
        self,
        tokens: Tensors,
        present: Tensors,
        blocks: Tensors,
        shared: Tensors,
        projections: Projections,
    ) -> dict[str, Tensor]:
        return {sense: _linear(own, blocks[sense]) for sense, own in tokens.items()}


class SelfGated(Ungated):
    """``x * sigmoid(x)`` with ``x = sum_m W_m q_m + b`` (eq. 3)."""

    def identity(self) -> Tensor:
        return 2 * torch.eye(self.width)  # silu(2 x) is nearly x

    def _finish(self, merged: Tensor) -> Tensor:
        return nn.functional.silu(merged)


class Linear(Kind):
    """Over the token axis: a linear map of the assistants' n Q tokens to Q of them, which is one
    block ``M_m [Q, Q]`` a sense: ``out[q] = sum_m sum_p M_m[q, p] q_m[p] + b[q]``."""

    @property
    def block(self) -> tuple[int, ...]:
        return (self.queries, self.queries)

    @property
    def shared(self) -> dict[str, tuple[int, ...]]:
        return {"bias": (self.queries,)}

    def fan_in(self, senses: int) -> int:
        return senses * self.queries

    def parts(
        self,
        tokens: Tensors,
        present: Tensors,
        blocks: Tensors,
        shared: Tensors,
        projections: Projections,
    ) -> dict[str, Tensor]:
        return {s: torch.einsum("qp,btpd->btqd", blocks[s], own) for s, own in tokens.items()}

    def _bias(self, shared: Tensors) -> Tensor:
        return shared["bias"][:, None]


class MixtureOfExperts(Kind):
    """A last layer of the Q-Former with one expert a sense and a router, of which Q tokens come
    out: ``sum_m w_m P_m(h_m + E_m h_m) + b``, where the weights of a token are a softmax over the
    senses that are present of ``r_m . h_m``, and ``P_m`` is the sense's own projection to the LLM.

    A block is ``[H + 1, H]``: the expert ``E_m``, and under it the router's vector ``r_m``.
    """

    inside = True
    hears_zeros = True

    @property
    def block(self) -> tuple[int, ...]:
        return (self.inner + 1, self.inner)

    def fan_in(self, senses: int) -> int:
        return self.inner  # a mean of experts, not their sum

    def identity(self) -> Tensor:
        return torch.zeros(self.block)  # a layer that adds to what it was given, and no preference

    def parts(
        self,
        tokens: Tensors,
        present: Tensors,
        blocks: Tensors,
        shared: Tensors,
        projections: Projections,
    ) -> dict[str, Tensor]:
        out = {sense: _linear(own, blocks[sense]) for sense, own in tokens.items()}
        weights = _softmax({s: x[..., self.inner :] for s, x in out.items()}, present)
        return {
            s: weights[s] * projections[s](tokens[s] + x[..., : self.inner]) for s, x in out.items()
        }


class CrossAttention(Kind):
    """Q learned prompts attend to all the assistants' tokens of a segment (multi-head attention).

    A sense's block ``[D]`` is added to its keys, so that senses can be told apart. Prompts and
    projections are the base's, there from the start, so that senses that are added apart meet the
    same ones.
    """

    needs_shared = True
    hears_zeros = True

    def __init__(self, width: int, queries: int, inner: int) -> None:
        super().__init__(width, queries, inner)
        self.heads = width // _HEAD if width % _HEAD == 0 else 1

    @property
    def block(self) -> tuple[int, ...]:
        return (self.width,)

    @property
    def shared(self) -> dict[str, tuple[int, ...]]:
        square = (self.width, self.width)
        return {
            "bias": (self.width,),
            "prompts": (self.queries, self.width),
            "query": square,
            "key": square,
            "value": square,
            "output": square,
        }

    def fan_in(self, senses: int) -> int:
        return self.width

    def identity(self) -> Tensor:
        return torch.zeros(self.block)  # no sense is preferred

    def start(self, senses: list[str], identity: bool) -> tuple[dict[str, Tensor], Tensors]:
        """Prompts and blocks as nn.Embedding draws, else all prompts would say nearly the same.
        With identity, a fused token is a mean of the assistants' tokens as they are."""
        _, linear = super().start([], False)
        blocks = {sense: torch.randn(self.block) for sense in senses}
        shared = {**linear, "prompts": torch.randn(self.queries, self.width)}
        if identity:
            blocks = {sense: self.identity() for sense in senses}
            shared |= {name: torch.eye(self.width) for name in ("value", "output")}
            shared["bias"] = torch.zeros(self.width)
        return blocks, shared

    def parts(
        self,
        tokens: Tensors,
        present: Tensors,
        blocks: Tensors,
        shared: Tensors,
        projections: Projections,
    ) -> dict[str, Tensor]:
        asked = self._split(_linear(shared["prompts"], shared["query"]))  # [Q, H, D / H]
        asked = asked * asked.shape[2] ** -0.5
        scores, values = {}, {}
        for sense, own in tokens.items():
            keys = self._split(_linear(own, shared["key"]) + blocks[sense])
            values[sense] = self._split(_linear(own, shared["value"]))  # [B, T, Q, H, D / H]
            scores[sense] = torch.einsum("qhd,btkhd->bthqk", asked, keys)
        weights = _softmax(scores, present)
        heard = {s: torch.einsum("bthqk,btkhd->btqhd", weights[s], values[s]) for s in tokens}
        return {sense: _linear(x.flatten(3), shared["output"]) for sense, x in heard.items()}

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1)


_KINDS: Mapping[str, type[Kind]] = {
    "self-gated": SelfGated,
    "ungated": Ungated,
    "linear": Linear,
    "mixture-of-experts": MixtureOfExperts,
    "cross-attention": CrossAttention,
}


def kind_of(name: str, width: int, queries: int, inner: int) -> Kind | None:
    """``model.fusion.kind`` for an LLM and a Q-Former (inner) of these widths; None for "concat",
    which merges nothing."""
    return _KINDS[name](width, queries, inner) if name in _KINDS else None


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """``[..., D] -> [..., E]``"""
    # As rows: of more dimensions torch folds by what requires a gradient, and rounds otherwise.
    return nn.functional.linear(x.flatten(0, -2), weight).view(*x.shape[:-1], -1)


def _softmax(scores: Tensors, present: Tensors) -> dict[str, Tensor]:
    """``{sense: [B, ..., K]}``: weights that sum to 1 over all K of all senses that are present
    (``[B]`` bool); those of the others are exactly 0, and change no bit of the sum."""
    masked = {
        sense: x.masked_fill(~present[sense].view(-1, *[1] * (x.ndim - 1)), -torch.inf)
        for sense, x in scores.items()
    }
    peak = torch.stack([x.detach().amax(dim=-1, keepdim=True) for x in masked.values()]).amax(dim=0)
    peak = peak.clamp(min=torch.finfo(peak.dtype).min)  # where no sense is present
    raised = {sense: (x - peak).exp() for sense, x in masked.items()}
    total = torch.zeros_like(peak)
    for x in raised.values():
        total = total + x.sum(dim=-1, keepdim=True)
    total = total + (total == 0)
    return {sense: x / total for sense, x in raised.items()}

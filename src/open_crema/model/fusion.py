"""Fusion: how the assisting senses' query tokens reach the LLM beside the primary sense's.

The published self-gated fusion (paper eq. 3) is one Linear over the channel-concatenation of the
assisting tokens. ``W [q2; ...; qn] + b`` equals ``sum_m W_m q_m + b``, so the fusion owns one block
``W_m`` a sense and one bias, and grows by adding blocks. The sum runs in canonical order. The other
kinds that merge are written as blocks too: ``model/fusion_kinds.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from open_crema import modality
from open_crema.config import AlignConfig, FusionConfig
from open_crema.modality import Alignment, canonical
from open_crema.model.fusion_kinds import kind_of


@dataclass(frozen=True)
class Inner:
    """A sense's tokens before its projection to the LLM: states ``[B, S, Q, H]`` of the Q-Former,
    and that projection, weight ``[D, H]`` and bias ``[D]``."""

    states: Tensor
    weight: Tensor
    bias: Tensor

    def project(self, states: Tensor) -> Tensor:
        # As rows: of more dimensions torch folds by what requires a gradient, and rounds otherwise.
        rows = nn.functional.linear(states.flatten(0, -2), self.weight, self.bias)
        return rows.view(*states.shape[:-1], -1)


@dataclass(frozen=True)
class QueryTokens:
    """A sense's tokens in the LLM's space: tokens ``[B, S, Q, D]``, segments ``[B, S]`` bool
    (which are real), times ``[B, S, 2]`` seconds. inner: what they came of, where the fusion merges
    that (``Fusion.inside``)."""

    tokens: Tensor
    segments: Tensor
    times: Tensor
    inner: Inner | None = None

    @property
    def present(self) -> Tensor:
        """``[B]`` bool"""
        return self.segments.any(dim=1)

    def detached(self) -> QueryTokens:
        """The same as constants."""
        inner = self.inner
        if inner is not None:
            inner = Inner(inner.states.detach(), inner.weight.detach(), inner.bias.detach())
        return replace(self, tokens=self.tokens.detach(), inner=inner)

    def where(self, samples: Tensor) -> QueryTokens:
        """The sense in these samples (``[B]`` bool) only, absent in the others.

        Their tokens become zeros, which every projection without a bias leaves at nothing.
        """
        kept = samples[:, None, None, None].to(self.tokens.dtype)
        inner = self.inner and replace(self.inner, states=self.inner.states * kept)
        segments = self.segments & samples[:, None]
        return QueryTokens(self.tokens * kept, segments, self.times, inner)

    def rows(self, places: Sequence[int]) -> QueryTokens:
        """Of these samples."""
        at = list(places)
        inner = self.inner and replace(self.inner, states=self.inner.states[at])
        return QueryTokens(self.tokens[at], self.segments[at], self.times[at], inner)


@dataclass(frozen=True)
class Block:
    """Consecutive tokens of the LLM's input: label (its text prefix), tokens ``[B, N, D]``, mask
    ``[B, N]`` bool. sense is None for fused tokens; segment is the block's place in time."""

    label: str
    sense: str | None
    segment: int
    tokens: Tensor
    mask: Tensor

    @property
    def present(self) -> Tensor:
        """``[B]`` bool"""
        return self.mask.any(dim=1)


FUSED_LABEL = "Other senses: "


def alignment_weights(primary: QueryTokens, sense: QueryTokens, how: Alignment) -> Tensor:
    """``[B, T, S]``: how much each segment of a sense gives to each segment of the primary one.

    Rows sum to 1 where both are real, else to 0. One segment is repeated; as many as the primary
    has are taken one to one, if "frames"; else weights are overlaps in time, and a primary segment
    that overlaps none takes the nearest in time; "mean" averages all segments.
    """
    valid = primary.segments[:, :, None] & sense.segments[:, None, :]  # [B, T, S]
    count = sense.segments.sum(dim=1)  # [B]
    mean = valid.double()
    if how == "mean" or how == "repeat":
        weights = mean
    else:
        start = torch.maximum(primary.times[:, :, None, 0], sense.times[:, None, :, 0])
        end = torch.minimum(primary.times[:, :, None, 1], sense.times[:, None, :, 1])
        signed = (end - start).masked_fill(~valid, -torch.inf)  # negative: the gap between them
        overlap = signed.clamp(min=0).masked_fill(~valid, 0)
        nearest = nn.functional.one_hot(signed.argmax(dim=2), signed.shape[2]) * valid
        weights = torch.where(overlap.sum(dim=2, keepdim=True) > 0, overlap, nearest.double())
        weights = torch.where((count == 1)[:, None, None], mean, weights)
    if how == "frames":
        one_to_one = torch.eye(*valid.shape[1:], dtype=torch.double, device=valid.device) * valid
        same = count == primary.segments.sum(dim=1)
        weights = torch.where(same[:, None, None], one_to_one, weights)
    total = weights.sum(dim=2, keepdim=True)
    return (weights / total.clamp(min=torch.finfo(torch.double).tiny)).to(primary.tokens.dtype)


def align(
    primary: QueryTokens, sense: QueryTokens, how: Alignment, *, inside: bool = False
) -> Tensor:
    """``[B, T, Q, D]``: a sense's tokens on the segments of the primary one, 0 where absent;
    inside: its states in the Q-Former, ``[B, T, Q, H]``."""
    given = sense.tokens
    if inside:
        assert sense.inner is not None, "the model hands them over where its fusion merges them"
        given = sense.inner.states
    weights = alignment_weights(primary, sense, how)
    return torch.einsum("bts,bsqd->btqd", weights.to(given.dtype), given)


class Fusion(nn.Module):
    """Turns every sense's query tokens into the blocks of the LLM's input.

    ``forward({sense: QueryTokens}) -> list[Block]``. The primary sense of a sample is the first
    one present in canonical order (video, if there). "concat" hands each sense's own tokens to the
    LLM; every other kind merges all but the primary sense into one block of its size (eq. 3).

    queries: how many tokens a segment has. inner: width of the Q-Former; by default the LLM's.
    blocks: each assistant's own parameters; they go with its adapter. shared: the fusion's others
    (its bias); they are the base's.
    """

    def __init__(
        self,
        senses: Sequence[str],
        width: int,
        config: FusionConfig,
        align: AlignConfig,
        *,
        queries: int,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.senses = canonical(senses)
        self.config = config
        self.align = align
        self.kind = kind_of(config.kind, width, queries, inner or width)
        self.blocks = nn.ParameterDict()
        self.bias: nn.Parameter | None = None
        if self.kind is not None and (len(self.senses) > 1 or self.kind.needs_shared):
            blocks, shared = self.kind.start(self.senses[1:], self._identity)
            for sense, block in blocks.items():
                self.blocks[sense] = nn.Parameter(block)
            self.set_shared(shared)

    @property
    def merges(self) -> bool:
        """Whether assistants become one block."""
        return self.kind is not None

    @property
    def inside(self) -> bool:
        """Whether it merges the Q-Former's states, which tokens then must bring."""
        return self.kind is not None and self.kind.inside

    @property
    def shared(self) -> dict[str, nn.Parameter]:
        """By name; empty for "concat", and mostly where there is no assistant."""
        return dict(self.named_parameters(recurse=False))

    def set_shared(self, tensors: Mapping[str, Tensor]) -> None:
        assert self.kind is not None
        for name in self.kind.shared:  # parameters stay in one order, whoever gives them
            # A copy: a file's tensors lie at any address, by which products are rounded.
            setattr(self, name, nn.Parameter(tensors[name].clone()))

    @property
    def _identity(self) -> bool:
        return self.config.init == "identity"

    def add(self, sense: str, like: Tensor) -> None:
        """Grows by a block (device and precision as ``like``'s), of zeros, or of what begins near
        the sense itself where the configuration starts so. Outputs stay as they are in any case: a
        sense that has not been trained is not heard."""
        self.senses = canonical([*self.senses, sense])
        if self.kind is None:
            return
        if not self.shared:
            self.set_shared({name: x.to(like) for name, x in self.kind.zeros().items()})
        for new in self.senses[1:]:  # the former first sense needs a block if it no longer leads
            if new not in self.blocks:
                self.blocks[new] = nn.Parameter(self.kind.grown(self._identity).to(like))
        for name in self.senses[1:]:  # parameters stay in canonical order
            self.blocks[name] = self.blocks.pop(name)

    def remove(self, sense: str) -> None:
        """Takes a sense out; the others' blocks stay as they are."""
        self.senses = [s for s in self.senses if s != sense]
        if sense in self.blocks:
            del self.blocks[sense]
        if len(self.senses) == 1:  # no assistant can be left
            self.blocks.clear()
            if self.kind is not None and not self.kind.needs_shared:
                self.bias = None

    def silent(self, sense: str) -> bool:
        """Whether a sense's block is zeros, so that as an assistant it is not heard."""
        if self.kind is None or self.kind.hears_zeros or sense not in self.blocks:
            return False
        return not bool(self.blocks[sense].any())

    def how(self, sense: str) -> Alignment:
        """How a sense's segments meet the primary one's: as its modality says; the audio's is also
        a named difference between paper and released code."""
        return self.align.audio if sense == "audio" else modality.get(sense).alignment

    def forward(self, senses: Mapping[str, QueryTokens]) -> list[Block]:
        blocks: list[Block] = []
        for primary, main, assistants in self._groups(senses):
            blocks += self._led_by(primary, main, assistants)
        return blocks

    def _groups(
        self, senses: Mapping[str, QueryTokens]
    ) -> Iterator[tuple[str, QueryTokens, dict[str, QueryTokens]]]:
        """For each sense that leads some samples: its tokens there, and their other senses'."""
        order = [s for s in self.senses if s in senses]
        led = torch.zeros_like(senses[order[0]].present) if order else None
        for i, primary in enumerate(order):
            assert led is not None
            lead = senses[primary].present & ~led
            led = led | lead
            if bool(lead.any()):
                main, *rest = (senses[s].where(lead) for s in order[i:])
                yield primary, main, dict(zip(order[i + 1 :], rest, strict=True))

    def _led_by(
        self, primary: str, main: QueryTokens, assistants: Mapping[str, QueryTokens]
    ) -> list[Block]:
        """Blocks of the samples whose primary sense this is."""
        if not self.merges:
            blocks = _segments_of(primary, main)
            for sense, q in assistants.items():
                blocks += _segments_of(sense, q)
            return blocks
        present = torch.stack([q.present for q in (main, *assistants.values())])[1:].any(dim=0)
        if not bool(present.any()):  # no assistant, no fused block: a bias is not a sense
            return _segments_of(primary, main)
        fused = self.merge(main, assistants)
        if self.config.placement == "add":
            gate = present[:, None, None, None].to(fused.dtype)
            added = QueryTokens(main.tokens + fused * gate, main.segments, main.times)
            return _segments_of(primary, added)
        mask = main.segments & present[:, None]
        mask = mask[:, :, None].expand(fused.shape[:3])
        return [
            *_segments_of(primary, main),
            Block(FUSED_LABEL, None, 0, fused.flatten(1, 2), mask.flatten(1, 2)),
        ]

    def merge(self, main: QueryTokens, assistants: Mapping[str, QueryTokens]) -> Tensor:
        """``[B, T, Q, D]``: the fused tokens, as the kind makes them of the assistants' parts.

        An absent sense adds nothing, not a projected zero.
        """
        assert self.kind is not None
        return self.kind.merge(self.parts(main, assistants), self.shared)

    def parts(self, main: QueryTokens, assistants: Mapping[str, QueryTokens]) -> dict[str, Tensor]:
        """``{sense: [B, T, Q, D]}``, in canonical order: what each assistant adds to the fused
        tokens (``W_m q_m`` in eq. 3) on the primary sense's segments."""
        assert self.kind is not None
        given = {sense: assistants[sense] for sense in canonical(assistants)}
        inside = self.inside
        return self.kind.parts(
            {s: align(main, q, self.how(s), inside=inside) for s, q in given.items()},
            {s: q.present for s, q in given.items()},
            {s: self.blocks[s] for s in given},
            self.shared,
            {s: q.inner.project for s, q in given.items() if q.inner is not None},
        )

    @torch.no_grad()
    def shares(self, senses: Mapping[str, QueryTokens]) -> dict[str, Tensor]:
        """``{sense: [B]}``: each assistant's share of the fused tokens, the norm of its part
        (``W_m q_m``) over the sum of all assistants' norms; 0 where it leads or is absent. Empty
        for "concat"."""
        if not self.merges:
            return {}
        norms: dict[str, Tensor] = {}
        for _, main, assistants in self._groups(senses):
            real = main.segments[:, :, None, None]
            for sense, part in self.parts(main, assistants).items():
                norm = (part * real).flatten(1).norm(dim=1)
                norms[sense] = norms.get(sense, torch.zeros_like(norm)) + norm
        if not norms:
            return {}
        total = torch.stack(list(norms.values())).sum(dim=0)
        return {s: n / total.clamp(min=torch.finfo(n.dtype).tiny) for s, n in norms.items()}


def _segments_of(sense: str, q: QueryTokens) -> list[Block]:
    """One block a segment, each with its label."""
    kind = modality.get(sense)
    blocks = []
    for s in range(q.tokens.shape[1]):
        label = f"{kind.label} {s + 1}: " if kind.numbered() else f"{kind.label}: "
        mask = q.segments[:, s, None].expand(q.tokens.shape[0], q.tokens.shape[2])
        if bool(mask.any()):
            blocks.append(Block(label, sense, s, q.tokens[:, s], mask))
    return blocks

"""Every kind of fusion that merges, against plain loops, and what all of them promise."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from open_crema.config import AlignConfig, FusionConfig
from open_crema.modality import canonical
from open_crema.model.fusion import FUSED_LABEL, Fusion, Inner, QueryTokens
from open_crema.model.fusion_kinds import kind_of

KINDS = ["self-gated", "ungated", "linear", "mixture-of-experts", "cross-attention"]
kinds = pytest.mark.parametrize("kind", KINDS)
placements = pytest.mark.parametrize("placement", ["append", "add"])
ASSISTANTS = ("audio", "flow", "depth")
WIDTH, INNER, QUERIES, FRAMES = 6, 5, 3, 2


def fusion_of(kind: str, *senses: str, width: int = WIDTH, seed: int = 0, **config: str) -> Fusion:
    """In double precision, with every parameter moved, so that a bias of zeros matters too."""
    torch.manual_seed(seed)
    chosen = FusionConfig(kind, **config)
    made = Fusion(senses, width, chosen, AlignConfig(), queries=QUERIES, inner=INNER)
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            noise = torch.Generator().manual_seed(sum(map(ord, name)))
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    return made.double().eval()


def tokens(sense: str, present: list[bool], width: int = WIDTH) -> QueryTokens:
    """One segment a frame; an absent sense's tokens are zeros."""
    noise = torch.Generator().manual_seed(sum(map(ord, sense)))
    there = torch.tensor(present)
    edges = torch.arange(FRAMES + 1, dtype=torch.double)
    states = torch.randn(len(there), FRAMES, QUERIES, INNER, generator=noise).double()
    weight, bias = torch.randn(width, INNER + 1, generator=noise).double().split((INNER, 1), 1)
    inner = Inner(states * there[:, None, None, None], weight, bias[:, 0])
    return QueryTokens(
        inner.project(inner.states) * there[:, None, None, None],
        there[:, None].expand(-1, FRAMES),
        torch.stack([edges[:-1], edges[1:]], dim=1).expand(len(there), -1, -1),
        inner,
    )


def clip(presence: Mapping[str, list[bool]], width: int = WIDTH) -> dict[str, QueryTokens]:
    count = len(next(iter(presence.values())))
    return {s: tokens(s, p, width) for s, p in {"video": [True] * count, **presence}.items()}


def merged(made: Fusion, senses: Mapping[str, QueryTokens]) -> Tensor:
    """``[B, T, Q, D]``; the video leads."""
    return made.merge(senses["video"], {s: q for s, q in senses.items() if s != "video"})


# Plain loops: one sample, one frame, the senses that it has.


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def times(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.tensor([dot(row, x) for row in matrix], dtype=torch.double)


def shares(scores: list[float]) -> list[float]:
    raised = [math.exp(score) for score in scores]
    return [x / sum(raised) for x in raised]


def naive_sum(made: Fusion, own: dict[str, Tensor]) -> Tensor:
    rows = []
    for q in range(QUERIES):
        x = made.bias.clone()
        for sense, frame in own.items():
            x = x + times(made.blocks[sense], frame[q])
        rows.append(x)
    return torch.stack(rows)


def naive_gate(made: Fusion, own: dict[str, Tensor]) -> Tensor:
    x = naive_sum(made, own)
    return x / (1 + torch.exp(-x))


def naive_linear(made: Fusion, own: dict[str, Tensor]) -> Tensor:
    """One map over all the assistants' tokens, in a row."""
    every = [row for frame in own.values() for row in frame]
    weight = torch.cat([made.blocks[sense] for sense in own], dim=1)
    return torch.stack(
        [
            sum(weight[q, i] * row for i, row in enumerate(every)) + made.bias[q]
            for q in range(QUERIES)
        ]
    )


def naive_experts(
    made: Fusion, own: dict[str, Tensor], projections: dict[str, tuple[Tensor, Tensor]]
) -> Tensor:
    """own: of the Q-Former."""
    rows = []
    for q in range(QUERIES):
        routed = shares([dot(made.blocks[s][INNER], frame[q]) for s, frame in own.items()])
        x = made.bias.clone()
        for share, (sense, frame) in zip(routed, own.items(), strict=True):
            weight, bias = projections[sense]
            state = frame[q] + times(made.blocks[sense][:INNER], frame[q])
            x = x + share * (times(weight, state) + bias)
        rows.append(x)
    return torch.stack(rows)


def naive_attention(made: Fusion, own: dict[str, Tensor]) -> Tensor:
    shared = made.shared
    every = [(sense, row) for sense, frame in own.items() for row in frame]
    keys = [times(shared["key"], row) + made.blocks[sense] for sense, row in every]
    values = [times(shared["value"], row) for _, row in every]
    heads = made.kind.heads
    size = len(made.bias) // heads
    rows = []
    for prompt in shared["prompts"]:
        query, heard = times(shared["query"], prompt), []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weights = shares([dot(query[part], key[part]) / size**0.5 for key in keys])
            heard.append(sum(w * v[part] for w, v in zip(weights, values, strict=True)))
        rows.append(times(shared["output"], torch.cat(heard)) + made.bias)
    return torch.stack(rows)


NAIVE = {
    "self-gated": naive_gate,
    "ungated": naive_sum,
    "linear": naive_linear,
    "cross-attention": naive_attention,
}


def compare(kind: str, presence: Mapping[str, list[bool]], width: int = WIDTH) -> None:
    made = fusion_of(kind, "video", *presence, width=width)
    senses = clip(presence, width)
    with torch.no_grad():
        found = merged(made, senses)
        for b, t in torch.cartesian_prod(torch.arange(found.shape[0]), torch.arange(FRAMES)):
            there = [s for s in canonical(presence) if presence[s][b]]
            if there and made.inside:
                own = {s: senses[s].inner.states[b, t] for s in there}
                projections = {s: (senses[s].inner.weight, senses[s].inner.bias) for s in there}
                expected = naive_experts(made, own, projections)
            elif there:
                expected = NAIVE[kind](made, {s: senses[s].tokens[b, t] for s in there})
            if there:
                torch.testing.assert_close(found[b, t], expected)
    assert bool(found.isfinite().all())


presences = st.integers(1, 3).flatmap(
    lambda count: st.fixed_dictionaries(
        {s: st.lists(st.booleans(), min_size=count, max_size=count) for s in ASSISTANTS}
    )
)
several = settings(max_examples=8)


@kinds
@several
@given(presence=presences)
def test_a_kind_is_its_plain_loop(kind, presence):
    compare(kind, presence)


@pytest.mark.parametrize(("width", "heads"), [(6, 1), (96, 1), (128, 2), (576, 9), (2048, 32)])
def test_attention_has_heads_of_64_where_they_divide_the_width(width, heads):
    assert kind_of("cross-attention", width, QUERIES, INNER).heads == heads
    if width == 128:
        compare("cross-attention", {"audio": [True], "flow": [True]}, width)


# What all of them promise.


@kinds
@placements
@several
@given(presence=presences)
def test_an_absent_sense_changes_no_bit(kind, placement, presence):
    """Whether it is in the batch for another sample, or not in the batch at all."""
    made = fusion_of(kind, "video", *ASSISTANTS, placement=placement)
    senses = clip(presence)
    count = len(presence["audio"])
    nobody = {s: [False] * count for s in ASSISTANTS if not any(presence[s])}
    there = {s: q for s, q in senses.items() if s not in nobody}
    with torch.no_grad():
        whole, fewer = made(senses), made(there)
        assert [b.label for b in whole] == [b.label for b in fewer]
        assert all(torch.equal(x.tokens, y.tokens) for x, y in zip(whole, fewer, strict=True))
        parts = made.parts(senses["video"], {s: senses[s] for s in ASSISTANTS})
    for sense, part in parts.items():
        assert not part[~torch.tensor(presence[sense])].any()
    for block in whole:
        if block.sense is None:
            alone = torch.tensor(
                [not any(presence[s][i] for s in ASSISTANTS) for i in range(count)]
            )
            assert torch.equal(block.present, ~alone)


@kinds
@placements
def test_without_an_assistant_there_is_no_fused_block(kind, placement):
    made = fusion_of(kind, "video", "audio", placement=placement)
    alone = clip({"audio": [False, False]})
    for senses in (alone, {"video": alone["video"]}):
        blocks = made(senses)
        assert [b.label for b in blocks] == ["Frame 1: ", "Frame 2: "]
        for t, block in enumerate(blocks):
            assert torch.equal(block.tokens, alone["video"].tokens[:, t])


@kinds
@placements
def test_the_fused_block_has_the_size_of_the_primarys(kind, placement):
    made = fusion_of(kind, "video", *ASSISTANTS, placement=placement)
    senses = clip({s: [True, s == "flow"] for s in ASSISTANTS})
    blocks, fused = made(senses), merged(made, senses)
    assert fused.shape == senses["video"].tokens.shape
    if placement == "append":
        assert [b.label for b in blocks] == ["Frame 1: ", "Frame 2: ", FUSED_LABEL]
        assert torch.equal(blocks[2].tokens, fused.flatten(1, 2))
    else:
        for t, block in enumerate(blocks):
            assert torch.equal(block.tokens, senses["video"].tokens[:, t] + fused[:, t])


@kinds
@several
@given(order=st.permutations(["video", *ASSISTANTS]))
def test_the_order_of_listing_changes_no_bit(kind, order):
    made, other = fusion_of(kind, "video", *ASSISTANTS), fusion_of(kind, *order)
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in other.named_parameters()]
    assert all(torch.equal(p, other.state_dict()[n]) for n, p in made.state_dict().items())
    senses = clip({"audio": [True, True], "flow": [True, False], "depth": [True, True]})
    shuffled = {s: senses[s] for s in order}
    with torch.no_grad():
        assert torch.equal(merged(made, senses), merged(other, shuffled))


@kinds
@pytest.mark.parametrize("init", ["fan-in", "identity"])
def test_gradients_reach_every_parameter_and_every_sense(kind, init):
    torch.manual_seed(0)
    config = FusionConfig(kind, init=init)
    listed = ["video", *ASSISTANTS]
    made = Fusion(listed, WIDTH, config, AlignConfig(), queries=QUERIES, inner=INNER).double()
    senses = clip({s: [True, s != "flow", False] for s in ASSISTANTS})
    given = {s: q.inner.states if made.inside else q.tokens for s, q in senses.items()}
    for x in given.values():
        x.requires_grad_()
    (*_, fused) = made(senses)
    noise = torch.randn(fused.tokens.shape, generator=torch.Generator().manual_seed(1))
    (fused.tokens * noise)[fused.mask].sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.any(), name
        assert bool(parameter.grad.isfinite().all()), name
    for sense in ASSISTANTS:
        found = given[sense].grad.flatten(1).abs().sum(dim=1) > 0
        assert found.tolist() == senses[sense].present.tolist()


@kinds
def test_a_sample_without_any_assistant_spoils_no_gradient(kind):
    made = fusion_of(kind, "video", "audio", "flow").train()
    fused = merged(made, clip({"audio": [True, False], "flow": [False, False]}))
    fused.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)


@kinds
def test_large_scores_are_no_overflow(kind):
    made = fusion_of(kind, "video", *ASSISTANTS).float()
    senses = clip({"audio": [True, False], "flow": [True, True], "depth": [False, False]})
    senses = {
        s: QueryTokens(
            1e4 * q.tokens.float(),
            q.segments,
            q.times,
            Inner(1e4 * q.inner.states.float(), q.inner.weight.float(), q.inner.bias.float()),
        )
        for s, q in senses.items()
    }
    assert bool(merged(made, senses).isfinite().all())


@pytest.mark.parametrize("kind", [*KINDS, "concat"])
def test_shares_sum_to_one(kind):
    made = fusion_of(kind, "video", *ASSISTANTS)
    senses = clip({"audio": [True, False], "flow": [True, True], "depth": [False, True]})
    found = made.shares(senses)
    if kind == "concat":
        assert found == {}
        return
    assert list(found) == ["audio", "flow", "depth"]
    torch.testing.assert_close(sum(found.values()), torch.ones(2).double())
    assert float(found["audio"][1]) == float(found["depth"][0]) == 0


# How they start, and how they grow.


@pytest.mark.parametrize(
    ("kind", "own", "shared"),
    [
        ("self-gated", 576 * 576, 576),
        ("ungated", 576 * 576, 576),
        ("linear", 8 * 8, 8),
        ("mixture-of-experts", 257 * 256, 576),
        ("cross-attention", 576, 576 + 8 * 576 + 4 * 576 * 576),
        ("concat", 0, 0),
    ],
)
def test_sizes_at_the_embedded_scale(kind, own, shared):
    for assistants in (1, 3):
        senses = ["video", *ASSISTANTS[:assistants]]
        with torch.device("meta"):
            made = Fusion(senses, 576, FusionConfig(kind), AlignConfig(), queries=8, inner=256)
        found = sum(p.numel() for p in made.parameters())
        assert found == assistants * own + shared


def started(kind: str, *senses: str, init: str = "identity") -> Fusion:
    torch.manual_seed(0)
    config = FusionConfig(kind, init=init)
    return Fusion(senses, WIDTH, config, AlignConfig(), queries=QUERIES, inner=INNER).double()


@pytest.mark.parametrize("kind", ["ungated", "linear", "mixture-of-experts"])
def test_an_identity_hands_on_one_sense_as_it_is(kind):
    senses = clip({"audio": [True]})
    fused = merged(started(kind, "video", "audio"), senses)
    torch.testing.assert_close(fused, senses["audio"].tokens)


@pytest.mark.parametrize("kind", ["ungated", "linear", "mixture-of-experts"])
def test_an_identity_adds_up_senses_or_takes_their_mean(kind):
    senses = clip({"audio": [True], "flow": [True]})
    fused = merged(started(kind, "video", "audio", "flow"), senses)
    total = senses["audio"].tokens + senses["flow"].tokens
    torch.testing.assert_close(fused, total / 2 if kind == "mixture-of-experts" else total)


def test_attention_that_starts_as_an_identity_takes_means_of_tokens_as_they_are():
    senses = clip({"audio": [True], "flow": [True]})
    fused = merged(started("cross-attention", "video", "audio", "flow"), senses).detach()
    every = torch.cat([senses["audio"].tokens, senses["flow"].tokens], dim=2)  # [1, T, 2 Q, D]
    weights = torch.linalg.lstsq(every.mT, fused.mT).solution  # 2 Q = D: there is just one
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(1, FRAMES, QUERIES).double())
    assert bool((weights > 0).all())
    assert float((fused[0, 0, 0] - fused[0, 0, 1]).abs().max()) > 1e-3, "prompts differ"


@kinds
def test_a_fan_in_is_of_what_an_output_sums(kind):
    torch.manual_seed(0)
    made = Fusion(["video", *ASSISTANTS], 64, FusionConfig(kind), AlignConfig(), queries=32)
    inputs = {"self-gated": 3 * 64, "ungated": 3 * 64, "linear": 3 * 32}.get(kind, 64)
    drawn_as_embeddings = {"prompts"} | (
        {f"blocks.{s}" for s in ASSISTANTS} if kind == "cross-attention" else set()
    )
    for name, parameter in made.named_parameters():
        if name in drawn_as_embeddings:
            assert 0.7 < float(parameter.detach().std()) < 1.3
        else:
            assert 0.8 < float(parameter.detach().abs().max()) * inputs**0.5 <= 1, name


@kinds
def test_both_starts_of_a_kind_draw_as_many_numbers(kind):
    after = []
    for init in ("fan-in", "identity"):
        started(kind, "video", *ASSISTANTS, init=init)
        after.append(torch.rand(3))
    assert torch.equal(*after)


@kinds
def test_a_block_of_zeros_changes_no_bit_even_in_training_where_its_kind_can_promise_it(kind):
    senses = clip({s: [True, True] for s in ASSISTANTS})
    before = fusion_of(kind, "video", "audio", "flow")
    two = {s: q for s, q in senses.items() if s != "depth"}
    after = fusion_of(kind, "video", "audio", "flow")
    after.add("depth", torch.zeros(1).double())
    assert not after.blocks["depth"].any()
    can = kind in ("self-gated", "ungated", "linear")
    assert after.silent("depth") == can
    assert torch.equal(merged(before, two), merged(after.train(), senses)) == can
    assert torch.equal(merged(before, two), merged(after, two)), "left out, it changes no bit"


@kinds
def test_a_block_of_zeros_is_trained(kind):
    made = fusion_of(kind, "video", "audio")
    made.add("depth", torch.zeros(1).double())
    merged(made, clip({"audio": [True], "depth": [True]})).square().sum().backward()
    assert made.blocks["depth"].grad.any()


@kinds
@pytest.mark.parametrize("init", ["fan-in", "identity"])
def test_growing_and_shrinking_restores_every_parameter(kind, init):
    for senses in (("video",), ("video", "flow"), ("audio", "flow")):
        made = started(kind, *senses, init=init)
        before = {n: p.clone() for n, p in made.state_dict().items()}
        for sense in ("depth", "normal"):
            made.add(sense, torch.zeros(1).double())
        grown = canonical([*senses, "depth", "normal"])
        assert list(made.blocks) == grown[1:]
        assert made.shared.keys() == made.kind.shared.keys()
        for sense in ("normal", "depth"):
            made.remove(sense)
        assert made.state_dict().keys() == before.keys()
        assert all(torch.equal(before[n], p) for n, p in made.state_dict().items())


@pytest.mark.parametrize("kind", ["ungated", "linear", "mixture-of-experts", "cross-attention"])
def test_only_attention_has_parameters_without_an_assistant(kind):
    names = set(started(kind, "video").state_dict())
    assert names == (
        set(started(kind, "video").kind.shared) if kind == "cross-attention" else set()
    )

"""Fusion: alignment in time, the gate of eq. 3 written as blocks, and who leads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from open_crema.config import AlignConfig, FusionConfig
from open_crema.model.fusion import (
    FUSED_LABEL,
    Fusion,
    QueryTokens,
    align,
    alignment_weights,
)

WIDTH, QUERIES = 6, 2


def tokens(times: list[list[tuple[float, float]]], seed: int = 0) -> QueryTokens:
    """Segments of each sample by their times; shorter samples are padded."""
    longest = max(map(len, times))
    span = torch.zeros(len(times), longest, 2, dtype=torch.float64)
    real = torch.zeros(len(times), longest, dtype=torch.bool)
    for row, own in enumerate(times):
        real[row, : len(own)] = True
        if own:
            span[row, : len(own)] = torch.tensor(own, dtype=torch.float64)
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(len(times), longest, QUERIES, WIDTH, generator=noise)
    return QueryTokens(values * real[:, :, None, None], real, span)


def even(count: int, start: float = 0.0, end: float = 8.0) -> list[tuple[float, float]]:
    step = (end - start) / max(count, 1)
    return [(start + i * step, start + (i + 1) * step) for i in range(count)]


def naive_weights(main: list, own: list, how: str) -> list[list[float]]:
    """What each of the primary's segments takes of each of the sense's, by plain loops."""
    rows = []
    for t, (begin, end) in enumerate(main):
        if how in ("mean", "repeat") or len(own) == 1:
            rows.append([1 / len(own)] * len(own))
        elif how == "frames" and len(own) == len(main):
            rows.append([float(s == t) for s in range(len(own))])
        else:
            shared = [max(0.0, min(end, e) - max(begin, b)) for b, e in own]
            if sum(shared) == 0:
                gaps = [max(begin, b) - min(end, e) for b, e in own]
                shared = [float(s == gaps.index(min(gaps))) for s in range(len(own))]
            rows.append([w / sum(shared) for w in shared])
    return rows


spans = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 20)).map(lambda x: (x[0] / 4, (x[0] + x[1]) / 4)),
    min_size=0,
    max_size=5,
)


@settings(max_examples=60)
@given(
    samples=st.lists(st.tuples(spans, spans), min_size=1, max_size=3),
    how=st.sampled_from(["frames", "overlap", "mean", "repeat"]),
)
def test_alignment_weights_against_a_naive_loop(samples, how):
    mains, owns = [m for m, _ in samples], [o for _, o in samples]
    if not any(mains) or not any(owns):
        return
    weights = alignment_weights(tokens(mains), tokens(owns), how)
    for row, (main, own) in enumerate(samples):
        expected = torch.zeros(weights.shape[1:])
        if main and own:
            expected[: len(main), : len(own)] = torch.tensor(naive_weights(main, own, how))
        assert torch.allclose(weights[row], expected, atol=1e-6)


@pytest.mark.parametrize("how", ["frames", "overlap", "mean", "repeat"])
def test_rows_sum_to_one_where_both_are_real_and_to_zero_elsewhere(how):
    main = tokens([even(4), even(2), [], even(3)])
    sense = tokens([even(3), [], even(2), even(1)])
    sums = alignment_weights(main, sense, how).sum(2)
    both = main.segments & sense.present[:, None]
    assert torch.allclose(sums, both.float())


@pytest.mark.parametrize("how", ["frames", "overlap", "mean", "repeat"])
def test_one_segment_is_repeated(how):
    main, sense = tokens([even(4)]), tokens([[(100.0, 101.0)]], seed=1)
    assert torch.equal(align(main, sense, how), sense.tokens.expand(-1, 4, -1, -1))


def test_windows_are_mixed_by_their_share_of_a_frames_time():
    main, sense = tokens([[(0, 4), (4, 8)]]), tokens([[(0, 3), (3, 6), (6, 9)]])
    weights = alignment_weights(main, sense, "overlap")[0]
    assert torch.allclose(weights, torch.tensor([[0.75, 0.25, 0], [0, 0.5, 0.5]]))


def test_a_frame_outside_all_windows_takes_the_nearest():
    main = tokens([[(0, 1), (10, 11), (20, 20)]])
    sense = tokens([[(2, 3), (7, 9), (19.5, 22)]])
    weights = alignment_weights(main, sense, "overlap")[0]
    assert weights.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_frames_of_unequal_number_meet_by_time():
    main, sense = tokens([even(2)]), tokens([even(4)])
    weights = alignment_weights(main, sense, "frames")[0]
    assert weights.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]


def test_frames_of_equal_number_meet_one_to_one_whatever_their_times():
    main, sense = tokens([even(3)]), tokens([even(3, 50, 60)])
    assert torch.equal(alignment_weights(main, sense, "frames")[0], torch.eye(3))


def test_weights_keep_the_precision_of_the_tokens():
    half = replace(tokens([even(2)]), tokens=tokens([even(2)]).tokens.bfloat16())
    assert alignment_weights(half, tokens([even(3)]), "overlap").dtype == torch.bfloat16


def fusion(*senses: str, seed: int = 0, audio: str = "overlap", **config) -> Fusion:
    torch.manual_seed(seed)
    return Fusion(
        senses, WIDTH, FusionConfig(**config), AlignConfig(audio=audio), queries=QUERIES
    ).eval()


def four(count: int = 4) -> dict[str, QueryTokens]:
    return {s: tokens([even(count)] * 2, i) for i, s in enumerate(["video", "flow", "depth"])}


def test_blocks_are_the_papers_one_linear_layer():
    made, senses = fusion("video", "flow", "depth"), four()
    linear = nn.Linear(2 * WIDTH, WIDTH)
    with torch.no_grad():
        linear.weight.copy_(torch.cat([made.blocks["flow"], made.blocks["depth"]], dim=1))
        linear.bias.copy_(made.bias)
    x = linear(torch.cat([senses["flow"].tokens, senses["depth"].tokens], dim=3))
    assert torch.allclose(
        made.merge(senses["video"], {s: senses[s] for s in ("flow", "depth")}),
        x * torch.sigmoid(x),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("assistants", "expected"), [(1, 4_196_352), (2, 8_390_656), (3, 12_584_960), (4, 16_779_264)]
)
def test_size_at_the_papers_scale(assistants, expected):
    senses = ["video", "audio", "flow", "depth", "normal"][: assistants + 1]
    with torch.device("meta"):
        made = Fusion(senses, 2048, FusionConfig(), AlignConfig(), queries=32)
    assert sum(p.numel() for p in made.parameters()) == expected


def test_initial_values_are_those_of_the_one_linear_layer():
    torch.manual_seed(0)
    made = Fusion(["video", "flow", "depth"], 64, FusionConfig(), AlignConfig(), queries=2)
    bound = (2 * 64) ** -0.5
    for parameter in made.parameters():
        assert 0.9 * bound < parameter.abs().max() <= bound


def test_appended_fusion_follows_all_frames_with_one_label():
    blocks = fusion("video", "flow", "depth")(four(3))
    assert [b.label for b in blocks] == ["Frame 1: ", "Frame 2: ", "Frame 3: ", FUSED_LABEL]
    assert [b.sense for b in blocks] == ["video"] * 3 + [None]
    assert blocks[-1].tokens.shape == (2, 3 * QUERIES, WIDTH)
    for t, block in enumerate(blocks[:3]):
        assert torch.equal(block.tokens, four(3)["video"].tokens[:, t])


def test_added_fusion_keeps_the_primarys_length():
    made, senses = fusion("video", "flow", "depth", placement="add"), four(3)
    blocks = made(senses)
    y = made.merge(senses["video"], {s: senses[s] for s in ("flow", "depth")})
    assert [b.label for b in blocks] == ["Frame 1: ", "Frame 2: ", "Frame 3: "]
    for t, block in enumerate(blocks):
        assert torch.equal(block.tokens, senses["video"].tokens[:, t] + y[:, t])


def test_concatenation_hands_over_every_senses_own_segments():
    made = fusion("point", "audio", "video", kind="concat")
    assert not list(made.parameters())
    senses = {
        "video": tokens([even(2)] * 2),
        "audio": tokens([even(3)] * 2),
        "point": tokens([even(1)] * 2),
    }
    labels = [b.label for b in made(senses)]
    frames, sounds = ["Frame 1: ", "Frame 2: "], ["Audio 1: ", "Audio 2: ", "Audio 3: "]
    assert labels == [*frames, *sounds, "3D Model: "]


def masks(blocks: list, row: int) -> dict[str, int]:
    """How many real tokens each label has for one sample."""
    return {b.label: int(b.mask[row].sum()) for b in blocks if b.mask[row].any()}


@pytest.mark.parametrize("placement", ["append", "add"])
def test_each_sample_is_led_by_its_first_present_sense(placement):
    made = fusion("video", "audio", "flow", placement=placement)
    blocks = made(
        {
            "video": tokens([even(2), [], [], [], even(1)], 0),
            "audio": tokens([even(2), even(2), [], [], []], 1),
            "flow": tokens([[], even(3), even(3), [], []], 2),
        }
    )
    fused = {FUSED_LABEL: 2 * QUERIES} if placement == "append" else {}
    assert masks(blocks, 0) == {"Frame 1: ": 2, "Frame 2: ": 2, **fused}
    assert masks(blocks, 1) == {"Audio 1: ": 2, "Audio 2: ": 2, **fused}
    flow = {f"Optical Flow {i}: ": QUERIES for i in (1, 2, 3)}
    assert masks(blocks, 2) == flow, "flow alone: no assistant, no fused block"
    assert masks(blocks, 3) == {}, "nothing present"
    assert masks(blocks, 4) == {"Frame 1: ": 2}, "video alone: no assistant, no fused block"


def test_without_assistants_adding_the_gate_changes_no_token():
    made = fusion("video", "audio", placement="add")
    senses = {"video": tokens([even(2), even(2)]), "audio": tokens([even(2), []], 1)}
    for t, block in enumerate(made(senses)):
        assert torch.equal(block.tokens[1], senses["video"].tokens[1, t])
        assert not torch.equal(block.tokens[0], senses["video"].tokens[0, t])


def test_an_absent_assistant_adds_nothing_not_a_projected_zero():
    made = fusion("video", "flow", "depth")
    senses = {
        "video": tokens([even(2), even(2)]),
        "flow": tokens([even(2), even(2)], 1),
        "depth": tokens([even(2), []], 2),
    }
    fused = made(senses)[-1].tokens[1]
    x = nn.functional.linear(senses["flow"].tokens[1], made.blocks["flow"]) + made.bias
    assert torch.allclose(fused, (x * x.sigmoid()).flatten(0, 1), atol=1e-6)


def test_nothing_gives_no_blocks():
    assert fusion("video", "audio")({}) == []
    assert fusion("video", "audio")({"video": tokens([[(0, 1)]]), "audio": tokens([[(0, 1)]])})
    absent = QueryTokens(
        torch.zeros(2, 3, QUERIES, WIDTH),
        torch.zeros(2, 3, dtype=torch.bool),
        torch.zeros(2, 3, 2, dtype=torch.float64),
    )
    assert fusion("video", "audio")({"video": absent, "audio": absent}) == []


def test_the_order_of_listing_changes_neither_weights_nor_sums():
    a, b = fusion("video", "flow", "depth"), fusion("depth", "video", "flow")
    assert list(a.blocks) == list(b.blocks)
    for name, block in a.state_dict().items():
        assert torch.equal(block, b.state_dict()[name])
    senses = four()
    reversed_senses = dict(reversed(senses.items()))
    for x, y in zip(a(senses), b(reversed_senses), strict=True):
        assert (x.label, x.sense, x.segment) == (y.label, y.sense, y.segment)
        assert torch.equal(x.tokens, y.tokens)


def parameters(made: Fusion) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in made.state_dict().items()}


def test_adding_and_removing_leaves_the_others_blocks_alone():
    made = fusion("video", "flow")
    before = parameters(made)
    made.add("audio", torch.zeros(1))
    assert not made.blocks["audio"].any()
    assert made.senses == ["video", "audio", "flow"]
    made.remove("audio")
    assert made.senses == ["video", "flow"]
    assert before.keys() == parameters(made).keys()
    assert all(torch.equal(before[n], t) for n, t in parameters(made).items())


def test_a_zero_block_changes_no_bit():
    made, senses = fusion("video", "flow"), four()
    before = made({s: senses[s] for s in ("video", "flow")})
    made.add("depth", torch.zeros(1))
    for x, y in zip(before, made(senses), strict=True):
        assert torch.equal(x.tokens, y.tokens)
    made.train()  # in training the new sense takes part, and its zero block adds exactly nothing
    for x, y in zip(before, made(senses), strict=True):
        assert torch.equal(x.tokens, y.tokens)
    assert made(senses)[-1].tokens.requires_grad


def test_a_zero_block_learns():
    made, senses = fusion("video").train(), four()
    made.add("flow", torch.zeros(1))
    made({s: senses[s] for s in ("video", "flow")})[-1].tokens.square().sum().backward()
    assert made.blocks["flow"].grad is not None

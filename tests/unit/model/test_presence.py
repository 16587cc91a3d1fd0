"""Whatever senses each sample of a batch has, with every kind of fusion."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny

KINDS = [
    "self-gated",
    "concat",
    "ungated",
    "linear",
    "mixture-of-experts",
    "cross-attention",
]
SEGMENTS = {"video": 3, "audio": 2, "flow": 3, "point": 1}
SENSES = tuple(SEGMENTS)
kinds = pytest.mark.parametrize("kind", KINDS)
# The baselines concatenate.
forms = pytest.mark.parametrize(
    ("kind", "own"), [*((kind, "shared") for kind in KINDS), ("concat", "each")]
)
# Which senses each of two or three samples has; at least one.
patterns = st.lists(
    st.lists(st.sampled_from(SENSES), min_size=1, unique=True), min_size=2, max_size=3
)
several = settings(max_examples=4)


@pytest.fixture(scope="module")
def llm():
    return tiny.backbone("encoder-decoder")


def model_of(llm, kind: str, own: str, senses: tuple[str, ...] = SENSES):
    qformer = {"own": own, "layers": 1}
    return tiny.crema(*senses, llm=llm, fusion={"kind": kind}, qformer=qformer)


def items(pattern: list[list[str]]) -> list[tiny.Item]:
    return [
        tiny.item(seed, **{sense: SEGMENTS[sense] for sense in senses})
        for seed, senses in enumerate(pattern)
    ]


@forms
@several
@given(pattern=patterns)
def test_a_sample_does_not_depend_on_its_batch(llm, kind, own, pattern):
    model = model_of(llm, kind, own)
    with torch.no_grad():
        out = model(tiny.batch(*items(pattern)))
        losses = tiny.sample_losses(out.logits, out.labels)
        for item, loss in zip(items(pattern), losses, strict=True):
            alone = model(tiny.batch(item))
            torch.testing.assert_close(tiny.sample_losses(alone.logits, alone.labels)[0], loss)


@forms
@several
@given(pattern=patterns)
def test_a_sense_that_a_sample_has_not_gets_no_gradient_of_it(llm, kind, own, pattern):
    """Neither its adapter nor its block, though the batch has it."""
    model = model_of(llm, kind, own)
    out = model(tiny.batch(*items(pattern)))
    losses = tiny.sample_losses(out.logits, out.labels)
    for senses, loss in zip(pattern, losses, strict=True):
        model.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        for sense in SENSES:
            parts = dict(model.adapter(sense).named_parameters())
            if sense in model.fusion.blocks:
                parts["block"] = model.fusion.blocks[sense]
            heard = [n for n, p in parts.items() if p.grad is not None and bool(p.grad.any())]
            assert bool(heard) == (sense in senses), (sense, heard)
    assert all(p.grad is None for p in model.qformer.parameters())


@kinds
@several
@given(order=st.permutations(SENSES), pattern=patterns)
def test_the_order_of_listing_changes_no_bit(llm, kind, order, pattern):
    with torch.no_grad():
        one = model_of(llm, kind, "shared")(tiny.batch(*items(pattern)))
        other = model_of(llm, kind, "shared", tuple(order))(tiny.batch(*items(pattern)))
    assert torch.equal(one.logits, other.logits)

from __future__ import annotations

import pytest
import torch

import tiny
from open_crema.config import LoraConfig, QFormerConfig
from open_crema.model.qformer import LoraLayer, QFormer

SHAPE = tiny.config().qformer


@pytest.fixture
def qformer() -> QFormer:
    torch.manual_seed(0)
    made = QFormer(SHAPE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return made.eval()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 4 + [True]])
    return torch.randn(3, SHAPE.width), torch.randn(3, 5, SHAPE.encoder_width), mask


def lora(*, zero: bool = False, dropout: float = 0.0) -> list[LoraLayer]:
    torch.manual_seed(2)
    layers = [LoraLayer(SHAPE.width, LoraConfig(rank=2, dropout=dropout)) for _ in range(2)]
    if not zero:
        for layer in layers:
            for update in (layer.query, layer.value):
                torch.nn.init.normal_(update.b)
    return layers


def naive_attention(block, x, memory, query, value):
    """One row, head by head and query by query."""
    head = x.shape[1] // block.heads
    q, k, v = query(x), block.key(memory), value(memory)
    out = torch.zeros_like(q)
    for h in range(block.heads):
        cut = slice(h * head, (h + 1) * head)
        for i in range(len(q)):
            scores = torch.stack([q[i, cut] @ key[cut] for key in k]) / head**0.5
            out[i, cut] = sum(w * val[cut] for w, val in zip(scores.softmax(0), v, strict=True))
    return block.norm(block.out(out) + x)


def naive(qformer, queries, memory, updates):
    """The published computation for one row whose memory is all real."""
    x = qformer.norm(queries)
    for layer, update in zip(qformer.layers, updates, strict=True):
        own = layer.attention

        def changed(linear, low_rank):
            return lambda y: linear(y) + y @ low_rank.a.T @ low_rank.b.T

        x = naive_attention(
            own, x, x, changed(own.query, update.query), changed(own.value, update.value)
        )
        if layer.cross is not None:
            x = naive_attention(layer.cross, x, memory, layer.cross.query, layer.cross.value)
        hidden = layer.up(x)
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = layer.norm(layer.down(hidden) + x)
    return x


def test_against_a_naive_loop_row_by_row(qformer, inputs):
    queries, memory, mask = inputs
    updates = lora()
    out = qformer(queries, memory, mask, updates)
    for row in range(3):
        expected = naive(qformer, queries, memory[row, mask[row]], updates)
        assert torch.allclose(out[row], expected, atol=1e-5)


def test_masked_memory_is_never_read(qformer, inputs):
    queries, memory, mask = inputs
    other = torch.where(mask[:, :, None], memory, 1e4 * torch.randn_like(memory))
    assert torch.equal(qformer(queries, memory, mask), qformer(queries, other, mask))


def test_a_fresh_update_changes_nothing(qformer, inputs):
    assert torch.equal(qformer(*inputs), qformer(*inputs, lora(zero=True)))
    assert not torch.allclose(qformer(*inputs), qformer(*inputs, lora()))


def test_an_update_is_a_change_of_the_weights(qformer, inputs):
    updates = lora()
    changed = qformer(*inputs, updates)
    with torch.no_grad():
        for layer, update in zip(qformer.layers, updates, strict=True):
            layer.attention.query.weight += update.query.b @ update.query.a
            layer.attention.value.weight += update.value.b @ update.value.a
    assert torch.allclose(qformer(*inputs), changed, atol=1e-5)


def test_no_rows_give_no_rows(qformer, inputs):
    queries, memory, mask = inputs
    assert qformer(queries, memory[:0], mask[:0]).shape == (0, 3, SHAPE.width)


def test_cross_attention_stands_in_every_second_layer():
    made = QFormer(QFormerConfig(layers=5, width=8, heads=2, ffn=8, cross_every=2))
    assert [layer.cross is not None for layer in made.layers] == [True, False, True, False, True]


def test_gradients_stay_finite_where_almost_all_memory_is_masked(qformer, inputs):
    queries, memory, mask = inputs
    memory.requires_grad_()
    qformer(queries, memory, mask, lora()).sum().backward()
    assert torch.isfinite(memory.grad).all()
    assert not memory.grad[~mask].any()


def test_each_row_has_its_own_dropout_on_the_queries():
    torch.manual_seed(0)
    qformer = QFormer(tiny.config(dropout=0.5).qformer).train()
    seen = []
    qformer.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    qformer(torch.randn(3, 16), torch.randn(4, 5, 12), torch.ones(4, 5, dtype=torch.bool))
    assert not torch.equal(seen[0][0], seen[0][1])

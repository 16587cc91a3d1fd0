"""Several questions behind one prefix: what each of them gets on its own, in their order."""

from __future__ import annotations

import pytest
import torch

import tiny
from open_crema.backbones.base import IGNORED, Backbone, Output, Prompt
from open_crema.model.prompt import pack

WORDS = ("red", "two", "dogs", "a", "cat", "why", "not", "blue", "how", "many")
# Of each row: the lengths of its prefix, and of each question and answer about it (without ends).
RAGGED = [(7, [(3, 1), (6, 2)]), (2, [(1, 3)]), (5, [(4, 1), (2, 4), (9, 1)])]
MANY = [(4, [(1 + i % 7, 1 + i % 4) for i in range(11)]), (6, [(8, 1)] * 3 + [(2, 3)] * 5)]
ONE_EACH = [(3, [(2, 1)]), (5, [(4, 2)])]
GROUPS = {"ragged": RAGGED, "more than are read at once": MANY, "one each": ONE_EACH}

Ids = list[list[list[int]]]


@pytest.fixture(params=["decoder-only", "encoder-decoder"])
def backbone(request) -> Backbone:
    return tiny.backbone(request.param)


def prefix_of(backbone: Backbone, lengths: list[int]) -> Prompt:
    """Random embeddings, padded at the backbone's end."""
    noise = torch.Generator().manual_seed(5)
    embeds = torch.randn(len(lengths), max(lengths), backbone.width, generator=noise)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return pack(embeds, mask, backbone.side)


def asked(backbone: Backbone, groups: list) -> tuple[Prompt, Ids, Ids]:
    """Prefix, texts and targets; every text and answer is another one."""
    numbers = iter(range(10**6))

    def ids(count: int) -> list[int]:
        text = " ".join(f"{WORDS[next(numbers) % len(WORDS)]}{next(numbers)}" for _ in range(count))
        return backbone.encode(text)

    texts = [[[*ids(t), *backbone.after] for t, _ in own] for _, own in groups]
    targets = [[[*ids(a), backbone.tokenizer.eos_token_id] for _, a in own] for _, own in groups]
    return prefix_of(backbone, [length for length, _ in groups]), texts, targets


def alone(backbone: Backbone, prefix: Prompt, texts: Ids, targets: Ids) -> list[Output]:
    """Each question by a forward pass of its own, of nothing but its own tokens."""
    found = []
    for row, own in enumerate(texts):
        real = prefix.embeds[row][prefix.mask[row].bool()]
        for text, target in zip(own, targets[row], strict=True):
            embeds = torch.cat([real, backbone.embed(torch.tensor(text))])[None]
            mask = torch.ones(embeds.shape[:2], dtype=torch.long)
            found.append(backbone(Prompt(embeds, mask), [target]))
    return found


@pytest.mark.parametrize("kind", GROUPS)
def test_each_question_has_the_logits_that_it_has_on_its_own(backbone, kind):
    prefix, texts, targets = asked(backbone, GROUPS[kind])
    shared = backbone.forward_shared(prefix, texts, targets)
    plain = alone(backbone, prefix, texts, targets)
    answers = [target for own in targets for target in own]
    assert shared.logits.shape == (len(plain), max(map(len, answers)), tiny.VOCABULARY)
    for i, (own, answer) in enumerate(zip(plain, answers, strict=True)):
        count = len(answer)
        assert shared.labels[i].tolist() == answer + [IGNORED] * (shared.labels.shape[1] - count)
        torch.testing.assert_close(shared.logits[i, :count], own.logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", GROUPS)
def test_the_loss_is_the_mean_over_all_tokens_and_its_gradient_that_of_the_plain_one(
    backbone, kind
):
    prefix, texts, targets = asked(backbone, GROUPS[kind])
    gradients, losses = [], []
    for shared in (True, False):
        embeds = prefix.embeds.clone().requires_grad_()
        own = Prompt(embeds, prefix.mask)
        if shared:
            loss = backbone.forward_shared(own, texts, targets).loss
        else:
            sums = [
                out.loss * int((out.labels >= 0).sum())
                for out in alone(backbone, own, texts, targets)
            ]
            loss = torch.stack(sums).sum() / sum(len(t) for own in targets for t in own)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(embeds.grad)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_what_is_padded_has_no_say(backbone):
    prefix, texts, targets = asked(backbone, RAGGED)
    before = backbone.forward_shared(prefix, texts, targets).logits
    noisy = prefix.embeds + 9.0 * (1 - prefix.mask)[:, :, None]
    after = backbone.forward_shared(Prompt(noisy, prefix.mask), texts, targets).logits
    real = torch.tensor([len(t) for own in targets for t in own])
    real = torch.arange(before.shape[1]) < real[:, None]
    torch.testing.assert_close(after[real], before[real], rtol=1e-4, atol=1e-4)


def test_a_row_without_any_prefix_beside_one_that_has_it(backbone):
    """No sense, and an LLM without a chat template: then there is nothing before the question."""
    prefix, texts, targets = asked(backbone, RAGGED)
    mask = prefix.mask.clone()
    mask[1] = 0
    empty = Prompt(prefix.embeds, mask)
    shared = backbone.forward_shared(empty, texts, targets)
    plain = alone(backbone, empty, texts, targets)
    count = len(targets[1][0])
    torch.testing.assert_close(shared.logits[2, :count], plain[2].logits[0], rtol=1e-4, atol=1e-4)
    assert bool(shared.loss.isfinite())


def test_half_precision_loses_no_more_than_in_the_plain_pass():
    """Autocast rounds what matrices multiply, not the stream that they add to."""
    backbone = tiny.backbone()
    prefix, texts, targets = asked(backbone, MANY)
    exact = backbone.forward_shared(prefix, texts, targets)
    real = exact.labels >= 0
    errors = {}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = backbone.forward_shared(prefix, texts, targets)
        plain = alone(backbone, prefix, texts, targets)
    errors["shared"] = (rounded.logits - exact.logits)[real].square().mean()
    rows = torch.cat([out.logits[0] for out in plain])
    errors["plain"] = (rows - exact.logits[real]).square().mean()
    assert errors["shared"] < 1.5 * errors["plain"], errors

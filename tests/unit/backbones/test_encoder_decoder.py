"""T5 behind the protocol says exactly what plain transformers says of the same text."""

from __future__ import annotations

import pytest
import torch

import tiny
from open_crema.backbones.base import IGNORED, Prompt
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.model.prompt import assemble

QUESTIONS = ["what is it", "how many red dogs , and how many cats , are in the room ?", "why"]
ANSWERS = ["red", "two dogs and a cat", "because of it"]
OPTIONS = [["red", "two dogs", "yes"], ["no"], ["a b c d", "a b c e"]]


@pytest.fixture(scope="module")
def backbone() -> EncoderDecoder:
    return tiny.backbone("encoder-decoder")


def prompt_of(backbone, questions=QUESTIONS) -> Prompt:
    return assemble(backbone, [], questions, tiny.config())


def padded_more(prompt: Prompt, columns: int = 5) -> Prompt:
    torch.manual_seed(1)
    waste = torch.randn(len(prompt.mask), columns, prompt.embeds.shape[2])
    embeds = torch.cat([prompt.embeds, waste], dim=1)
    return Prompt(embeds, torch.cat([prompt.mask, torch.zeros_like(waste[:, :, 0]).long()], dim=1))


@torch.no_grad()
def plain_log_p(backbone, question: str, answer: list[int]) -> torch.Tensor:
    ids = torch.tensor([[*backbone.encode(question), backbone.tokenizer.eos_token_id]])
    start = backbone.llm.config.decoder_start_token_id
    log_p = (
        backbone.llm(input_ids=ids, decoder_input_ids=torch.tensor([[start, *answer[:-1]]]))
        .logits[0]
        .log_softmax(-1)
    )
    return log_p[torch.arange(len(answer)), torch.tensor(answer)]


@pytest.mark.parametrize("row", range(3))
def test_loss_without_senses_is_plain_transformers_loss(backbone, row):
    target = backbone.target(ANSWERS[row])
    ids = torch.tensor([[*backbone.encode(QUESTIONS[row]), backbone.tokenizer.eos_token_id]])
    plain = backbone.llm(input_ids=ids, labels=torch.tensor([target]))
    ours = backbone(prompt_of(backbone, [QUESTIONS[row]]), [target])
    assert torch.allclose(ours.loss, plain.loss, atol=1e-6)
    assert torch.allclose(ours.logits, plain.logits, atol=1e-5)


def test_batch_loss_is_the_token_mean_of_plain_losses(backbone):
    targets = [backbone.target(a) for a in ANSWERS]
    out = backbone(prompt_of(backbone), targets)
    each = [-plain_log_p(backbone, q, t) for q, t in zip(QUESTIONS, targets, strict=True)]
    assert torch.allclose(out.loss, torch.cat(each).mean(), atol=1e-5)
    own = tiny.sample_losses(out.logits, out.labels)
    assert torch.allclose(own, torch.stack([e.sum() for e in each]), atol=1e-4)
    assert out.labels[0].tolist() == targets[0] + [IGNORED] * (out.labels.shape[1] - 2)


def test_more_right_padding_changes_nothing(backbone):
    prompt, targets = prompt_of(backbone), [backbone.target(a) for a in ANSWERS]
    wider = padded_more(prompt)
    a, b = backbone(prompt, targets), backbone(wider, targets)
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    found = [backbone.generate(p, max_new_tokens=6).ids.tolist() for p in (prompt, wider)]
    assert found[0] == found[1]
    options = [[backbone.target(o) for o in own] for own in OPTIONS]
    a, b = backbone.score(prompt, options), backbone.score(wider, options)
    assert torch.allclose(a.log_likelihood, b.log_likelihood, atol=1e-5)


def test_generation_is_plain_generation_whatever_the_batch(backbone):
    found = backbone.generate(prompt_of(backbone), max_new_tokens=6)
    for row, question in enumerate(QUESTIONS):
        ids = torch.tensor([[*backbone.encode(question), backbone.tokenizer.eos_token_id]])
        plain = backbone.llm.generate(input_ids=ids, max_new_tokens=6, do_sample=False)[0].tolist()
        padding = [backbone.tokenizer.pad_token_id] * (found.ids.shape[1] - len(plain))
        assert found.ids[row].tolist() == plain + padding
    assert len({tuple(r) for r in found.ids.tolist()}) > 1, "the questions must differ in answer"


def test_option_scores_are_those_of_single_forward_passes(backbone):
    options = [[backbone.target(o) for o in own] for own in OPTIONS]
    found = backbone.score(prompt_of(backbone), options)
    for row, own in enumerate(options):
        for column, option in enumerate(own):
            expected = plain_log_p(backbone, QUESTIONS[row], option).sum()
            assert torch.allclose(found.log_likelihood[row, column], expected, atol=1e-4)
            assert found.tokens[row, column] == len(option)
        assert (found.log_likelihood[row, len(own) :] == -torch.inf).all()


def test_the_prompt_is_read_once_for_all_options(backbone):
    options = [[backbone.target(o) for o in own] for own in OPTIONS]
    rows = []
    hook = backbone.llm.get_encoder().register_forward_hook(
        lambda module, args, out: rows.append(len(out.last_hidden_state))
    )
    backbone.score(prompt_of(backbone), options)
    hook.remove()
    assert rows == [len(QUESTIONS)]


def test_padding_gets_no_gradient_and_gives_none(backbone):
    wider = padded_more(prompt_of(backbone))
    embeds = wider.embeds.clone().requires_grad_()
    backbone(Prompt(embeds, wider.mask), [backbone.target(a) for a in ANSWERS]).loss.backward()
    assert torch.isfinite(embeds.grad).all()
    assert not embeds.grad[wider.mask == 0].any()
    assert embeds.grad[wider.mask == 1].any()

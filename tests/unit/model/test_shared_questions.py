"""A batch of media with several questions each is the batch of all these questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

import tiny
from open_crema.data.sample import Batch, Sample, collate
from open_crema.errors import ConfigError, DataError
from open_crema.features import Features
from open_crema.model.crema import Crema
from open_crema.model.prompt import assemble, assemble_shared

QUESTIONS = ("why", "how many red dogs are there", "what is it", "is it a cat or not")
ANSWERS = ("red", "two dogs", "a cat and a dog")
PRESENCE: tuple[Mapping[str, int], ...] = (
    {"video": 3, "audio": 2},
    {"video": 1},
    {},
    {"audio": 2, "flow": 3},
)
COUNTS = (2, 4, 1, 3)  # questions of each
KINDS = pytest.mark.parametrize("kind", ["decoder-only", "encoder-decoder"])
FUSIONS = pytest.mark.parametrize("fusion", ["self-gated", "concat"])


def clips() -> list[tuple[list[Sample], Mapping[str, Features]]]:
    found, number = [], 0
    for row, (present, count) in enumerate(zip(PRESENCE, COUNTS, strict=True)):
        _, features = tiny.item(row, ragged=True, **present)
        own = []
        for _ in range(count):
            answer = ANSWERS[number % 3]
            own.append(Sample(f"{row}/{number}", QUESTIONS[number % 4], {}, (answer,)))
            number += 1
        found.append((own, features))
    return found


def together() -> Batch:
    batch = collate([(own[0], features) for own, features in clips()])
    return replace(batch, others=tuple(tuple(own[1:]) for own, _ in clips()))


def plain() -> Batch:
    """Every question with the media that it is about."""
    return collate([(sample, features) for own, features in clips() for sample in own])


def model_of(kind: str, fusion: str = "self-gated", **options) -> Crema:
    return tiny.crema("video", "audio", "flow", kind=kind, fusion={"kind": fusion}, **options)


@KINDS
@FUSIONS
def test_loss_logits_and_gradients_are_those_of_all_the_questions(kind, fusion):
    model = model_of(kind, fusion)
    assert [len(own) for own in together().asked()] == list(COUNTS)
    found, gradients = [], []
    for batch in (together(), plain()):
        out = model(batch)
        model.zero_grad()
        out.loss.backward()
        found.append(out)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    shared, each = found
    assert torch.equal(shared.labels, each.labels)
    torch.testing.assert_close(shared.loss, each.loss, rtol=1e-5, atol=1e-5)
    real = each.labels >= 0
    torch.testing.assert_close(shared.logits[real], each.logits[real], rtol=1e-3, atol=1e-4)
    assert gradients[0].keys() == gradients[1].keys()
    assert any(n.startswith("adapters.flow.") for n in gradients[0])
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(
            gradients[0][name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@KINDS
@pytest.mark.parametrize("chat", [True, False])
def test_prefix_and_text_are_what_the_plain_prompt_is_made_of(kind, chat):
    model = model_of(kind, llm=tiny.backbone(kind, chat=chat))
    asked = [[sample.question for sample in own] for own in together().asked()]
    with torch.no_grad():
        blocks = model.fusion(model.query_all(together()))
        prefix, texts = assemble_shared(model.backbone, blocks, asked, model.config)
        for turn in range(max(COUNTS)):
            questions = [own[turn % len(own)] for own in asked]
            whole = assemble(model.backbone, blocks, questions, model.config)
            for row, own in enumerate(texts):
                begin = prefix.embeds[row][prefix.mask[row].bool()]
                text = model.backbone.embed(torch.tensor(own[turn % len(own)]))
                assert torch.equal(
                    torch.cat([begin, text]), whole.embeds[row][whole.mask[row].bool()]
                )


@KINDS
def test_media_without_more_questions_are_a_batch_like_any_other(kind):
    model = model_of(kind)
    batch = collate([(own[0], features) for own, features in clips()])
    assert batch.asked() == [[sample] for sample in batch.samples]
    none = replace(batch, others=((),) * len(batch))
    torch.testing.assert_close(model(none).loss, model(batch).loss, rtol=1e-5, atol=1e-5)


def test_targets_are_those_of_each_of_the_media():
    model = model_of("decoder-only")
    numbers = iter(range(sum(COUNTS)))
    expected = [[model.backbone.target(ANSWERS[next(numbers) % 3]) for _ in range(n)]
                for n in COUNTS]  # fmt: skip
    assert model.targets(together()) == expected


def test_a_question_among_the_others_without_an_answer_is_named():
    batch = together()
    others = list(batch.others)
    others[1] = (*others[1][:1], replace(others[1][1], id="17", answers=()), *others[1][2:])
    with pytest.raises(DataError, match="sample '17' has no answer to train on"):
        model_of("decoder-only")(replace(batch, others=tuple(others)))


def test_the_layout_of_the_reference_has_one_question():
    model = model_of("encoder-decoder", prompt={"layout": "reference"})
    with pytest.raises(ConfigError, match=r"train.questions above 1 needs .*layout=packed"):
        model(together())


def test_a_question_among_the_others_that_is_too_long_is_an_error():
    model = model_of("decoder-only", prompt={"max_text_tokens": 14})
    batch = together()
    long = replace(batch.others[0][0], question="why " * 20)
    others = ((long,), *batch.others[1:])
    with pytest.raises(DataError, match=r"question of 20 tokens, \d+ fit"):
        model(replace(batch, others=others))

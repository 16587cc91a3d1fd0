"""Alignment of query tokens with the LLM's embedding rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

import tiny
from open_crema.config import AlignmentStageConfig
from open_crema.data.sample import Batch, Sample
from open_crema.errors import DataError
from open_crema.training.align import align, alignment_loss, build_optimizer, words_of_media

ENCODE = tiny.TinyTokenizer().encode


def ids(text: str) -> list[int]:
    return ENCODE(text, add_special_tokens=False)


def asked(id: str, question: str, answer: str, **media: str) -> Sample:
    return Sample(id, question, media, (answer,) if answer else ())


def clip(seed: int, answer: str, **segments: int) -> tiny.Item:
    _, features = tiny.item(seed, **segments)
    return asked(str(seed), "what is it", answer, video=f"{seed}.mp4"), features


def batch_of(*clips: tiny.Item) -> Batch:
    return tiny.batch(*clips)


CLIPS = [
    clip(0, "red", video=2, audio=1),
    clip(1, "two dogs", video=1),
    clip(2, "blue", video=3, audio=2),
    clip(3, "a cat", audio=2),
]
SAMPLES = [sample for sample, _ in CLIPS]


def test_a_clip_s_words_are_in_the_order_of_its_questions():
    samples = [
        asked("1", "b?", "two dogs", video="x"),
        asked("2", "a?", "red", video="x"),
        asked("3", "a?", "blue", video="y"),
        asked("4", "c?", "cat", audio="x"),
        asked("5", "a?", "fish", video="x", audio="x"),
    ]
    words = words_of_media(tiny.backbone(), samples)
    assert words == {
        frozenset({("video", "x")}): ids("red two dogs"),
        frozenset({("video", "y")}): ids("blue"),
        frozenset({("audio", "x")}): ids("cat"),
        frozenset({("video", "x"), ("audio", "x")}): ids("fish"),
    }
    assert words_of_media(tiny.backbone(), samples[::-1]) == words


@pytest.mark.parametrize("answer", ["", " "])
def test_a_sample_without_a_word_is_named(answer):
    with pytest.raises(DataError, match="'17' has no answer"):
        words_of_media(tiny.backbone(), [asked("17", "a?", answer, video="x")])


@pytest.mark.parametrize("kind", ["self-gated", "concat"])
@pytest.mark.parametrize("mse_weight", [0.0, 2.0])
def test_the_loss_is_the_plain_one(kind, mse_weight):
    """Every token that the LLM will read, one at a time, against words in use alone."""
    config = AlignmentStageConfig(random_rows=0, mse_weight=mse_weight, temperature=0.2)
    model = tiny.crema("video", "audio", fusion={"kind": kind})
    words = words_of_media(model.backbone, SAMPLES)
    rows = model.backbone.llm.get_input_embeddings().weight.detach()
    used = sorted({i for own in words.values() for i in own})
    scale = sum(float(rows[i].square().sum()) for i in used) / len(used)
    batch = batch_of(*CLIPS)
    total, count = 0.0, 0
    with torch.no_grad():
        for block in model.fusion(model.query_all(batch)):
            for b, sample in enumerate(batch.samples):
                own = words[frozenset(sample.media.items())]
                for n in range(block.tokens.shape[1]):
                    if not block.mask[b, n]:
                        continue
                    token, right = block.tokens[b, n], own[n % 3 % len(own)]
                    near = [functional.cosine_similarity(token, rows[i], dim=0) for i in used]
                    logs = torch.stack(near).div(0.2).log_softmax(0)
                    squared = (token - rows[right]).square().sum() / scale
                    total += float(mse_weight * squared - logs[used.index(right)])
                    count += 1
        found = alignment_loss(model, batch, words, config).loss
    assert count > 20
    assert float(found) == pytest.approx(total / count, rel=1e-4)


def test_other_rows_compete_with_the_words():
    model = tiny.crema("video", "audio")
    words = words_of_media(model.backbone, SAMPLES)
    batch = batch_of(*CLIPS)

    def loss(random_rows: int) -> float:
        config = AlignmentStageConfig(random_rows=random_rows, mse_weight=0.0)
        return alignment_loss(model, batch, words, config).loss.item()

    assert loss(100) > loss(0) + 0.1


def test_a_clip_s_loss_is_the_same_alone_and_in_a_batch():
    model = tiny.crema("video", "audio")
    words = words_of_media(model.backbone, SAMPLES)
    config = AlignmentStageConfig(random_rows=0)
    tokens = [3 * (2 + 2), 3, 3 * (3 + 3), 3 * 2]  # video and, where there is audio, fused ones
    alone = [alignment_loss(model, batch_of(c), words, config).loss.item() for c in CLIPS]
    together = alignment_loss(model, batch_of(*CLIPS), words, config).loss.item()
    mean = sum(a * n for a, n in zip(alone, tokens, strict=True)) / sum(tokens)
    assert together == pytest.approx(mean, rel=1e-4)


def run(model, clips=CLIPS, *, epochs=30, seed=0, **stage) -> list[tuple[int, int, float]]:
    config = AlignmentStageConfig(epochs=epochs, random_rows=20, **{"lr": 0.01, **stage})
    steps = align(
        model,
        [sample for sample, _ in clips],
        lambda epoch, skip: [batch_of(*clips[:2]), batch_of(*clips[2:])][skip:],
        config,
        build_optimizer(model, config),
        seed=seed,
        steps_per_epoch=2,
    )
    return list(steps)


def test_it_lowers_its_loss():
    log = run(tiny.crema("video", "audio", stirred=False))
    assert [line[:2] for line in log] == [(i // 2, i) for i in range(60)]
    losses = [loss for _, _, loss in log]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-4:]) < 0.3 * sum(losses[:4])


@pytest.mark.parametrize("trainable", [False, True])
def test_it_moves_what_is_trainable_and_leaves_no_gradient(trainable):
    model = tiny.crema("video", "audio", "flow")
    model.qformer.requires_grad_(trainable)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    run(model, epochs=2)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    parts = {n.partition(".")[0] for n in moved}
    assert parts == ({"adapters", "fusion", "qformer"} if trainable else {"adapters", "fusion"})
    assert not any(".flow." in n for n in moved)  # no clip has it
    assert all(p.grad is None for p in model.parameters())


def test_it_is_a_function_of_its_seed():
    def weights(seed: int) -> torch.Tensor:
        model = tiny.crema("video", "audio", dropout=0.2)
        torch.manual_seed(torch.seed())  # whatever was drawn before
        run(model, epochs=1, seed=seed)
        return torch.cat([p.detach().flatten() for p in model.adapters.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_batches_without_a_sense_of_the_model_are_left_out():
    none, foreign = clip(4, "fish"), clip(5, "bird", flow=2)
    model = tiny.crema("video", "audio")
    config = AlignmentStageConfig(epochs=2, random_rows=5)
    steps = align(
        model,
        [*SAMPLES, none[0], foreign[0]],
        lambda epoch, skip: [batch_of(none), batch_of(*CLIPS, none, foreign), batch_of(foreign)],
        config,
        build_optimizer(model, config),
        seed=0,
        steps_per_epoch=3,
    )
    assert [(epoch, step) for epoch, step, _ in steps] == [(0, 1), (1, 4)]


def test_no_epochs_do_nothing():
    model = tiny.crema("video", "audio")
    assert run(model, epochs=0) == []

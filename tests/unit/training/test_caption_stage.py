"""Alignment with captions: each sense's own query tokens learn the words of what it shows."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from test_align import CLIPS, ids, run
from torch.nn import functional

import tiny
from open_crema.config import AlignmentStageConfig, from_dict
from open_crema.data.sample import Batch, Sample
from open_crema.errors import ConfigError
from open_crema.training.align import (
    align,
    build_optimizer,
    caption_loss,
    captions_of,
    trained_tokens,
)
from open_crema.training.loop import Trainer
from open_crema.training.words import SOFT
from tiny import Questions

QUERIES = 3  # of the tiny models
# One part, or one a segment, or fewer or more parts than segments; shorter and longer than QUERIES.
SAID = {
    0: {"video": (("red", "dog", "left"), ("blue", "cat", "right")), "audio": (("bell",),)},
    1: {"video": (("green", "cow", "up", "fast", "far"),)},
    2: {"video": (("red", "pig"), ("blue", "ant")), "audio": (("drum", "low", "two"),)},
    3: {"audio": (("flute", "high"), ("harp", "low"), ("bell", "low"))},
}
PLAIN = AlignmentStageConfig(random_rows=0, mse_weight=0.7, temperature=0.2)


def captioned(said=SAID) -> list[tiny.Item]:
    return [
        (replace(sample, captions=said.get(i, {})), features)
        for i, (sample, features) in enumerate(CLIPS)
    ]


def told(said=SAID) -> tuple[Batch, list[Sample]]:
    clips = captioned(said)
    return tiny.batch(*clips), [sample for sample, _ in clips]


def word(text: str) -> int:
    return ids(text)[0]


def test_captions_are_the_first_tokens_of_their_words():
    batch, samples = told()
    captions = captions_of(tiny.backbone(), samples)
    assert captions.ids.keys() == {frozenset(s.media.items()) for s in batch.samples}
    for i, sample in enumerate(samples):
        own = captions.ids[frozenset(sample.media.items())]
        assert {s: x.tolist() for s, x in own.items()} == {
            s: [[word(w) for w in part] for part in parts] for s, parts in SAID[i].items()
        }
    every = {word(w) for own in SAID.values() for parts in own.values() for p in parts for w in p}
    assert captions.used.tolist() == sorted(every)


def test_a_word_of_several_tokens_is_told_by_its_first():
    sample = Sample("1", "?", {"video": "x"}, captions={"video": (("left-hand", "a"),)})
    captions = captions_of(tiny.backbone(), [sample])
    assert captions.ids[frozenset({("video", "x")})]["video"].tolist() == [ids("left a")]


def test_words_that_begin_alike_are_one_row_that_does_not_compete_with_itself():
    sample = Sample("1", "?", {"video": "x"}, captions={"video": (("left-hand", "left"),)})
    captions = captions_of(tiny.backbone(), [sample])
    assert captions.used.tolist() == ids("left")


def loss_of(model, batch, captions, config):
    return caption_loss(model, trained_tokens(model, batch), batch, captions, config).loss


def test_a_word_in_parentheses_is_said_softly():
    said = {0: {"video": (("red", "(dog)", "(red)"),)}}
    model = tiny.crema("video", "audio")
    batch, samples = told(said)
    captions = captions_of(model.backbone, samples)
    media = frozenset(samples[0].media.items())
    assert captions.ids[media]["video"].tolist() == [[word("red"), word("dog"), word("red")]]
    torch.testing.assert_close(captions.shares[media]["video"], torch.tensor([[1, SOFT, SOFT]]))
    assert captions.used.tolist() == sorted({word("red"), word("dog")})

    squared = replace(PLAIN, mse_weight=1e6)  # next to which the cross-entropy is nothing
    rows = model.backbone.llm.get_input_embeddings().weight.detach()
    scale = rows[captions.used].square().sum(dim=1).mean()
    with torch.no_grad():
        query = model.query("video", batch.senses["video"])
        tokens = query.tokens[0, query.segments[0]]
        meant = rows[captions.ids[media]["video"][0]] * torch.tensor([1, SOFT, SOFT])[:, None]
        expected = (tokens - meant).square().sum(dim=2).mean() / scale
        found = loss_of(model, batch, captions, squared) / 1e6
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_committed_tokens_are_drawn_to_the_word_that_they_are_nearest_to():
    model = tiny.crema("video", "audio")
    said = {0: {"video": (("red", "(dog)", "left"),)}, 1: {"video": (("(cat)", "blue", "(dog)"),)}}
    batch, samples = told(said)
    captions = captions_of(model.backbone, samples)
    soft = {word("dog"), word("cat")}
    usual = [SOFT if i in soft else 1.0 for i in captions.used.tolist()]
    torch.testing.assert_close(captions.usual, torch.tensor(usual))
    rows = model.backbone.llm.get_input_embeddings().weight.detach()
    errors, others = [], 0
    with torch.no_grad():
        query = model.query("video", batch.senses["video"])
        for row, own in enumerate((said[0]["video"][0], said[1]["video"][0])):
            for tokens in query.tokens[row, query.segments[row]]:
                for token, wanted in zip(tokens, own, strict=True):
                    alike = functional.cosine_similarity(token[None], rows[captions.used])
                    nearest = int(alike.argmax())
                    meant = rows[captions.used[nearest]] * usual[nearest]
                    errors.append(float((token - meant).square().sum()))
                    others += int(captions.used[nearest]) != word(wanted.strip("()"))
        squared = replace(PLAIN, mse_weight=1e6, commit=True)
        found = loss_of(model, batch, captions, squared) / 1e6
    assert 0 < others < len(errors)  # some say what they should not
    scale = rows[captions.used].square().sum(dim=1).mean()
    expected = torch.tensor(errors).mean() / scale
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_one_of_several_questions_may_have_the_captions():
    media = {"video": "x", "audio": "y"}
    first = Sample("1", "?", media, captions={"video": (("red",),)})
    second = Sample("2", "??", dict(reversed(media.items())))
    for samples in ([first, second], [second, first]):
        captions = captions_of(tiny.backbone(), samples)
        assert captions.ids[frozenset(media.items())]["video"].tolist() == [[word("red")]]
    assert captions_of(tiny.backbone(), [second]) is None


@pytest.mark.parametrize("kind", ["self-gated", "concat"])
def test_the_loss_is_the_plain_one(kind):
    """Every query token that has a word, one at a time, before any fusion."""
    model = tiny.crema("video", "audio", fusion={"kind": kind})
    batch, samples = told()
    captions = captions_of(model.backbone, samples)
    rows = model.backbone.llm.get_input_embeddings().weight.detach()
    used = captions.used.tolist()
    scale = sum(float(rows[i].square().sum()) for i in used) / len(used)
    total, count = 0.0, 0
    with torch.no_grad():
        for sense in ("video", "audio"):
            query = model.query(sense, batch.senses[sense])
            for b in range(len(CLIPS)):
                parts, real = SAID[b].get(sense, ()), int(query.segments[b].sum())
                for s in range(real if parts else 0):
                    # The part in which the middle of the segment lies.
                    own = parts[math.floor((s + 0.5) / real * len(parts))]
                    for q, text in enumerate(own[:QUERIES]):
                        token, right = query.tokens[b, s, q], word(text)
                        near = [functional.cosine_similarity(token, rows[i], dim=0) for i in used]
                        logs = torch.stack(near).div(0.2).log_softmax(0)
                        squared = (token - rows[right]).square().sum() / scale
                        total += float(0.7 * squared - logs[used.index(right)])
                        count += 1
        found = loss_of(model, batch, captions, PLAIN)
        # Segments times words: video 2 * 3, 1 * 3, 3 * 2; audio 1 * 1, 2 * 3, 2 * 2.
        told_of = caption_loss(model, trained_tokens(model, batch), batch, captions, PLAIN).tokens
    assert count == told_of == 6 + 3 + 6 + 1 + 6 + 4
    assert float(found) == pytest.approx(total / count, rel=1e-4)


def test_queries_beyond_the_caption_and_clips_without_one_have_no_target():
    model = tiny.crema("video", "audio")
    batch, samples = told({0: {"video": (("red",),)}})
    captions = captions_of(model.backbone, samples)
    before = loss_of(model, batch, captions, PLAIN)
    with torch.no_grad():
        for name in ("video", "audio"):
            batch.senses[name].tokens[1:] += 1.0
    torch.testing.assert_close(loss_of(model, batch, captions, PLAIN), before)
    before.backward()
    assert model.adapter("video").queries.grad.abs().sum() > 0
    grad = model.adapter("audio").queries.grad
    assert grad is None or not grad.any()


def test_a_batch_in_which_nothing_has_a_caption_gives_no_loss():
    model = tiny.crema("video", "audio")
    _, samples = told({0: {"video": (("red",),)}})
    captions = captions_of(model.backbone, samples)
    loss = loss_of(model, tiny.batch(CLIPS[1], CLIPS[3]), captions, PLAIN)
    assert loss.item() == 0.0
    assert not loss.requires_grad


def test_a_sense_that_is_withheld_is_not_told_of():
    """The caption is there, its segments are not."""
    model = tiny.crema("video", "audio")
    batch, samples = told()
    captions = captions_of(model.backbone, samples)
    kept = [{"video"}, {"video"}, {"audio"}, {"audio"}]
    less = batch.where(kept)
    loss = loss_of(model, less, captions, PLAIN)
    alone = [
        loss_of(model, tiny.batch(clip).only(own), captions, PLAIN)
        for clip, own in zip(captioned(), kept, strict=True)
    ]
    counts = [6, 3, 6, 4]
    mean = sum(x.item() * n for x, n in zip(alone, counts, strict=True)) / sum(counts)
    assert loss.item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("qformer", [False, True])
def test_senses_of_which_nothing_is_trained_are_left_out(qformer):
    model = tiny.crema("video", "audio")
    model.adapter("video").requires_grad_(False)
    model.qformer.requires_grad_(qformer)
    batch, samples = told()
    captions = captions_of(model.backbone, samples)
    loss = loss_of(model, batch, captions, PLAIN)
    left = loss_of(model, batch.only(["audio"]), captions, PLAIN)
    assert torch.allclose(loss, left) != qformer
    nothing = loss_of(model, batch.only(["video"]), captions, PLAIN)
    assert nothing.requires_grad == qformer


def test_with_captions_answers_are_not_needed_and_fusion_stays():
    model = tiny.crema("video", "audio", stirred=False)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    clips = [(replace(s, answers=()), f) for s, f in captioned()]
    log = run(model, clips, epochs=2)
    assert len(log) == 4
    moved = {n.partition(".")[0] for n, p in model.named_parameters()
             if not torch.equal(p, before[n])}  # fmt: skip
    assert moved == {"adapters"}


def test_the_tokens_become_the_words():
    model = tiny.crema("video", "audio", stirred=False)
    model.qformer.requires_grad_(True)
    log = run(model, captioned(), epochs=12, temperature=0.2)
    assert sum(loss for *_, loss in log[-2:]) < 0.5 * sum(loss for *_, loss in log[:2])


def rates(schedule: str, start: int = 0, warmup: int = 0) -> list[float]:
    """The learning rate of each step of 2 epochs of 2 steps."""
    model = tiny.crema("video", "audio")
    config = AlignmentStageConfig(
        epochs=2, lr=0.08, schedule=schedule, warmup_steps=warmup, random_rows=5
    )
    optimizer, clips = build_optimizer(model, config), captioned()
    steps = align(
        model,
        [sample for sample, _ in clips],
        lambda epoch, skip: [tiny.batch(*clips[:2]), tiny.batch(*clips[2:])][skip:],
        config,
        optimizer,
        seed=0,
        steps_per_epoch=2,
        start=start,
    )
    return [optimizer.param_groups[0]["lr"] for _ in steps]


def test_the_rate_of_a_cosine_falls_to_nothing_at_its_end():
    half = 0.08 / 2
    expected = [half * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75)]
    assert rates("cosine") == pytest.approx(expected)
    assert rates("cosine", start=1) == pytest.approx(expected[1:])
    assert rates("constant") == [0.08] * 4


def test_the_rate_rises_in_the_warm_up():
    assert rates("constant", warmup=3) == pytest.approx([0.08 / 3, 0.16 / 3, 0.08, 0.08])
    risen = [x * y / 0.08 for x, y in zip(rates("cosine"), (0.04, 0.08, 0.08, 0.08), strict=True)]
    assert rates("cosine", warmup=2) == pytest.approx(risen)
    assert rates("cosine", start=1, warmup=2) == pytest.approx(risen[1:])


def test_a_sense_without_captions_stays_as_it_is():
    model = tiny.crema("video", "audio")
    only = {i: {"audio": parts["audio"]} for i, parts in SAID.items() if "audio" in parts}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    run(model, captioned(only), epochs=2)
    for name, parameter in model.named_parameters():
        if name.startswith("adapters.video"):
            assert torch.equal(parameter, before[name]), name
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert any(name.startswith("adapters.audio") for name in moved)


@pytest.mark.parametrize("strategy", ["joint", "sequential"])
def test_words_are_kept_in_training_through_the_llm(tmp_path, strategy):
    """After the same steps the tokens are nearer to their words than without."""
    losses = []
    for keep in (0.0, 3.0):
        model = tiny.crema("video", "audio", stirred=False)
        data = Questions(captioned())
        alignment = {"keep": keep, "random_rows": 0, "mse_weight": 0.7}
        train = {"strategy": strategy, "epochs": 15, "lr": 0.01, "warmup_steps": 0}
        config = from_dict({"train": {**train, "batch_size": 4, "alignment": alignment}})
        config = replace(config, model=model.config)
        Trainer(model, config, data, tmp_path / f"{keep}").run()
        captions = captions_of(model.backbone, data.samples)
        batch = tiny.batch(*data.items)
        with torch.no_grad():
            losses.append(loss_of(model.eval(), batch, captions, PLAIN).item())
    assert losses[1] < losses[0] - 1


def test_words_cannot_be_kept_where_nothing_is_told(tmp_path):
    model = tiny.crema("video", "audio", stirred=False)
    config = from_dict({"train": {"alignment": {"keep": 0.3}}})
    config = replace(config, model=model.config)
    with pytest.raises(ConfigError, match=r"alignment\.keep"):
        Trainer(model, config, Questions(list(CLIPS)), tmp_path)


def test_alignment_has_the_runs_precision(tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        model = tiny.crema("video", "audio", stirred=False)
        alignment = {"epochs": 3, "random_rows": 0, "mse_weight": 0.7}
        train = {"epochs": 0, "precision": precision, "alignment": alignment}
        config = replace(from_dict({"train": train}), model=model.config)
        Trainer(model, config, Questions(captioned()), tmp_path / precision).run()
        lines = map(json.loads, (tmp_path / precision / "log.jsonl").read_text().splitlines())
        losses[precision] = torch.tensor([x["loss"] for x in lines if x["kind"] == "align"])
    assert not torch.equal(losses["fp32"], losses["bf16"])
    torch.testing.assert_close(losses["bf16"], losses["fp32"], rtol=0.02, atol=0)

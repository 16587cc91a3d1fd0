"""The whole model against a naive construction, sample by sample, segment by segment."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from open_crema.data.sample import Batch, SenseBatch
from open_crema.errors import ConfigError, CremaError, DataError
from open_crema.features import Features
from open_crema.modality import canonical
from open_crema.model.crema import Crema
from open_crema.model.fusion import FUSED_LABEL

SENSES = ("video", "audio", "flow", "point")
LABELS = {"video": "Frame {}: ", "audio": "Audio {}: ", "flow": "Optical Flow {}: "}
KINDS = ("decoder-only", "encoder-decoder")
FUSIONS = {
    "append": {"kind": "self-gated", "placement": "append"},
    "add": {"kind": "self-gated", "placement": "add"},
    "concat": {"kind": "concat"},
}


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], Crema]:
    return {
        (kind, name): tiny.crema(*SENSES, kind=kind, fusion=fusion)
        for kind in KINDS
        for name, fusion in FUSIONS.items()
    }


def naive_alignment(main, own, how: str) -> torch.Tensor:
    """``[T, Q, D]`` of ``own`` = (times, tokens) on the times of ``main``."""
    times, tokens = own
    aligned = []
    for t, (begin, end) in enumerate(main):
        if how == "repeat" or len(times) == 1:
            aligned.append(tokens.mean(0))
        elif how == "frames" and len(times) == len(main):
            aligned.append(tokens[t])
        else:
            shared = torch.stack(
                [(min(end, e) - max(begin, b)).clamp(min=0) for b, e in times]
            ).float()
            aligned.append((shared[:, None, None] * tokens).sum(0) / shared.sum())
    return torch.stack(aligned)


def naive_prompt(model: Crema, item: tiny.Item) -> torch.Tensor:
    """``[L, D]``: the LLM's input for one sample."""
    sample, features = item
    backbone, fusion = model.backbone, model.fusion

    def text(words: str) -> torch.Tensor:
        return backbone.embed(torch.tensor(backbone.encode(words), dtype=torch.long))

    present = [s for s in canonical(features) if s in model.senses]
    tokens = {}
    for sense in present:
        f, adapter = features[sense], model.adapters[sense]
        tokens[sense] = torch.cat(
            [
                adapter(model.qformer, row[mask][None], torch.ones(1, int(mask.sum())) > 0)
                for row, mask in zip(f.tokens, f.mask, strict=True)
            ]
        )
    pieces = [backbone.embed(torch.tensor(backbone.before, dtype=torch.long))]

    def segments(sense: str, values: torch.Tensor) -> None:
        for s, value in enumerate(values):
            pieces.append(text(LABELS.get(sense, "3D Model: ").format(s + 1)))
            pieces.append(value)

    if not fusion.merges:
        for sense in present:
            segments(sense, tokens[sense])
    elif present:
        first, *others = present
        main = features[first].times
        how = {"audio": "overlap", "flow": "frames", "point": "repeat"}
        x = fusion.bias
        for sense in others:
            own = (features[sense].times, tokens[sense])
            x = x + naive_alignment(main, own, how[sense]) @ fusion.blocks[sense].T
        y = x * torch.sigmoid(x)
        if others and fusion.config.placement == "add":
            segments(first, tokens[first] + y)
        else:
            segments(first, tokens[first])
            if others:
                pieces += [text(FUSED_LABEL), y.flatten(0, 1)]
    return torch.cat([*pieces, text(sample.question), backbone.embed(torch.tensor(backbone.after))])


presences = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "video": st.sampled_from([1, 2, 3, 7]),
            "audio": st.integers(1, 4),
            "flow": st.sampled_from([1, 2, 3]),
            "point": st.just(1),
        },
    ),
    min_size=1,
    max_size=4,
)
QUESTIONS = ("why", "what is it", "how many red dogs , and how many cats , are in the room ?")


def items_of(presence, options=()) -> list[tiny.Item]:
    return [
        tiny.item(
            i, question=QUESTIONS[i % 3], answer="red two"[: 3 + 4 * (i % 2)], options=options,
            keys=3 + i, ragged=True, **own,
        )
        for i, own in enumerate(presence)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUSIONS)
@settings(max_examples=8)
@given(presence=presences)
def test_llm_input_of_any_batch_is_each_samples_own(models, kind, name, presence):
    model, items = models[kind, name], items_of(presence)
    batch = tiny.batch(*items)
    with torch.no_grad():
        found = model.prompt(model.query_all(batch), batch)
        for row, item in enumerate(items):
            expected = naive_prompt(model, item)
            kept = found.mask[row].bool()
            assert torch.allclose(found.embeds[row, kept], expected, atol=1e-5)
            real = kept.flip(0) if model.backbone.side == "left" else kept
            assert real[: len(expected)].all(), "no padding between tokens"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUSIONS)
@settings(max_examples=5)
@given(presence=presences)
def test_a_sample_alone_is_its_row_in_any_batch(models, kind, name, presence):
    model, items = models[kind, name], items_of(presence, options=("red", "two dogs", "no"))
    batch = tiny.batch(*items)
    with torch.no_grad():
        out, scores = model(batch), model.score(batch)
        losses = tiny.sample_losses(out.logits, out.labels)
        counts = (out.labels >= 0).sum(1)
        for row, item in enumerate(items):
            alone = tiny.batch(item)
            own = model(alone)
            # logits are of the order of 10
            length = own.logits.shape[1]
            assert torch.allclose(out.logits[row, :length], own.logits[0], atol=2e-5)
            assert torch.allclose(losses[row] / counts[row], own.loss, atol=1e-5)
            log_likelihood = model.score(alone).log_likelihood[0]
            assert torch.allclose(scores.log_likelihood[row], log_likelihood, atol=5e-5)
    total = losses.sum() / counts.sum()
    assert torch.allclose(out.loss, total, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_generated_text_does_not_depend_on_the_batch(models, kind):
    model = models[kind, "append"]
    items = items_of([{"video": 3, "audio": 2}, {}, {"audio": 2, "flow": 2}, {"video": 1}])
    together = model.generate(tiny.batch(*items), max_new_tokens=5).texts
    alone = [model.generate(tiny.batch(i), max_new_tokens=5).texts[0] for i in items]
    assert together == alone
    assert len(set(together)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_question_only_is_the_plain_llm(models, kind):
    model = models[kind, "append"]
    item, other = items_of([{}, {"video": 2, "audio": 2}])
    prompt = model.prompt({}, tiny.batch(item))
    target = model.backbone.target(item[0].answers[0])
    expected = model.backbone(prompt, [target]).loss
    for batch in (tiny.batch(item), tiny.batch(item, other)):
        out = model(batch)
        own = tiny.sample_losses(out.logits, out.labels)[0] / len(target)
        assert torch.allclose(own, expected, atol=1e-5)
    full = tiny.batch(items_of([{"video": 2, "audio": 2}])[0])
    assert torch.equal(model(full.only([])).loss, expected)


def widened(x: SenseBatch, segments: int, keys: int) -> SenseBatch:
    """More padded segments and keys, which hold anything at all."""
    b, s, k, w = x.tokens.shape
    torch.manual_seed(0)
    tokens = 1e3 * torch.randn(b, s + segments, k + keys, w)
    mask = torch.zeros(tokens.shape[:3], dtype=torch.bool)
    times = 1e3 * torch.rand(b, s + segments, 2, dtype=torch.float64)
    tokens[:, :s, :k] = torch.where(x.mask[..., None], x.tokens, tokens[:, :s, :k])
    mask[:, :s, :k] = x.mask
    times[:, :s] = torch.where(x.segments[..., None], x.times, times[:, :s])
    return SenseBatch(tokens, mask, times)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUSIONS)
def test_padding_of_any_content_changes_no_result(models, kind, name):
    model = models[kind, name]
    batch = tiny.batch(
        *items_of([{"video": 3, "audio": 2}, {"video": 2, "flow": 3, "point": 1}, {}, {"audio": 1}])
    )
    for segments, keys in [(0, 2), (3, 0), (2, 3)]:
        wider = Batch(
            batch.samples, {s: widened(x, segments, keys) for s, x in batch.senses.items()}
        )
        assert torch.allclose(model(wider).logits, model(batch).logits, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_the_content_of_an_absent_sense_is_never_read(models, name):
    model = models["decoder-only", name]
    batch = tiny.batch(*items_of([{"video": 3, "audio": 2}, {"video": 2}, {"audio": 1}]))
    junk = {
        s: SenseBatch(
            torch.where(x.mask[..., None], x.tokens, torch.full_like(x.tokens, 1e4)),
            x.mask,
            x.times,
        )
        for s, x in batch.senses.items()
    }
    assert torch.equal(model(Batch(batch.samples, junk)).logits, model(batch).logits)


def test_a_sense_absent_throughout_the_batch_is_as_if_not_named(models):
    model = models["decoder-only", "append"]
    batch = tiny.batch(*items_of([{"video": 2}, {"video": 3}]))
    absent = SenseBatch(
        torch.zeros(2, 1, 1, 12),
        torch.zeros(2, 1, 1, dtype=torch.bool),
        torch.zeros(2, 1, 2, dtype=torch.float64),
    )
    named = Batch(batch.samples, {**batch.senses, "flow": absent})
    assert torch.equal(model(named).logits, model(batch).logits)


def test_senses_that_the_model_has_not_are_left_out():
    model = tiny.crema("video")
    item = items_of([{"video": 2, "audio": 3}])[0]
    batch = tiny.batch(item)
    assert torch.equal(model(batch).logits, model(batch.only(["video"])).logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUSIONS)
def test_gradients_are_finite_in_the_most_ragged_batch(models, kind, name):
    model = models[kind, name].train()
    model.zero_grad()
    presence = [{"video": 7, "audio": 4, "flow": 2}, {}, {"audio": 1, "point": 1}, {"point": 1}]
    model(tiny.batch(*items_of(presence))).loss.backward()
    for parameter, value in model.named_parameters():
        if parameter.startswith(("adapters", "fusion")):
            assert value.grad is not None, parameter
            assert torch.isfinite(value.grad).all(), parameter
        else:
            assert value.grad is None, parameter
    model.zero_grad()
    model.eval()


def test_gradients_are_finite_with_plain_attention_and_left_padding():
    llm = tiny.llama(attention="eager")
    backbone = type(tiny.backbone())(llm, tiny.TinyTokenizer())
    model = tiny.crema("video", "audio", llm=backbone).train()
    model(tiny.batch(*items_of([{"video": 7, "audio": 4}, {}, {"audio": 1}]))).loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(g).all() for g in grads)


def test_more_than_one_sense_reaches_the_answer(models):
    for model in models.values():
        item = items_of([{"video": 2, "audio": 2, "flow": 2, "point": 1}])[0]
        whole = model(tiny.batch(item)).logits
        for sense in SENSES:
            rest = [s for s in SENSES if s != sense]
            assert not torch.allclose(model(tiny.batch(item).only(rest)).logits, whole, atol=1e-4)


def test_gate_strengths_are_shares(models):
    model = models["decoder-only", "append"]
    batch = tiny.batch(*items_of([{"video": 2, "audio": 2, "flow": 2}, {"video": 2, "flow": 1}]))
    shares = model.fusion.shares(model.query_all(batch))
    assert set(shares) == {"audio", "flow"}
    assert torch.allclose(shares["audio"] + shares["flow"], torch.ones(2))
    assert shares["audio"][1] == 0
    concatenating = models["decoder-only", "concat"]
    assert concatenating.fusion.shares(concatenating.query_all(batch)) == {}


def test_the_leading_sense_has_no_share_of_the_fused_tokens(models):
    model = models["decoder-only", "append"]
    batch = tiny.batch(*items_of([{"audio": 2, "flow": 2}]))
    shares = model.fusion.shares(model.query_all(batch))
    assert shares["flow"].item() == pytest.approx(1.0)


def test_a_share_does_not_depend_on_how_many_windows_say_the_same(models):
    model = models["decoder-only", "append"]
    tokens = model.query_all(tiny.batch(*items_of([{"video": 2, "audio": 1, "flow": 2}])))
    audio = tokens["audio"]
    spans = torch.tensor([[[0, 2], [2, 4], [4, 6], [6, 8]]], dtype=torch.float64)
    often = type(audio)(audio.tokens.expand(-1, 4, -1, -1), torch.ones(1, 4) > 0, spans)
    one, four = model.fusion.shares(tokens), model.fusion.shares({**tokens, "audio": often})
    assert torch.allclose(one["audio"], four["audio"])


def test_training_mode_leaves_the_llm_alone_unless_its_dropout_is_set():
    model = tiny.crema("video")
    model.train()
    assert model.adapters["video"].training
    assert not model.backbone.llm.training
    model = tiny.crema("video", llm_dropout=0.1)
    model.train()
    assert model.backbone.llm.training
    model.eval()
    assert not any(m.training for m in model.modules())


def test_only_adapters_and_fusion_are_trainable():
    model = tiny.crema("video", "audio", "flow")
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    expected = {n for n, _ in model.named_parameters() if n.startswith(("adapters.", "fusion."))}
    assert trainable == expected
    unit = {id(p) for p in model.unit("audio")}
    own = {n for n, p in model.named_parameters() if id(p) in unit}
    assert own == {n for n in expected if n.startswith(("adapters.audio.", "fusion."))}


def test_missing_answers_and_options_name_the_sample():
    model = tiny.crema("video")
    batch = tiny.batch(tiny.item(1, video=1), tiny.item(7, answer="", video=1))
    with pytest.raises(DataError, match="'7' has no answer"):
        model(batch)
    with pytest.raises(DataError, match="'1' has no options"):
        model.score(batch)
    assert len(model.generate(batch, max_new_tokens=2).texts) == 2


def test_generate_and_score_build_no_graph():
    model = tiny.crema("video", "audio")
    batch = tiny.batch(tiny.item(1, video=1, audio=1, options=("red", "no")))
    assert not model.score(batch).log_likelihood.requires_grad
    assert not model.generate(batch, max_new_tokens=2, scores=True).scores.requires_grad


def test_heads_that_do_not_divide_the_width_are_a_configuration_error():
    with pytest.raises(ConfigError, match="heads"):
        tiny.crema("video", qformer={"width": 16, "heads": 3})


@pytest.mark.parametrize("sense", ["video", "audio"])
def test_features_of_another_width_are_an_error_that_names_the_sense(sense):
    model = tiny.crema("video", "audio")
    batch = tiny.batch(tiny.item(1, video=2, audio=2))
    x = batch.senses[sense]
    wider = SenseBatch(torch.cat([x.tokens, x.tokens], dim=3), x.mask, x.times)
    with pytest.raises(CremaError, match=sense):
        model(Batch(batch.samples, {**batch.senses, sense: wider}))


def test_features_without_a_segment_are_refused():
    nothing = torch.zeros(0, 4, 12), torch.zeros(0, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="segment"):
        Features(*nothing, torch.zeros(0, 2, dtype=torch.float64))

"""CREMA's senses attached to whole VLMs of three families, at tiny random sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import tiny_vlm
from open_crema import attach, joint, sequential
from open_crema.config import ModelConfig
from open_crema.errors import ConfigError, CremaError, DataError, WeightsError
from open_crema.features import Features
from open_crema.model.attach import Attached, time_line
from open_crema.model.files import fingerprint, from_pretrained, save_pretrained
from tiny_vlm import asks, image, video

SENSES = ("audio", "thermal")
WIDTHS = {s: tiny.WIDTHS[s] for s in (*SENSES, "depth", "point")}


def attached(
    family: str = "smolvlm", *senses: str, kind: str = "self-gated", **options: Any
) -> Attached:
    vlm, processor = tiny_vlm.make(family)
    torch.manual_seed(0)
    config = tiny.config(*(senses or SENSES), fusion={"kind": kind}, **options)
    model = attach(vlm, processor, config=config, encoder_widths=WIDTHS)
    return tiny.stir(model).eval()


def hears(seed: int = 0, **segments: int) -> Mapping[str, Features]:
    return {s: tiny.features(s, n, seed=seed) for s, n in segments.items()}


CONVERSATIONS = (
    asks("what is it", image(1)),
    asks("what do you hear, and what is it that you hear?", image(2, (24, 40)), image(3)),
    asks("is it hot"),
)
FEATURES = (hears(1, audio=2, thermal=4), hears(2, audio=3), hears(3, thermal=1))
ANSWERS = ("red", "the dog", "it is")


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_without_senses_inputs_logits_and_answers_are_the_plain_vlms_bit_for_bit(
    family: str,
) -> None:
    plain, processor = tiny_vlm.make(family)
    model = attached(family)
    batch = model.prepare(CONVERSATIONS, answers=ANSWERS)
    inputs = tiny_vlm.plain(processor, CONVERSATIONS)
    made = model.prompt({}, batch).inputs
    assert made.keys() == inputs.keys()
    for name, value in inputs.items():
        assert torch.equal(made[name], value), name

    targets = model.targets(batch)
    ids, labels = model.vlm.pad(targets, model.vlm.pad_id), model.vlm.pad(targets, -100)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    real = (labels >= 0).long()
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], real], dim=1)
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(ids)], dim=1)
    with torch.no_grad():
        expected = plain(**inputs, logits_to_keep=ids.shape[1] + 1).logits[:, :-1]
        assert torch.equal(model(batch).logits, expected)

    inputs = tiny_vlm.plain(processor, CONVERSATIONS)
    said = plain.generate(**inputs, max_new_tokens=6, do_sample=False)
    ours = model.generate(batch, max_new_tokens=6)
    assert torch.equal(ours.ids, said[:, inputs["input_ids"].shape[1] :])
    beams = plain.generate(**inputs, max_new_tokens=6, do_sample=False, num_beams=3)
    ours = model.generate(batch, max_new_tokens=6, beams=3)
    assert torch.equal(ours.ids, beams[:, inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("kind", ["self-gated", "concat"])
@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
@torch.no_grad()
def test_a_sample_alone_is_as_in_a_batch_of_others(family: str, kind: str) -> None:
    model = attached(family, kind=kind)
    features = (*FEATURES, {})
    conversations = (*CONVERSATIONS, CONVERSATIONS[0])
    answers = (*ANSWERS, "the dog")
    together = model(model.prepare(conversations, features, answers=answers))
    losses = tiny.sample_losses(together.logits, together.labels)
    for i, (conversation, own) in enumerate(zip(conversations, features, strict=True)):
        alone = model(model.prepare([conversation], [own], answers=answers[i : i + 1]))
        torch.testing.assert_close(
            tiny.sample_losses(alone.logits, alone.labels)[0], losses[i], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
@torch.no_grad()
def test_every_sense_and_every_picture_matters_and_no_other_samples_do(family: str) -> None:
    model = attached(family)

    def logits(picture: int = 1, neighbour: int = 2, **segments: int) -> torch.Tensor:
        conversations = [asks("what is it", image(picture)), asks("is it", image(neighbour))]
        features = [hears(1, **segments), hears(neighbour, audio=3)]
        batch = model.prepare(conversations, features, answers=["red", "dog"])
        return model(batch).logits[0]

    full = logits(audio=2, thermal=4)
    assert torch.equal(full, logits(audio=2, thermal=4))  # identical calls, identical bits
    torch.testing.assert_close(full, logits(neighbour=5, audio=2, thermal=4))
    for other in (logits(audio=2), logits(thermal=4), logits(5, audio=2, thermal=4)):
        assert (full - other).abs().max() > 1e-3


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
@torch.no_grad()
def test_sense_tokens_stand_after_the_picture_and_before_the_question(family: str) -> None:
    model = attached(family)
    batch = model.prepare([CONVERSATIONS[0]], [FEATURES[0]])
    prompt = model.prompt(model.query_all(batch), batch)
    ids = prompt.inputs["input_ids"][0]
    (where,) = prompt.places[0].nonzero(as_tuple=True)
    start, end = int(where[0]), int(where[-1]) + 1
    assert len(where) == end - start == len(model.vlm.encode("Other senses: ")) + 4 * 3
    before, after = model.vlm.tokenizer.decode(ids[:start]), model.vlm.tokenizer.decode(ids[end:])
    assert after.startswith("what is it" + model.vlm.tokenizer.eos_token)
    assert "image" in before[-30:]
    assert "what" not in before
    # apart from them the prompt is the plain one
    plain = tiny_vlm.plain(model.vlm.processor, [CONVERSATIONS[0]])["input_ids"][0]
    assert model.vlm.tokenizer.decode(plain) == before + after


@torch.no_grad()
def test_the_prompt_is_the_vlms_own_forward_on_embeddings_put_together_by_hand() -> None:
    """Qwen2.5-VL has the most to get wrong: positions in three dimensions, counted from ids."""
    model = attached("qwen2.5-vl")
    batch = model.prepare([asks("what is it", image(1), video(2))], [FEATURES[0]], answers=["red"])
    prompt = model.prompt(model.query_all(batch), batch)
    inputs, inner = dict(prompt.inputs), model.vlm.llm.model
    positions, _ = inner.get_rope_index(
        inputs["input_ids"],
        inputs["mm_token_type_ids"],
        inputs["image_grid_thw"],
        inputs["video_grid_thw"],
        inputs["second_per_grid_ts"],
    )
    at_senses = positions[:, 0, prompt.places[0]]
    assert torch.equal(at_senses[0], at_senses[1])  # as text: one by one, in all dimensions
    assert torch.equal(at_senses[0].diff(), torch.ones_like(at_senses[0][1:]))

    ids = inputs["input_ids"][0]
    embeds = model.vlm.embed(ids)
    pictures = inner.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    films = inner.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
    embeds[ids == inner.config.image_token_id] = torch.cat(pictures.pooler_output)
    embeds[ids == inner.config.video_token_id] = torch.cat(films.pooler_output)
    embeds[prompt.places[0]] = prompt.embeds[prompt.places]
    hidden = inner.language_model(inputs_embeds=embeds[None], position_ids=positions)[0]
    by_hand = model.vlm.llm.lm_head(hidden[:, -1])
    torch.testing.assert_close(model(batch).logits[:, 0], by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_search_sees_what_training_sees(family: str) -> None:
    """Greedy answers are the ones that the teacher-forced logits call best, step by step."""
    model = attached(family)
    features = (*FEATURES[:2], {})
    batch = model.prepare(CONVERSATIONS, features, answers=ANSWERS)
    found = model.generate(batch, max_new_tokens=4, scores=True)
    tokens = model.query_all(batch)
    taught = model.vlm(model.prompt(tokens, batch), found.ids.tolist())
    torch.testing.assert_close(taught.logits.transpose(0, 1), found.scores, rtol=1e-4, atol=1e-4)
    for i in range(3):  # beams stand side by side, each with its sample's tokens
        alone = model.prepare(CONVERSATIONS[i : i + 1], features[i : i + 1])
        beams = model.generate(alone, max_new_tokens=4, beams=3).texts
        assert beams == model.generate(batch, max_new_tokens=4, beams=3).texts[i : i + 1]


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_options_are_scored_as_answers_are(family: str) -> None:
    model = attached(family)
    options = [("red", "the dog"), ("dog", "what", "is it hot"), ("red", "the red")]
    batch = model.prepare(CONVERSATIONS, FEATURES, options=options)
    scores = model.score(batch)
    for i, own in enumerate(options):
        for j, option in enumerate(own):
            alone = model.prepare([CONVERSATIONS[i]], [FEATURES[i]], answers=[option])
            loss = model(alone).loss.detach()
            torch.testing.assert_close(-scores.mean[i, j], loss, rtol=1e-4, atol=1e-4)
    assert torch.isinf(scores.log_likelihood[0, 2])


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_training_moves_adapters_and_fusion_and_not_one_bit_of_the_vlm(family: str) -> None:
    model = attached(family)
    before = {name: value.clone() for name, value in model.vlm.llm.state_dict().items()}
    ours = {n for n, _ in model.named_parameters() if n.startswith(("adapters.", "fusion."))}
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    assert not any(module.training for module in model.vlm.modules())
    assert model.adapters.training
    first = model(batch).loss
    first.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == ours
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.grad is not None)
    for _ in range(5):
        optimizer.step()
        optimizer.zero_grad()
        last = model(batch).loss
        last.backward()
    assert last < first
    for name, value in model.vlm.llm.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_strategies_train_an_attached_model_in_anyones_own_loop(tmp_path: Path) -> None:
    vlm, processor = tiny_vlm.make("qwen2.5-vl")
    config = tiny.config(*SENSES)
    data = [(CONVERSATIONS, FEATURES, ANSWERS)] * 4
    # the loop of docs/attach.md
    model = attach(vlm, processor, SENSES, config=config, encoder_widths=WIDTHS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for conversations, senses, answers in data:
        batch = model.prepare(conversations, senses, answers=answers)
        for sub in sequential(model, [batch], order=model.senses):
            sub.loss.backward()
            if sub.last:
                optimizer.step()
                optimizer.zero_grad()
            losses.append((sub.sense, sub.loss.item()))
    save_pretrained(model, tmp_path / "attached")

    assert [sense for sense, _ in losses[:2]] == ["audio", "thermal"]
    assert losses[-1][1] < losses[0][1]
    for sub in joint(model, [batch], frozen=["audio"]):
        sub.loss.backward()
    assert all(p.grad is None for p in model.adapter("audio").parameters())
    assert all(p.grad is not None for p in model.adapter("thermal").parameters())


def test_withholding_the_senses_of_a_batch_gives_the_plain_vlm_back() -> None:
    model = attached("smolvlm")
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    with_senses = model(batch).logits
    blind = model(batch.only([])).logits
    assert torch.equal(blind, model(model.prepare(CONVERSATIONS, answers=ANSWERS)).logits)
    assert not torch.equal(blind, with_senses)


def test_pictures_are_processed_once_however_often_a_batch_is_used() -> None:
    model = attached("llava-onevision")
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    model(batch)
    model(batch.only(["audio", "thermal"]))
    assert len(batch.read) == 1
    model(batch.only(["thermal"]))  # the second sample has none of it: another prompt
    assert len(batch.read) == 2


def test_a_sense_that_was_added_and_not_trained_changes_nothing() -> None:
    model = attached("smolvlm", "thermal")
    features = [{"thermal": own["thermal"]} if "thermal" in own else {} for own in FEATURES]
    before = model(model.prepare(CONVERSATIONS, features, answers=ANSWERS)).logits
    model.add_sense("audio", WIDTHS["audio"])
    after = model(model.eval().prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("senses", [("point",), ("audio", "point"), ("audio", "depth", "thermal")])
@pytest.mark.parametrize("kind", ["self-gated", "concat"])
@torch.no_grad()
def test_any_senses_with_any_numbers_of_segments(senses: tuple[str, ...], kind: str) -> None:
    model = attached("smolvlm", *senses, kind=kind)
    counts = {"audio": 5, "depth": 4, "thermal": 2, "point": 1}
    batch = model.prepare([asks("what is it")], [hears(**{s: counts[s] for s in senses})])
    prompt = model.prompt(model.query_all(batch), batch)
    text = dict.fromkeys(senses, model.vlm.encode)
    if kind == "self-gated":
        expected = len(model.vlm.encode("Other senses: ")) + max(counts[s] for s in senses) * 3
    else:
        names = {"audio": "Audio", "depth": "Depth Map", "thermal": "Thermal Heatmap"}
        labels = [f"{names[s]} {i + 1}: " for s in senses if s in names for i in range(counts[s])]
        labels += ["3D Model: "] * ("point" in senses)
        expected = sum(len(model.vlm.encode(label)) + 3 for label in labels)
    assert int(prompt.places.sum()) == expected, text


def test_senses_meet_on_the_segments_of_the_one_with_the_most() -> None:
    model = attached("smolvlm")
    batch = model.prepare(CONVERSATIONS, FEATURES)
    line = time_line(model.query_all(batch))
    assert line.segments.sum(dim=1).tolist() == [4, 3, 1]
    assert torch.equal(line.times[0], FEATURES[0]["thermal"].times)
    assert torch.equal(line.times[1, :3], FEATURES[1]["audio"].times)
    equal = model.prepare(CONVERSATIONS[:1], [hears(audio=2, thermal=2)])
    equal.senses["audio"].times.add_(1)  # the first in canonical order leads among equals
    assert torch.equal(time_line(model.query_all(equal)).times, equal.senses["audio"].times)


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_a_saved_model_answers_as_before(family: str, tmp_path: Path) -> None:
    model = attached(family)
    save_pretrained(model, tmp_path / "m")
    assert not any("backbone" in f.name for f in (tmp_path / "m").rglob("*"))
    again = attach(*tiny_vlm.make(family), from_pretrained=tmp_path / "m")
    assert isinstance(again, Attached)
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    assert torch.equal(model(batch).logits, again(batch).logits)
    one = attach(*tiny_vlm.make(family), ["thermal"], from_pretrained=tmp_path / "m")
    assert one.senses == ["thermal"]
    assert torch.equal(one(batch).logits, model(batch.only(["thermal"])).logits)


def test_a_saved_model_refuses_another_vlm_and_names_both(tmp_path: Path) -> None:
    model = attached("smolvlm")
    folder = save_pretrained(model, tmp_path / "m")
    for other in (tiny_vlm.make("smolvlm", seed=1), tiny_vlm.make("qwen2.5-vl")):
        with pytest.raises(WeightsError, match=r"SmolVLM\w+-[0-9a-f]{16}.*not on \w+-") as error:
            attach(*other, from_pretrained=folder)
        assert type(other[0]).__name__ in str(error.value)
    with pytest.raises(ConfigError, match=r"attach\(vlm, processor, from_pretrained"):
        from_pretrained(folder)
    with pytest.raises(WeightsError, match="trained on the LLM"):
        attach(*tiny_vlm.make("smolvlm"), from_pretrained=save_pretrained(tiny.crema(), folder))


def test_the_shared_qformer_may_be_a_saved_models(tmp_path: Path) -> None:
    donor = tiny.crema("video", "audio", qformer={"queries": 5, "layers": 3})
    folder = save_pretrained(donor, tmp_path / "donor")
    vlm, processor = tiny_vlm.make("smolvlm")
    widths = {"thermal": 12}
    model = attach(
        vlm, processor, ["thermal"], config=tiny.config(), qformer=folder, encoder_widths=widths
    )
    assert model.config.qformer == donor.config.qformer
    assert fingerprint(model.qformer) == fingerprint(donor.qformer)
    assert not any(p.requires_grad for p in model.qformer.parameters())


def test_the_fingerprint_is_of_the_weights_whatever_holds_them(tmp_path: Path) -> None:
    from open_crema.backbones.vlm import fingerprint as of

    vlm, _ = tiny_vlm.make("llava-onevision")
    vlm.to(torch.bfloat16)
    known = of(vlm)
    vlm.save_pretrained(tmp_path)
    again = type(vlm).from_pretrained(tmp_path)
    assert of(again) == of(again.to(torch.float32)) == of(again.train()) == known
    for name, value in list(vlm.state_dict().items())[::7]:
        kept = value.clone()
        value.view(-1)[0] += 1
        assert of(vlm) != known, name
        value.copy_(kept)
    assert of(vlm) == known
    vlm.config.text_config.rope_parameters["rope_theta"] = 1234.0
    assert of(vlm) != known
    with torch.device("meta"):
        hollow = type(vlm)(vlm.config)
    with pytest.raises(ConfigError, match="not in memory"):
        of(hollow)


def test_a_vlm_in_bfloat16_trains_adapters_in_float32() -> None:
    vlm, processor = tiny_vlm.make("qwen2.5-vl")
    model = attach(
        vlm.to(torch.bfloat16), processor, config=tiny.config(*SENSES), encoder_widths=WIDTHS
    )
    output = model.train()(model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS))
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {(p.dtype, p.grad.dtype) for p in trained} == {(torch.float32, torch.float32)}


def test_the_vlm_is_left_as_it_was_around_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, processor = tiny_vlm.make("smolvlm")
    settings, config = deepcopy(vlm.generation_config), deepcopy(vlm.config)
    model = attach(vlm, processor, config=tiny.config(*SENSES), encoder_widths=WIDTHS)
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    model(batch)
    model.generate(batch, max_new_tokens=2)
    assert vlm.generation_config == settings
    assert vlm.config.to_dict() == config.to_dict()

    def breaks(**inputs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vlm, "forward", breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        model(batch)
    assert not vlm.get_input_embeddings()._forward_hooks


def test_a_vlm_that_embeds_its_prompt_elsewhere_is_an_error_not_a_deaf_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = attached("smolvlm")
    batch = model.prepare(CONVERSATIONS, FEATURES)
    answered = torch.zeros(3, 9, dtype=torch.long)
    monkeypatch.setattr(model.vlm.llm, "generate", lambda **inputs: answered)
    with pytest.raises(CremaError, match="not heard"):
        model.generate(batch)


def test_targets_begin_as_the_chat_template_begins_an_answer() -> None:
    smol, qwen = attached("smolvlm"), attached("qwen2.5-vl")
    for model, text in ((smol, " red<end_of_utterance>"), (qwen, "red<|im_end|>")):
        (target,) = model.targets(model.prepare([asks("what")], answers=["red"]))
        assert model.vlm.tokenizer.decode(target) == text


def test_a_question_that_is_a_plain_string_holds_senses_too() -> None:
    model = attached("qwen2.5-vl")
    written = [[{"role": "user", "content": "what is it"}], asks("what is it")]
    batch = model.prepare(written, [FEATURES[0]] * 2, answers=["red"] * 2)
    assert torch.equal(*model(batch).logits)


@pytest.mark.parametrize("family", tiny_vlm.FAMILIES)
def test_a_turn_without_words_holds_senses_too(family: str) -> None:
    model = attached(family)
    picture = [{"role": "user", "content": [{"type": "image", "image": image(1)}]}]
    for conversation in (picture, asks("", image(1))):
        batch = model.prepare([conversation], [FEATURES[0]], answers=["red"])
        prompt = model.prompt(model.query_all(batch), batch)
        (last,) = prompt.places[0].nonzero(as_tuple=True)
        rest = model.vlm.tokenizer.decode(prompt.inputs["input_ids"][0, int(last[-1]) + 1 :])
        assert rest.count(model.vlm.tokenizer.eos_token) == 1
        assert rest.startswith(model.vlm.tokenizer.eos_token)


BAD: dict[str, tuple[Callable[[Attached], Any], type[CremaError], str]] = {
    "an unknown sense": (
        lambda m: m.prepare([asks("a")], [hears(depth=2)]),
        ConfigError,
        "no adapter for depth; the model has audio, thermal",
    ),
    "counts that differ": (
        lambda m: m.prepare([asks("a")], [{}, {}]),
        DataError,
        "1 conversations with 2 senses",
    ),
    "no question": (
        lambda m: m.prepare([[*asks("a"), {"role": "assistant", "content": "b"}]]),
        DataError,
        "conversation 0 does not end with the user's turn",
    ),
    "an empty conversation": (lambda m: m.prepare([[]]), DataError, "conversation 0"),
    "no answer": (lambda m: m(m.prepare([asks("a")])), DataError, "no answer to train on"),
    "another batch": (
        lambda m: m(tiny.batch(tiny.item(audio=2))),
        DataError,
        "takes batches of its prepare",
    ),
    "a question that holds the marker": (
        lambda m: m(m.prepare([asks("a" + m.vlm.mark)], [hears(audio=2)], answers=["b"])),
        DataError,
        "stands 2 times",
    ),
    "another encoder's features": (
        lambda m: m(m.prepare([asks("a")], [{"audio": tiny.features("video", 2)}], answers=["b"])),
        DataError,
        "features of width 12",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call(attached("smolvlm"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name the senses"),
        ({"senses": ["video"]}, "has video already"),
        ({"senses": ["thermel"]}, "did you mean 'thermal'"),
        ({"config": tiny.config("audio", fusion={"placement": "add"})}, "placement=add"),
        ({"config": tiny.config("audio", llm_dropout=0.1)}, "llm_dropout must be 0"),
        ({"config": ModelConfig(senses=("audio",)), "from_pretrained": "x"}, "either it or those"),
    ],
)
def test_what_cannot_be_attached_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attach(*tiny_vlm.make("smolvlm"), **options)


def test_only_a_vlms_processor_will_do() -> None:
    vlm, processor = tiny_vlm.make("smolvlm")
    with pytest.raises(ConfigError, match="not a VLM's processor"):
        attach(vlm, processor.tokenizer, ["audio"])

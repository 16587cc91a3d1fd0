"""CREMA's senses beside whole VLMs of three families, at tiny random sizes: what they hear."""

from __future__ import annotations

import pytest
import torch

import tiny
import tiny_vlm
from open_crema.model.attach import time_line
from tiny_vlm import ANSWERS, CONVERSATIONS, FEATURES, WIDTHS, asks, attached, hears, image, video


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

    targets = [own for (own,) in model.targets(batch)]
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


@pytest.mark.parametrize("family", tiny_vlm.WITH_VIDEO)
@torch.no_grad()
def test_a_video_is_the_vlms_own_and_senses_go_beside_it(family: str) -> None:
    plain, processor = tiny_vlm.make(family)
    model = attached(family)
    films = [asks("what is it", video(1)), asks("what do you hear", video(2, frames=4))]
    inputs = tiny_vlm.plain(processor, films)
    said = plain.generate(**inputs, max_new_tokens=4, do_sample=False)
    ours = model.generate(model.prepare(films), max_new_tokens=4)
    assert torch.equal(ours.ids, said[:, inputs["input_ids"].shape[1] :])
    features = [FEATURES[0], FEATURES[1]]
    together = model(model.prepare(films, features, answers=ANSWERS[:2]))
    losses = tiny.sample_losses(together.logits, together.labels)
    for i in range(2):
        alone = model(model.prepare([films[i]], [features[i]], answers=[ANSWERS[i]]))
        torch.testing.assert_close(alone.loss * alone.labels.numel(), losses[i])
    other = [asks("what is it", video(3)), films[1]]
    changed = model(model.prepare(other, features, answers=ANSWERS[:2])).logits - together.logits
    assert changed[0].abs().max() > 1e-3


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
    assert bool((ids[start:end] == model.vlm.pad_id).all())  # no picture's id by accident
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


def test_withholding_the_senses_of_a_batch_gives_the_plain_vlm_back() -> None:
    model = attached("smolvlm")
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    with_senses = model(batch).logits
    blind = model(batch.only([])).logits
    assert torch.equal(blind, model(model.prepare(CONVERSATIONS, answers=ANSWERS)).logits)
    assert not torch.equal(blind, with_senses)


def test_pictures_are_processed_once_however_often_a_batch_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = attached("llava-onevision")
    batch = model.prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)
    read, marks = model.vlm.read, []
    monkeypatch.setattr(model.vlm, "read", lambda *args: marks.append(args[1]) or read(*args))
    for _ in range(2):
        model(batch)
        model(batch.only(["audio", "thermal"]))
        model(batch.only(["thermal"]))  # the second sample has none of it: another prompt
    assert marks == [(True, True, True), (True, False, True)]


def test_options_of_the_processor_reach_it() -> None:
    model = attached("smolvlm")
    batch = model.prepare(CONVERSATIONS, processing={"pad_to_multiple_of": 128})
    assert model.prompt({}, batch).inputs["input_ids"].shape == (3, 128)


def test_a_sense_that_was_added_and_not_trained_changes_nothing() -> None:
    model = attached("smolvlm", "thermal")
    features = [{"thermal": own["thermal"]} if "thermal" in own else {} for own in FEATURES]
    before = model(model.prepare(CONVERSATIONS, features, answers=ANSWERS)).logits
    model.add_sense("audio", WIDTHS["audio"])
    after = model(model.eval().prepare(CONVERSATIONS, FEATURES, answers=ANSWERS)).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("senses", [("point",), ("audio", "point"), ("audio", "depth", "thermal")])
@pytest.mark.parametrize(
    "kind",
    ["self-gated", "concat", "ungated", "linear", "mixture-of-experts", "cross-attention"],
)
@torch.no_grad()
def test_any_senses_with_any_numbers_of_segments(senses: tuple[str, ...], kind: str) -> None:
    model = attached("smolvlm", *senses, kind=kind)
    counts = {"audio": 5, "depth": 4, "thermal": 2, "point": 1}
    batch = model.prepare([asks("what is it")], [hears(**{s: counts[s] for s in senses})])
    prompt = model.prompt(model.query_all(batch), batch)
    text = dict.fromkeys(senses, model.vlm.encode)
    if kind != "concat":
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


def test_targets_begin_as_the_chat_template_begins_an_answer() -> None:
    smol, qwen = attached("smolvlm"), attached("qwen2.5-vl")
    for model, text in ((smol, " red<end_of_utterance>"), (qwen, "red<|im_end|>")):
        ((target,),) = model.targets(model.prepare([asks("what")], answers=["red"]))
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


def test_a_datasets_batch_is_joined_with_its_conversations() -> None:
    model = attached("smolvlm")
    items = [tiny.item(1, audio=2, thermal=4, answer="red"), tiny.item(2, audio=3, answer="dog")]
    joined = model.join(tiny.batch(*items), CONVERSATIONS[:2])
    features = [own for _, own in items]
    prepared = model.prepare(CONVERSATIONS[:2], features, answers=["red", "dog"])
    assert [s.id for s in joined.samples] == ["1", "2"]
    assert torch.equal(model(joined).logits, model(prepared).logits)

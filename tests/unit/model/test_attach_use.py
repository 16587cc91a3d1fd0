"""Models attached to a VLM: trained, saved, loaded, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
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
from open_crema.model.attach import Attached
from open_crema.model.files import fingerprint, from_pretrained, save_pretrained
from tiny_vlm import ANSWERS, CONVERSATIONS, FEATURES, SENSES, WIDTHS, asks, attached, hears


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
    "a batch of others": (
        lambda m: m.join(tiny.batch(tiny.item(audio=2)), CONVERSATIONS),
        DataError,
        "3 conversations with 1 samples",
    ),
    "no question": (
        lambda m: m.prepare([[*asks("a"), {"role": "assistant", "content": "b"}]]),
        DataError,
        "conversation 0 does not end with the user's turn",
    ),
    "one conversation": (lambda m: m.prepare(asks("a")), DataError, r"write \[messages\]"),
    "an empty conversation": (lambda m: m.prepare([[]]), DataError, "conversation 0"),
    "no answer": (lambda m: m(m.prepare([asks("a")])), DataError, "no answer to train on"),
    "another batch": (
        lambda m: m(tiny.batch(tiny.item(audio=2))),
        DataError,
        "use prepare",
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

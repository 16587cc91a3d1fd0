"""Text tuning: what the LLM is fed is what a model's adapters would say, and it learns from it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from open_crema.backbones import lora
from open_crema.data.sample import Told, ToldQuestion
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.fusion import QueryTokens
from open_crema.model.prompt import assemble
from open_crema.training.text_tuning import Recipe, TextTuning
from open_crema.training.words import SOFT

peft = pytest.importorskip("peft")

SECONDS = 4.0
EXACT: Mapping[str, Any] = {
    "wrong": 0.0, "blended": 0.0, "faint": 1.0, "noise": (0.0,),
    "first_layer": 0, "rank": 4, "template": "",
}  # fmt: skip
COLOURS, SHAPES = ("red", "blue", "green", "white"), ("ball", "cube", "cone")


def questions(*asked: tuple[str, str]) -> list[ToldQuestion]:
    return [ToldQuestion(text, answer, text) for text, answer in asked]


# Senses of one, of two and of four parts; the second has no video, the third nothing else.
CLIPS = (
    Told(
        {
            "video": [["red", "ball"], ["red", "cube"], ["blue", "ball"], ["red", "cone"]],
            "audio": [["bell", "low"]],
            "thermal": [["warm", "x"], ["x", "cold"], ["hot", "hot"], ["x", "x"]],
        },
        questions(("what is it", "a ball"), ("is it hot or not", "yes")),
    ),
    Told({"audio": [["drum", "high"]], "thermal": [["x", "cold"]] * 4}, questions(("why", "no"))),
    Told(
        {"video": [["blue", "cone"]] * 4},
        questions(("what colour", "blue"), ("what", "a"), ("a", "b")),
    ),
)


def tuning_of(**recipe: Any) -> TextTuning:
    return TextTuning(tiny.backbone(), Recipe(**{**EXACT, **recipe}), seconds=SECONDS)


def spoken(clips: Sequence[Told], sense: str) -> QueryTokens:
    """What a sense's adapter gives that says these words exactly; absent where there are none."""
    backbone = tiny.backbone()
    parts = max(len(clip.captions.get(sense, ())) for clip in clips)
    tokens = torch.zeros(len(clips), parts, 2, backbone.width)
    segments = torch.zeros(len(clips), parts, dtype=torch.bool)
    times = torch.zeros(len(clips), parts, 2, dtype=torch.float64)
    for row, clip in enumerate(clips):
        for s, words in enumerate(clip.captions.get(sense, ())):
            for q, word in enumerate(words):
                tokens[row, s, q] = backbone.embed(torch.tensor(backbone.encode(word)[0]))
            segments[row, s] = True
            times[row, s] = torch.tensor([s, s + 1]) * SECONDS / parts
    return QueryTokens(tokens, segments, times)


def test_blocks_are_those_of_a_model_whose_adapters_say_just_these_words():
    senses = ("video", "audio", "thermal")
    model = tiny.crema(*senses, stirred=False, fusion={"init": "identity"})
    with torch.no_grad():
        expected = model.fusion({sense: spoken(CLIPS, sense) for sense in senses})
    blocks = tuning_of()._blocks(CLIPS)
    assert [b.label for b in blocks] == [b.label for b in expected]
    assert len(blocks) > 5
    for made, right in zip(blocks, expected, strict=True):
        assert torch.equal(made.mask, right.mask), made.label
        real = right.mask
        torch.testing.assert_close(made.tokens[real], right.tokens[real], rtol=1e-5, atol=1e-6)
    questions = [clip.asked[0].text for clip in CLIPS]
    ours, theirs = (
        assemble(model.backbone, b, questions, model.config) for b in (blocks, expected)
    )
    assert torch.equal(ours.mask, theirs.mask)
    torch.testing.assert_close(ours.embeds, theirs.embeds, rtol=1e-5, atol=1e-6)


def test_the_loss_is_that_of_such_a_model():
    """Before any step, when the update is still nothing."""
    model = tiny.crema("video", "audio", "thermal", stirred=False, fusion={"init": "identity"})
    together = tuning_of()._read(CLIPS)
    checked = tuning_of().check([CLIPS])
    sums, count, correct = 0.0, 0, 0
    for clip in CLIPS:
        for question in clip.asked:
            with torch.no_grad():
                tokens = {sense: spoken([clip], sense) for sense in clip.captions}
                prompt = assemble(
                    model.backbone, model.fusion(tokens), [question.text], model.config
                )
                out = model.backbone(prompt, [model.backbone.target(question.answer)])
            sums += out.loss.item() * out.labels.shape[1]
            count += out.labels.shape[1]
            correct += torch.equal(out.logits.argmax(dim=2), out.labels)
    assert together.loss.item() == pytest.approx(sums / count, rel=1e-4)
    assert sum(right for right, _ in checked.values()) == correct
    assert {name: asked for name, (_, asked) in checked.items()} == {
        question.type: 1 for clip in CLIPS for question in clip.asked
    }


def world(seed: int, clips: int = 8) -> Iterator[list[Told]]:
    """One thing a clip, whose colour and shape are told."""
    draw = random.Random(seed)
    while True:
        found = []
        for _ in range(clips):
            colour, shape = draw.choice(COLOURS), draw.choice(SHAPES)
            asked = questions(("what colour is it", colour), ("what shape is it", shape))
            found.append(Told({"video": [[colour, shape]]}, asked))
        yield found


def test_it_learns_to_read():
    """Better than whoever knows no more than how often each answer comes, and that it then ends:
    (ln 4 + ln 3) / 4 a token."""
    tuning = tuning_of(steps=60, lr=0.02, rank=8, alpha=16)
    log = list(tuning.train(world(0)))
    assert len(log) == 60
    last = log[-5:]
    assert log[0][1] > 2.0
    assert sum(loss for _, loss, _ in last) / 5 < 0.62 / 2
    assert sum(right for _, _, right in last) / 5 > 0.8
    checked = tuning.check([next(world(2)) for _ in range(3)])
    assert min(right / asked for right, asked in checked.values()) > 0.8


def saved(folder: Path, **recipe: Any) -> dict[str, torch.Tensor]:
    tuning = tuning_of(**{"steps": 3, "noise": (0.1, 0.5), "wrong": 0.2, **recipe})
    torch.manual_seed(torch.seed())  # whatever was drawn before
    assert len(list(tuning.train(world(1)))) == 3
    tuning.save(folder, "tiny")
    return load_file(folder / lora.TENSORS)


def test_it_is_a_function_of_its_seed(tmp_path):
    first, again, other = (
        saved(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.keys() == again.keys() == other.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[n], other[n]) for n in first if n.endswith("lora_A.weight"))
    assert {tensor.dtype for tensor in first.values()} == {torch.bfloat16}


def test_a_run_that_is_cut_off_goes_on_as_if_it_had_not_been(tmp_path):
    recipe = {"steps": 5, "noise": (0.1, 0.5), "wrong": 0.2}
    whole, first, second = (tuning_of(**recipe) for _ in range(3))
    log = list(whole.train(world(1)))
    begun = list(islice(first.train(world(1)), 2))
    first.pause(tmp_path / "paused")
    assert second.resume(tmp_path / "paused") == 2
    assert begun + list(second.train(world(1))) == log
    whole.save(tmp_path / "whole", "tiny")
    second.save(tmp_path / "second", "tiny")
    tensors = [load_file(tmp_path / name / lora.TENSORS) for name in ("whole", "second")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    with pytest.raises(WeightsError, match="of another recipe"):
        tuning_of(**{**recipe, "steps": 6}).resume(tmp_path / "paused")
    (tmp_path / "paused" / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="damaged"):
        tuning_of(**recipe).resume(tmp_path / "paused")


def test_it_goes_on_from_an_update_that_was_saved(tmp_path):
    first = tuning_of(steps=4, lr=0.05)
    list(first.train(world(1)))
    first.save(tmp_path, "tiny")
    second = tuning_of(seed=5)
    untrained = second.check([CLIPS]), second._read(CLIPS).loss.item()
    second.start_from(tmp_path)
    assert second._read(CLIPS).loss.item() != untrained[1]
    second.save(tmp_path / "again", "tiny")
    before, after = (load_file(place / lora.TENSORS) for place in (tmp_path, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(WeightsError, match="not an update of this recipe; it has no "):
        tuning_of(rank=8).start_from(tmp_path)
    with pytest.raises(WeightsError, match="missing"):
        tuning_of().start_from(tmp_path / "missing")


def test_layers_below_the_first_have_no_update(tmp_path):
    names = saved(tmp_path, first_layer=1)
    assert len(names) == 2 * 7  # of the second of two layers, seven matrices
    assert all(".layers.1." in name for name in names)


def test_what_is_saved_is_an_update_that_can_be_merged(tmp_path):
    tuning = tuning_of(steps=3)
    list(tuning.train(world(1)))
    tuning.save(tmp_path, "tiny")
    merged = tiny.llama()
    lora.merge(merged, tmp_path, base="tiny")
    adapted = peft.PeftModel.from_pretrained(tiny.llama(), str(tmp_path)).merge_and_unload()
    expected, plain = (dict(llm.named_parameters()) for llm in (adapted, tiny.llama()))
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(weight, plain[name]) != ("proj" in name), name


def test_wrong_words_and_noise_are_what_the_recipe_says():
    words = [["red", "ball", "blue", "cube"]]
    clips = [Told({"video": words}, questions(("why", "no")))] * 300
    rows = tiny.backbone().llm.get_input_embeddings().weight
    ids = [tiny.backbone().encode(word)[0] for word in words[0]]

    def said(**recipe: Any) -> torch.Tensor:
        tuning = tuning_of(**recipe)
        torch.manual_seed(3)
        return tuning._tokens(clips, "video").tokens[:, 0] - rows[ids]

    with torch.no_grad():
        assert not said().any()
        noise = said(noise=(0.4,))
        assert noise.std() == pytest.approx(0.4 * float(rows.std()), rel=0.05)
        changed = said(wrong=0.4).abs().sum(dim=2) > 0
        blends = said(blended=0.5)
        scales = 1 + (said(faint=0.6) * rows[ids]).sum(dim=2) / rows[ids].square().sum(dim=1)
        share = blends.norm(dim=2) / said(blended=0.0, wrong=1.0).norm(dim=2).max()
    # A quarter of those that are drawn anew are drawn as they were.
    assert float(changed.float().mean()) == pytest.approx(0.4 * 3 / 4, abs=0.04)
    assert float((share > 0).float().mean()) == pytest.approx(0.5 * 3 / 4, abs=0.04)
    assert 0.4 < float(share.max()) <= 0.6
    assert 0.6 <= float(scales.min()) < 0.63
    assert 0.97 < float(scales.max()) <= 1.0


def test_soft_words_are_a_part_of_their_rows():
    clips = [Told({"audio": [["bell", "(low)"]]}, questions(("why", "no")))]
    rows = tiny.backbone().llm.get_input_embeddings().weight
    bell, low = (tiny.backbone().encode(word)[0] for word in ("bell", "low"))
    with torch.no_grad():
        tokens = tuning_of()._tokens(clips, "audio").tokens[0, 0]
        faint = tuning_of(faint=0.2)._tokens(clips, "audio").tokens[0, 0]
    torch.testing.assert_close(tokens, torch.stack([rows[bell], SOFT * rows[low]]))
    assert faint[0].norm() < 0.99 * rows[bell].norm()
    torch.testing.assert_close(faint[1], SOFT * rows[low])


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"PEFT library: pip install 'open-crema\[tune\]'"):
        tuning_of()

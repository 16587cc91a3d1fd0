"""One forward and backward pass, answers and choices, against every golden case."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from golden.official import OURS, Golden, base, batch_of, build, to_ours
from reference.beam import END, beam_search


@pytest.fixture(scope="module")
def golden(case_file: Path) -> Golden:
    return Golden.read(case_file)


@pytest.fixture(scope="module")
def model(golden: Golden):
    return build(golden, golden.group("sd/"))


@pytest.fixture(scope="module")
def batch(golden: Golden):
    return batch_of(golden, golden.group("raw/"), golden.group("in/"))


def close(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} for {tuple(theirs.shape)}"
    worst = (ours - theirs).abs().max().item()
    assert worst <= tolerance, f"{what}: off by {worst:.2e}, {tolerance:.0e} allowed"


def test_query_tokens(golden, model, batch):
    for m in golden.modalities:
        sense = OURS[m]
        x, adapter = batch.senses[sense], model.adapters[sense]
        memory = adapter.memory(x.tokens.flatten(0, 1))
        close(memory, golden.tensors[f"enc/{m}"], 1e-5, f"enc {m}")
        read = adapter.read(model.qformer, memory, x.mask.flatten(0, 1))
        close(read, golden.tensors[f"qf/{m}"], 1e-5, f"qf {m}")
        projected = model.query(sense, x).tokens
        expected = golden.tensors[f"proj/{m}"]
        close(projected.reshape(expected.shape), expected, 1e-5, f"proj {m}")


def test_llm_input(golden, model, batch):
    prompt = model.prompt(model.query_all(batch), batch)
    assert torch.equal(prompt.mask, golden.tensors["llm/attention_mask"])
    close(prompt.embeds, golden.tensors["llm/inputs_embeds"], 1e-5, "inputs_embeds")


def test_loss_logits_and_gradients(golden, model, batch):
    model.zero_grad()
    out = model(batch)
    out.loss.backward()
    assert torch.equal(out.labels, golden.tensors["llm/labels"])
    close(out.logits, golden.tensors["llm/logits"], 5e-6, "logits")
    assert abs(out.loss.item() - golden.info["loss"]) <= 1e-5
    expected = to_ours(model, golden.modalities, golden.group("grad/"))
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    silent = {n for n in expected if not expected[n].any()}
    assert with_gradient == set(expected) - silent
    for name in with_gradient:
        ours, theirs = model.get_parameter(name).grad, expected[name]
        relative = ((ours - theirs).norm() / theirs.norm()).item()
        assert relative <= 1e-4, f"gradient of {name}: relative error {relative:.2e}"


def test_open_ended_generation(golden, model, batch):
    expected = golden.tensors["gen/oeqa_ids"].tolist()
    found = model.generate(batch, max_new_tokens=10, beams=5, length_penalty=-1.0).ids.tolist()
    if found == expected:
        return
    # The files come from transformers 4.33, which ranks answers that the limit cuts off by another
    # length than the installed version. With its rule, our LLM and prompt must give its ids.
    cut_off = [row for row in (*found, *expected) if len(row) == 11 and END not in row]
    assert cut_off, "no answer is cut off, so both versions rank alike"
    prompt = model.prompt(model.query_all(batch), batch)
    searched = beam_search(model.backbone.llm, prompt.embeds, prompt.mask, 5, 10, -1.0)
    assert searched.tolist() == expected


def test_multiple_choice(golden, model, batch):
    found = model.generate(batch, max_new_tokens=30, scores=True)
    assert found.ids.tolist() == golden.tensors["gen/mcqa_ids"].tolist()
    expected = golden.tensors["gen/mcqa_scores"]
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(found.scores), finite)
    close(found.scores[finite], expected[finite], 1e-4, "multiple-choice scores")
    letters = found.letters(golden.info["answer_id"])
    assert letters.argmax(dim=1).tolist() == golden.info["mcqa_pred"]


def test_only_skipped_lora_is_missing(golden, model):
    for m in golden.info["modalities"]:
        assert model.adapters[OURS[base(m)]].uses_lora != m.endswith("-skip")

"""Memory that a training step is said to take, and room in the store."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

import tiny
from open_crema import config, cost
from open_crema.config import Config
from open_crema.cost import Tokens, memory
from open_crema.data.sample import Sample, collate
from open_crema.features import Features
from open_crema.model.crema import Crema

LLAMA = {
    "model_type": "llama",
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
T5 = {
    "model_type": "t5",
    "vocab_size": 200,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 5,
    "num_decoder_layers": 4,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}


@pytest.fixture(scope="module")
def llms(tmp_path_factory):
    made = {}
    for name, said in (
        ("llama", LLAMA),
        ("t5", T5),
        ("wide", {**LLAMA, "intermediate_size": 4096}),
    ):
        made[name] = tmp_path_factory.mktemp(name)
        (made[name] / "config.json").write_text(json.dumps(said))
    return made


@pytest.fixture(scope="module")
def run(llms):
    def make(llm="llama", *, loading=None, **train) -> Config:
        said = {
            "senses": ["video", "audio", "flow"],
            "llm": str(llms[llm]),
            "loading": loading or {},
            "qformer": {
                "layers": 2,
                "width": 64,
                "heads": 2,
                "ffn": 128,
                "queries": 8,
                "dropout": 0.0,
            },
            "lora": {"dropout": 0.0},
        }
        return config.from_dict({"model": said, "train": {"batch_size": 2, **train}})

    return make


@pytest.fixture(scope="module")
def estimate(run):
    """Once for each configuration."""

    @cache
    def of(llm="llama", dtype="fp32", quantised="none", text=40, **train):
        loading = {"dtype": dtype, "quantised": quantised}
        return cost.training_memory(run(llm, loading=loading, **train), Tokens(text=text))

    return of


def test_it_grows_with_the_batch_and_the_prompt(estimate):
    small = estimate()
    assert estimate(batch_size=6).step == pytest.approx(3 * small.step, rel=0.1)
    assert estimate(text=400).step > 1.5 * small.step
    assert small.training == small.step + small.moments


def test_a_sense_at_a_time_keeps_less_than_all_at_once(estimate):
    joint, turns = estimate(strategy="joint"), estimate(accumulate=2)
    assert turns.step < 0.7 * joint.step
    assert turns.moments == joint.moments


def test_without_dropout_and_micro_batches_all_graphs_are_kept(estimate):
    assert estimate().step == pytest.approx(estimate(strategy="joint").step, rel=0.01)


def test_moments_are_the_optimizers(run, estimate):
    adamw, sgd = estimate(), estimate(optimizer="sgd")
    assert adamw.moments == 2 * 4 * cost.count(run().model).trainable
    assert sgd.moments == 0
    assert adamw.step == sgd.step


def test_a_qformer_that_is_trained_keeps_more(estimate):
    frozen = estimate(strategy="joint")
    trained = estimate(strategy="joint", qformer="always")
    assert trained.step > frozen.step
    assert trained.moments > frozen.moments


def test_weights_are_as_they_are_loaded(run, estimate):
    whole, half = estimate("t5"), estimate("t5", "bf16")
    counted = cost.count(run("t5").model)
    rest = counted.qformer + counted.trainable
    assert whole.weights == 4 * (rest + counted.llm_parameters)
    assert half.weights == 4 * rest + 2 * counted.llm_parameters
    assert 4 * rest < estimate("t5", "bf16", "nf4").weights < half.weights


def test_a_run_in_bf16_keeps_copies_of_fp32_weights_for_the_backward_pass(estimate):
    """Autocast makes them anew at each use; a frozen LLM that is bf16 already needs none."""
    given = {"batch_size": 1, "precision": "bf16", "text": 1}
    copied, held = (estimate("wide", dtype, **given) for dtype in ("fp32", "bf16"))
    copies = 2 * 5 * (3 * 32 * 4096 + 4 * 32 * 32)
    assert copied.step - held.step == pytest.approx(copies, rel=0.1)


@pytest.mark.parametrize("llm", ["llama", "t5"])
def test_two_and_three_layers_tell_the_rest(run, estimate, llm, monkeypatch):
    few = estimate(llm, batch_size=4, text=100)
    monkeypatch.setattr(memory, "_FEW", 9)  # all of them, at once
    all_of_them = cost.training_memory(run(llm, batch_size=4), Tokens(text=100))
    assert few.step == pytest.approx(all_of_them.step, rel=0.02)


@pytest.mark.parametrize("kind", ["decoder-only", "encoder-decoder"])
def test_what_a_real_step_keeps_for_its_backward_pass(run, kind, tmp_path):
    """Storages that autograd holds after a real forward pass, which end before its peak."""
    llm = tiny.backbone(kind)
    llm.llm.config.save_pretrained(tmp_path)
    said = config.to_dict(run(strategy="joint", batch_size=4).model)
    chosen = config.from_dict({"model": {**said, "llm": str(tmp_path)}}).model
    widths = {"video": 384, "audio": 1024, "flow": 384}
    model = Crema(chosen, llm, widths).train()
    keys = {"video": 65, "audio": 36, "flow": 65}
    segments = {"video": 4, "audio": 2, "flow": 4}
    items = []
    for i in range(4):
        features = {
            s: Features(
                torch.randn(segments[s], keys[s], widths[s]),
                torch.ones(segments[s], keys[s], dtype=torch.bool),
                torch.arange(2.0 * segments[s], dtype=torch.float64).view(-1, 2),
            )
            for s in widths
        }
        items.append((Sample(str(i), "what " * 39, {}, ("red dog",)), features))
    held: dict[int, torch.Tensor] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            held[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model(collate(items))
    kept = sum(x.untyped_storage().nbytes() for x in held.values())
    whole = config.from_dict(
        {
            "model": {**said, "llm": str(tmp_path)},
            "train": {"strategy": "joint", "batch_size": 4, "optimizer": "sgd"},
        }
    )
    chat = len(llm.before) + len(llm.after)
    tokens = Tokens(frames=4, windows=2, label=4, text=39 + chat, answer=3)
    estimated = cost.training_memory(whole, tokens).step
    gradients = 4 * cost.count(whole.model).trainable
    assert kept < estimated < 1.2 * kept + 2 * gradients


def test_the_store_holds_what_encoders_give(run):
    chosen = run()
    chosen = replace(chosen, data=replace(chosen.data, store_frames=8))
    found = cost.store_bytes(chosen, Tokens(frames=4, windows=2))
    assert found["video"] == found["flow"] == 8 * 65 * 384 * 2
    assert found["audio"] == 2 * 36 * 1024 * 2

"""How a frozen LLM is held in memory: precision, place, quantised; and from the hub."""

from __future__ import annotations

import pytest
import torch

import tiny
from hub_stand_in import Repository, in_place
from open_crema import backbones
from open_crema.backbones.base import Prompt
from open_crema.config import EncodersConfig, LoadingConfig, ModelConfig
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_llm(tiny.t5().eval(), tmp_path_factory.mktemp("llm") / "t5")


def step(backbone):
    """Loss of a batch, and its gradient at the prompt: what training needs of a frozen LLM."""
    torch.manual_seed(1)
    dtype = backbone.llm.get_input_embeddings().weight.dtype
    embeds = torch.randn(2, 5, backbone.width).to(dtype).requires_grad_()
    prompt = Prompt(embeds, torch.ones(2, 5, dtype=torch.long))
    out = backbone(prompt, [[3, 4, 1], [5, 1]])
    out.loss.backward()
    return out.loss.item(), embeds.grad.float()


def agree(found, exact, within):
    assert abs(found[0] - exact[0]) <= within * exact[0]
    cosine = torch.nn.functional.cosine_similarity(found[1].flatten(), exact[1].flatten(), dim=0)
    assert cosine >= 1 - within


@pytest.mark.parametrize(("dtype", "within"), [("bf16", 0.02), ("fp16", 0.01)])
def test_half_precision(folder, dtype, within):
    exact = backbones.load(str(folder))
    half = backbones.load(str(folder), loading=LoadingConfig(dtype=dtype))
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert half.llm.get_input_embeddings().weight.dtype == kind
    assert half.fingerprint == exact.fingerprint  # rounded, it is still the base of its adapters
    found, expected = step(half), step(exact)
    agree(found, expected, within)
    assert found[0] != expected[0]


@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_a_device_map(folder, device_map):
    mapped = backbones.load(str(folder), loading=LoadingConfig(device_map=device_map))
    assert step(mapped)[0] == step(backbones.load(str(folder)))[0]
    assert not any(p.requires_grad for p in mapped.parameters())


@pytest.mark.parametrize(("kind", "within"), [("int8", 0.02), ("nf4", 0.2)])
def test_quantised(folder, kind, within):
    pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    small = backbones.load(str(folder), loading=LoadingConfig(quantised=kind))
    layer = small.llm.encoder.block[0].layer[0].SelfAttention.q
    assert type(layer).__name__ == {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[kind]
    agree(step(small), step(backbones.load(str(folder))), within)


def test_quantised_without_its_package_names_the_extra(folder, monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"=nf4: needs bitsandbytes.*open-crema\[quantised\]"):
        backbones.load(str(folder), loading=LoadingConfig(quantised="nf4"))


def test_a_device_that_is_not_here_is_named(folder):
    for name in ("cuda:9", "gpu"):
        with pytest.raises(ConfigError, match=rf"model\.loading\.device_map={name}: no device"):
            backbones.load(str(folder), loading=LoadingConfig(device_map=name))


def test_a_saved_model_may_be_held_otherwise_than_it_was(folder, tmp_path):
    config = tiny.config("video", "audio", llm=str(folder))
    model = tiny.stir(Crema(config, backbones.of(config), tiny.WIDTHS))
    save_pretrained(model, tmp_path / "model")
    held = ModelConfig(
        loading=LoadingConfig(dtype="bf16"), encoders=EncodersConfig(dtype="fp16", resolution=28)
    )
    again = from_pretrained(tmp_path / "model", held=held)
    assert again.backbone.llm.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {p.dtype for p in again.adapters.parameters()} == {torch.float32}
    assert again.config.encoders.dtype == "fp16"
    assert again.config.encoders.resolution == model.config.encoders.resolution
    batch = tiny.batch(tiny.item(1, video=2, audio=3), tiny.item(2, video=1))
    again.train()
    out = again(batch)
    out.loss.backward()
    exact = from_pretrained(tmp_path / "model").train()(batch).loss
    assert abs(out.loss - exact) <= 0.02 * exact
    assert again.adapter("video").queries.grad.abs().sum() > 0


def test_flan_t5_by_name_from_the_hub(folder, tmp_path, monkeypatch):
    files = {f.name: f.read_bytes() for f in folder.iterdir()}
    files["pytorch_model.bin"] = b"pickled"
    with in_place(monkeypatch, tmp_path / "cache") as hub:
        hub.repositories["google/flan-t5-xl"] = Repository(private=False, files=files)
        named = backbones.load("flan-t5-xl")
        assert not any(call.endswith(".bin") for call in hub.calls)
        assert named.llm.config.dense_act_fn == "gelu"
        assert named.fingerprint == backbones.load(str(folder)).fingerprint
        assert step(named)[0] == step(backbones.load(str(folder)))[0]
        with pytest.raises(WeightsError, match=r"google/flan-t5-xxl: .*no such repository"):
            backbones.load("flan-t5-xxl")

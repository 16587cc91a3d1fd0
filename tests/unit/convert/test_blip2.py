"""BLIP-2 in: what the image path computes is BLIP-2's own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

from open_crema import config, convert
from open_crema.convert.official import stand_in_of
from open_crema.encoders.vision import VisionFolder
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.files import from_pretrained, read_model


@pytest.fixture(scope="module")
def blip2():
    torch.manual_seed(3)
    sizes = Blip2Config(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        qformer_config={
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 80,
            "encoder_hidden_size": 64,
            "vocab_size": 40,
        },
        text_config={
            "model_type": "t5",
            "vocab_size": 60,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 40,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        num_query_tokens=6,
    )
    model = Blip2ForConditionalGeneration(sizes).eval()
    for name, parameter in model.named_parameters():  # norms and biases start at 1 and 0
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.1)
        elif "query_tokens" in name or "embedding" in name or "weight" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.2)
    # LAVIS's norm; transformers' configuration has one eps for all of the vision model
    model.vision_model.post_layernorm.eps = 1e-5
    return model


@pytest.fixture(scope="module")
def folder(blip2, tmp_path_factory):
    place = tmp_path_factory.mktemp("blip2") / "hf"
    blip2.save_pretrained(place, max_shard_size="100KB")
    assert len(list(place.glob("*.safetensors"))) > 3
    return place


def lavis(blip2):
    """The same tensors by LAVIS's names, with what its text half holds."""
    found = {}
    for name, tensor in blip2.state_dict().items():
        if name.startswith("qformer."):
            new = name.replace("qformer.layernorm", "Qformer.bert.embeddings.LayerNorm")
            new = new.replace("qformer.encoder.", "Qformer.bert.encoder.")
            found[new.replace("attention.attention.", "attention.self.")] = tensor
        elif name == "query_tokens":
            found[name] = tensor
        elif name.startswith("language_projection."):
            found[name.replace("language_projection", "t5_proj")] = tensor
        elif name.startswith("vision_model.post_layernorm."):
            found[name.replace("vision_model.post_layernorm", "ln_vision")] = tensor
    found["Qformer.cls.predictions.bias"] = torch.zeros(40)
    found["Qformer.bert.embeddings.word_embeddings.weight"] = torch.zeros(40, 48)
    found["Qformer.bert.encoder.layer.0.intermediate.dense.bias"] = torch.zeros(80)
    found["Qformer.bert.embeddings.position_ids"] = torch.arange(16)[None]
    return found


@torch.no_grad()
def test_pictures_features_and_tokens_are_those_of_transformers(blip2, folder, tmp_path):
    out = tmp_path / "model"
    convert.from_blip2(folder, out, senses=("video", "depth", "audio"), rank=4)
    model = from_pretrained(out, backbone=stand_in_of(out, read_model(out).base.llm))
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    encoder = VisionFolder(out / "encoders/eva-vit-g", resolution=56)
    features = encoder.model(pixel_values=pixels).last_hidden_state
    image = blip2.vision_model(pixel_values=pixels).last_hidden_state
    adapter = model.adapter("video")
    memory = adapter.memory(features)
    assert (memory - image).abs().max() <= 1e-5
    read = adapter.read(model.qformer, memory, torch.ones(memory.shape[:2], dtype=torch.bool))
    queries = blip2.query_tokens.expand(2, -1, -1)
    expected = blip2.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state
    assert (read - expected).abs().max() <= 1e-5
    projected = adapter.projection(read)
    assert (projected - blip2.language_projection(expected)).abs().max() <= 1e-5


def test_each_sense_starts_as_the_image_and_only_video_is_trained(blip2, folder, tmp_path):
    out = tmp_path / "model"
    convert.from_blip2(folder, out, senses=("video", "depth", "audio", "point"), rank=4)
    model = from_pretrained(out, backbone=stand_in_of(out, read_model(out).base.llm))
    for sense in model.senses:
        adapter = model.adapter(sense)
        assert bool(adapter.fresh) == (sense != "video")
        assert torch.equal(adapter.queries, blip2.query_tokens[0])
        assert torch.equal(adapter.projection.weight, blip2.language_projection.weight)
        for layer in adapter.lora:
            assert not layer.query.b.any()
            assert layer.query.a.any()
            assert layer.query.a.shape == (4, 48)
    norm = blip2.vision_model.post_layernorm.weight
    assert torch.equal(model.adapter("depth").input_norm.weight, norm)
    assert model.adapter("audio").input_projection.weight.shape == (64, 768)
    assert model.adapter("point").input_norm is None
    assert model.config.fusion.kind == "self-gated"
    assert set(model.fusion.blocks) == {"depth", "audio", "point"}
    assert all(block.any() for block in model.fusion.blocks.values())
    assert model.config.prompt.layout == "packed"


def test_lavis_layout_gives_the_same_model(blip2, folder, tmp_path):
    torch.save({"model": lavis(blip2)}, tmp_path / "blip2.pth")
    layout = convert.official.Layout(heads=4, llm=str(tmp_path / "hf/llm"))
    convert.from_blip2(folder, tmp_path / "hf", senses=("video", "flow"), rank=4)
    report = convert.from_blip2(
        tmp_path / "blip2.pth", tmp_path / "lavis", senses=("video", "flow"), rank=4, layout=layout
    )
    assert len(report.dropped) == 4
    ours, theirs = (
        from_pretrained(f, backbone=stand_in_of(f, read_model(f).base.llm))
        for f in (tmp_path / "lavis", tmp_path / "hf")
    )
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        if not name.startswith("backbone."):
            assert torch.equal(tensor, expected[name]), name
    assert not (tmp_path / "lavis/llm").exists()
    assert read_model(tmp_path / "lavis").base == read_model(tmp_path / "hf").base


def test_a_row_of_the_paper_may_start_from_it(folder, tmp_path):
    senses = ("video", "flow", "depth", "normal")
    convert.from_blip2(folder, tmp_path / "model", senses=senses)
    found = read_model(tmp_path / "model").config
    row = config.load(Path(__file__).parents[3] / "configs/paper/nextqa_vfdn.yaml").model
    for name in ("senses", "lora", "fusion", "prompt", "align", "loading", "llm_dropout"):
        assert getattr(found, name) == getattr(row, name), name
    given = replace(found.encoders, vision=row.encoders.vision, resolution=224)
    assert given == row.encoders
    assert found.qformer.dropout == row.qformer.dropout
    assert found.qformer.cross_every == row.qformer.cross_every


def test_a_sense_without_video_is_a_start_too(folder, tmp_path):
    convert.from_blip2(folder, tmp_path / "model", senses=("audio",), rank=2)
    assert read_model(tmp_path / "model").config.senses == ("audio",)


def test_what_is_wrong_is_said(folder, tmp_path):
    with pytest.raises(ConfigError, match="thermal"):
        convert.from_blip2(folder, tmp_path / "m", senses=("video", "thermal"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    place = tmp_path / "cut"
    place.mkdir()
    (place / "config.json").write_text((folder / "config.json").read_text())
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="incomplete"):
        convert.from_blip2(place, tmp_path / "m")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="no query_tokens"):
        convert.from_blip2(tmp_path / "other.pth", tmp_path / "m")

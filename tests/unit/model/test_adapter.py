from __future__ import annotations

import pytest
import torch

import tiny
from open_crema import modality
from open_crema.config import LoraConfig, ModelConfig, QFormerConfig
from open_crema.errors import ConfigError
from open_crema.model.adapter import Adapter

FULL_SIZE = QFormerConfig(
    layers=12, width=768, heads=12, ffn=3072, queries=32, encoder_width=1408, dropout=0.1
)


def full_size(sense: str, encoder_width: int, rank: int = 64) -> int:
    config = ModelConfig(senses=(sense,), qformer=FULL_SIZE, lora=LoraConfig(rank=rank))
    with torch.device("meta"):
        adapter = Adapter(modality.get(sense), config, encoder_width, 2048)
    return sum(p.numel() for p in adapter.parameters())


@pytest.mark.parametrize(
    ("sense", "encoder_width", "rank", "expected"),
    [
        ("video", 1408, 64, 3_961_600),
        ("flow", 1408, 64, 3_961_600),
        ("audio", 768, 64, 5_044_352),
        ("audio", 768, 32, 3_864_704),
        ("audio", 768, 128, 7_403_648),
        # the published count has a layer norm that the released code never applies
        ("point", 1408, 64, 3_961_600 - 2 * 1408),
        ("point", 1408, 32, 2_781_952 - 2 * 1408),
    ],
)
def test_size_at_the_papers_scale(sense, encoder_width, rank, expected):
    assert full_size(sense, encoder_width, rank) == expected


def test_only_a_foreign_encoder_width_is_projected():
    model = tiny.crema("video", "audio", "point")
    assert model.adapters["video"].input_projection is None
    assert model.adapters["audio"].input_projection.weight.shape == (12, 10)
    assert model.adapters["point"].input_norm is None


def test_a_sense_that_is_named_is_projected_and_begins_as_if_it_were_not():
    plain, model = (
        tiny.crema("video", "depth", stirred=False, input_projection=named)
        for named in ([], ["depth"])
    )
    assert model.adapters["video"].input_projection is None
    model.adapters["depth"].start_as(plain.adapters["depth"])
    tokens = torch.randn(2, 4, 12)
    memories = [m.adapters["depth"].memory(tokens) for m in (plain, model)]
    assert torch.equal(*memories)
    counts = [sum(p.numel() for p in m.adapters["depth"].parameters()) for m in (plain, model)]
    assert counts[1] - counts[0] == 12 * 12 + 12


@pytest.mark.parametrize("projected", [None, True, False])
def test_a_sense_that_is_added_is_projected_as_the_configuration_or_the_caller_says(projected):
    model = tiny.crema("video", input_projection=["depth"])
    with pytest.raises(ConfigError, match="no adapter of 'flow'"):
        model.add_sense("depth", 12, like="flow", projected=projected)
    assert model.config.input_projection == ("depth",)
    model.add_sense("depth", 12, projected=projected)
    assert (model.adapters["depth"].input_projection is not None) == (projected is not False)
    assert model.config.input_projection == (() if projected is False else ("depth",))


def test_memory_projects_before_it_normalises():
    adapter = tiny.crema("video", "audio").adapters["audio"]
    tokens = torch.randn(2, 4, 10)
    expected = adapter.input_norm(adapter.input_projection(tokens))
    assert torch.equal(adapter.memory(tokens), expected)


def test_stored_half_precision_features_are_read_in_the_adapters_own():
    model = tiny.crema("video")
    tokens = torch.randn(2, 4, 12).bfloat16()
    mask = torch.ones(2, 4, dtype=torch.bool)
    out = model.adapters["video"](model.qformer, tokens, mask)
    assert out.dtype == torch.float32
    assert torch.equal(out, model.adapters["video"](model.qformer, tokens.float(), mask))


def test_a_skipped_sense_has_no_lora_and_reads_the_frozen_weights():
    model = tiny.crema("video", "audio", lora={"skip": ["video"]})
    adapter = model.adapters["video"]
    assert adapter.lora_matrices() == []
    memory, mask = torch.randn(2, 4, 12), torch.ones(2, 4, dtype=torch.bool)
    expected = model.qformer(adapter.queries, memory, mask)
    assert torch.equal(adapter.read(model.qformer, memory, mask), expected)
    assert len(model.adapters["audio"].lora_matrices()) == 2 * 2 * 2  # layers, projections, A and B


def test_all_of_an_adapter_learns_and_nothing_of_the_qformer():
    model = tiny.crema("video", "audio", "point").train()
    for sense, adapter in model.adapters.items():
        tokens = torch.randn(2, 4, tiny.WIDTHS[sense])
        adapter(model.qformer, tokens, torch.ones(2, 4, dtype=torch.bool)).square().sum().backward()
        for name, parameter in adapter.named_parameters():
            assert parameter.grad.any(), f"{sense}: {name}"
    assert all(p.grad is None for p in model.qformer.parameters())

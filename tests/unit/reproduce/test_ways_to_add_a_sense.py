"""What is trained instead of an adapter starts where it should, and reads only what is there."""

from __future__ import annotations

import pytest
import torch

import tiny
from open_crema.model.adapter import Adapter
from open_crema.reproduce.ways import INSTEAD, RANKS, Projector


def features(rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(rows, 6, width), torch.ones(rows, 6, dtype=torch.bool)


def test_an_own_qformer_starts_as_the_base_s_with_the_update_of_the_adapter_it_is_like():
    model = tiny.stir(tiny.crema("video", "audio", "flow")).eval()
    video: Adapter = model.adapter("video")
    flow: Adapter = model.adapter("flow")
    flow.start_as(video)
    flow.take_own(model.qformer)
    tokens, mask = features(3, video.encoder_width)
    with torch.no_grad():
        expected = video(model.qformer, tokens, mask)
        torch.testing.assert_close(flow(model.qformer, tokens, mask), expected)
        for parameter in model.qformer.parameters():
            parameter.add_(1.0)
        torch.testing.assert_close(flow(model.qformer, tokens, mask), expected)
    assert all(p.requires_grad for p in flow.own.parameters())


def test_a_projector_leaves_out_what_is_padding():
    projector = Projector(8, 3, 5)
    tokens, mask = features(2, 8)
    with torch.no_grad():
        plain = projector(None, tokens, mask)
        means = tokens.unflatten(1, (3, 2)).mean(dim=2)
        torch.testing.assert_close(plain, projector.projection(means))
        mask[1, 1] = False
        tokens[1, 1] = torch.nan_to_num(torch.tensor(float("inf")))
        found = projector(None, tokens, mask)
    torch.testing.assert_close(found[0], plain[0])
    torch.testing.assert_close(found[1, 0], projector.projection(tokens[1, 0]))
    torch.testing.assert_close(found[1, 1:], plain[1, 1:])


@pytest.mark.parametrize("way", [*RANKS, *INSTEAD], ids=lambda way: way.title)
def test_every_way_has_something_to_train_and_leaves_the_base_alone(way):
    if way.of_llm:
        pytest.importorskip("peft")
    model = tiny.crema("video")
    model.add_sense("audio", like="video")
    model.requires_grad_(False)
    model.adapter("audio").requires_grad_(True)
    model.fusion.blocks["audio"].requires_grad_(True)
    before = {name: p.shape for name, p in model.named_parameters()}
    way.change(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    if way.of_llm:
        assert all("lora_" in name for name in trained)
    else:
        assert all(name.startswith(("adapters.audio.", "fusion.blocks.audio")) for name in trained)
        others = {n: p.shape for n, p in model.named_parameters() if "audio" not in n}
        assert others == {n: shape for n, shape in before.items() if "audio" not in n}

"""Golden files through `crema convert`: the same model, and the same tensors back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from golden.official import Golden, GoldenTokenizer, batch_of
from open_crema import convert
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.convert import keys
from open_crema.convert.official import Layout
from open_crema.encoders.vision import VisionFolder
from open_crema.media import Frames
from open_crema.model.files import from_pretrained, read_model
from open_crema.weights import load_frozen


@pytest.fixture(scope="module")
def golden(case_file: Path) -> Golden:
    return Golden.read(case_file)


@pytest.fixture(scope="module")
def converted(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    torch.save({"model": golden.group("sd/")}, folder / "in.pth")
    size = golden.info["size"]
    layout = Layout(
        heads=size["qf"]["num_attention_heads"],
        vision_heads=size.get("vit", {}).get("num_heads"),
        placement="append" if "concat" in golden.info["task"] else "add",
    )
    order = golden.info["modalities"]
    convert.from_official(folder / "in.pth", folder / "model", order, layout=layout)
    return folder / "model"


def test_the_converted_model_has_the_loss_of_the_file(golden, converted):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config.from_pretrained(converted / "llm")
    config.dense_act_fn, config.dropout_rate = "gelu", 0.0
    llm = load_frozen(T5ForConditionalGeneration, converted / "llm", config=config)
    said = read_model(converted)
    backbone = EncoderDecoder(llm, GoldenTokenizer(golden), said.base.llm)
    model = from_pretrained(converted, backbone=backbone)
    batch = batch_of(golden, golden.group("raw/"), golden.group("in/"))
    assert abs(model(batch).loss.item() - golden.info["loss"]) <= 1e-5


def test_every_live_tensor_comes_back(golden, converted):
    convert.to_official(converted, converted.parent / "out.pth")
    back = torch.load(converted.parent / "out.pth", weights_only=True)["model"]
    order = keys.modalities(golden.info["modalities"])
    live = {k: t for k, t in golden.group("sd/").items() if not keys.is_dead(k, order)}
    assert set(back) == set(live)
    assert all(torch.equal(back[name], tensor) for name, tensor in live.items())


def test_eva_vit_gives_the_raw_features_of_the_file(golden, converted):
    pictures = [m for m in golden.modalities if m not in ("audio", "pc")]
    if not pictures or "in/rgb" not in golden.tensors or not (converted / "encoders").exists():
        pytest.skip("the file holds no pictures or no ViT")
    encoder = VisionFolder(
        converted / "encoders/eva-vit-g", resolution=golden.info["size"]["vit"]["img_size"]
    )
    assert encoder.width == golden.info["size"]["width"]
    for m in pictures:
        pixels = golden.tensors[f"in/{m}"]
        if m != "rgb":  # [B, C, T, H, W]
            pixels = pixels.transpose(1, 2)
        with torch.inference_mode():
            found = encoder.model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
        assert (found - golden.tensors[f"raw/{m}"]).abs().max() <= 1e-5
    side = encoder.resolution
    image = np.zeros((1, side, side, 3), np.uint8)
    features = encoder(Frames(image, np.array([[0.0, 1.0]])))
    assert features.tokens.shape == (1, (side // 14) ** 2 + 1, encoder.width)

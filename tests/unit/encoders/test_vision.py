"""A vision model of transformers as an encoder: of its own folder, of a BLIP-2, of the hub."""

import json

import numpy as np
import pytest
import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, CLIPVisionConfig
from transformers import CLIPVisionModel as Clip

from hub_stand_in import Repository, in_place
from open_crema.config import EncodersConfig
from open_crema.encoders import registry, vision
from open_crema.encoders.vision import EvaVitG, VisionFolder
from open_crema.errors import ConfigError, WeightsError
from open_crema.media import Frames
from open_crema.modality import get

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
PICTURES = {"hidden_size": 32, "image_size": 28, "patch_size": 14, **SIZES}


@pytest.fixture(scope="module")
def blip2(tmp_path_factory):
    """A whole BLIP-2 in shards, and its folder."""
    torch.manual_seed(1)
    config = Blip2Config(
        vision_config=PICTURES,
        qformer_config={"hidden_size": 24, "encoder_hidden_size": 32, "vocab_size": 9, **SIZES},
        text_config={
            "model_type": "t5",
            "vocab_size": 300,
            "d_model": 20,
            "d_kv": 5,
            "d_ff": 24,
            "num_layers": 1,
            "num_heads": 4,
            "tie_word_embeddings": False,
        },
        num_query_tokens=4,
    )
    model = Blip2ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.vision_model.post_layernorm.weight)
    folder = tmp_path_factory.mktemp("blip2")
    model.save_pretrained(folder, max_shard_size="20KB")
    return model, folder


def frames(count=3):
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 3), np.uint8)
    edges = np.arange(count, dtype=np.float64)
    return Frames(images, np.stack([edges, edges + 1], axis=1))


def expected(model, images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (vision.CLIP_MEAN, vision.CLIP_STD))
    own = model.vision_model
    with torch.no_grad():
        return own(pixel_values=(pixels - mean) / std).last_hidden_state


@torch.no_grad()
def test_the_vit_of_a_whole_blip2_before_its_last_norm(blip2):
    model, folder = blip2
    encoder = VisionFolder(folder, resolution=28)
    found = encoder(frames())
    assert found.tokens.shape == (3, 5, 32)
    normed = model.vision_model.post_layernorm(found.tokens)
    assert (normed - expected(model, frames().images)).abs().max() <= 1e-5
    own = sum(p.numel() for p in model.vision_model.parameters()) - 2 * 32
    assert vision.size_of(folder) == (32, own)
    assert registry.spec(str(folder)).width == 32


def test_precision_is_part_of_the_stores_key_and_not_of_what_adapters_fit(blip2):
    _, folder = blip2
    exact, half = (
        EncodersConfig(vision=str(folder), resolution=28, dtype=dtype) for dtype in ("fp32", "bf16")
    )
    one, other = (registry.encoder_for(get("video"), config) for config in (exact, half))
    assert next(other.model.parameters()).dtype == torch.bfloat16
    assert one.fingerprint != other.fingerprint
    names = [registry.identity(get("video"), config) for config in (exact, half)]
    assert names[0] == names[1]
    found, rounded = one(frames()).tokens, other(frames()).tokens
    assert rounded.dtype == torch.float32
    assert 0 < (found - rounded).abs().max() < 0.2


def test_another_vision_model_of_transformers(tmp_path):
    torch.manual_seed(0)
    model = Clip(CLIPVisionConfig(**PICTURES)).eval()
    model.save_pretrained(tmp_path)
    encoder = VisionFolder(tmp_path, resolution=28, dtype=torch.bfloat16)
    assert encoder(frames()).tokens.shape == (3, 5, 32)
    assert next(encoder.model.parameters()).dtype == torch.bfloat16


def test_what_does_not_fit_is_said(blip2, tmp_path):
    _, folder = blip2
    with pytest.raises(ConfigError, match=r"28 pixels a side; set model\.encoders\.resolution=28"):
        VisionFolder(folder, resolution=56)
    with pytest.raises(ConfigError, match=r"model\.encoders\.device=cuda:7: no device of this"):
        VisionFolder(folder, resolution=28, device="cuda:7")
    with pytest.raises(ConfigError, match="does not fit encoder 'eva-vit-g': resolution 112"):
        registry.build("eva-vit-g", EncodersConfig())
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ConfigError, match="holds no "):
        vision.size_of(tmp_path)


@pytest.fixture
def hub(blip2, tmp_path, monkeypatch):
    _, folder = blip2
    with in_place(monkeypatch, tmp_path / "cache") as hub:
        files = {f.name: f.read_bytes() for f in folder.iterdir()}
        hub.repositories[vision.REPOSITORY] = Repository(private=False, files=files)
        yield hub


def test_eva_from_the_hub_takes_the_files_of_the_vit_alone(blip2, hub):
    _, folder = blip2
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for name, file in places.items() if name.startswith("vision_model.")}
    assert len(needed) < len(set(places.values()))
    fetched = vision.fetch()
    assert {f.name for f in fetched.glob("*.safetensors")} == needed
    found = VisionFolder(fetched, resolution=28)(frames())
    assert torch.equal(found.tokens, VisionFolder(folder, resolution=28)(frames()).tokens)


def test_eva_says_what_it_is_before_anything_is_downloaded(hub):
    config = EncodersConfig(vision="eva-vit-g", resolution=224)
    encoder = registry.encoder_for(get("video"), config)
    assert isinstance(encoder, EvaVitG)
    assert (encoder.width, encoder.grid) == (1408, (16, 16))
    name, fingerprint = registry.identity(get("video"), config)
    assert (name, "blip2-flan-t5-xl" in fingerprint) == ("eva-vit-g", True)
    assert not hub.calls
    hub.refuse = 503
    with pytest.raises(WeightsError, match="cannot be had from the hub"):
        encoder(frames())

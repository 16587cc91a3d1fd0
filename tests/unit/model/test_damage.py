"""Saved models that are damaged: every damage is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from copies import ADAPTER, CONFIG, edited, retensored

import tiny
from open_crema.backbones.base import Backbone
from open_crema.errors import WeightsError
from open_crema.model import files
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, save_pretrained

SENSES = ("flow", "video", "audio")
SAID = "adapters/audio/config.json"


@pytest.fixture(scope="module")
def llm() -> Backbone:
    return tiny.backbone()


@pytest.fixture(scope="module")
def model(llm) -> Crema:
    return tiny.crema(*SENSES, llm=llm)


@pytest.fixture
def saved(model, tmp_path) -> Path:
    return save_pretrained(model, tmp_path / "model")


def truncated(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


AUDIO = f"adapters/audio/{ADAPTER}"
DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no config": (CONFIG, lambda f: (f / CONFIG).unlink()),
    "empty config": (CONFIG, lambda f: (f / CONFIG).write_text("")),
    "binary config": (CONFIG, lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00")),
    "a list for a config": (CONFIG, lambda f: (f / CONFIG).write_text("[1]")),
    "somebody else's config": (
        CONFIG,
        lambda f: (f / CONFIG).write_text('{"model_type": "llama", "hidden_size": 3}'),
    ),
    "a later format": (CONFIG, lambda f: edited(f / CONFIG, lambda d: d.update(format=3))),
    "unknown key": (CONFIG, lambda f: edited(f / CONFIG, lambda d: d["model"].update(colour=1))),
    "ill-typed value": (CONFIG, lambda f: edited(f / CONFIG, lambda d: d["model"].update(lora=1))),
    "unknown sense": (
        CONFIG,
        lambda f: edited(f / CONFIG, lambda d: d["model"].update(senses=["odour"])),
    ),
    "no Q-Former": ("qformer.safetensors", lambda f: (f / "qformer.safetensors").unlink()),
    "truncated Q-Former": ("qformer.safetensors", lambda f: truncated(f / "qformer.safetensors")),
    "empty Q-Former": (
        "qformer.safetensors",
        lambda f: (f / "qformer.safetensors").write_bytes(b""),
    ),
    "no fusion": ("fusion.safetensors", lambda f: (f / "fusion.safetensors").unlink()),
    "truncated adapter": (AUDIO, lambda f: truncated(f / AUDIO)),
    "text for an adapter": (AUDIO, lambda f: (f / AUDIO).write_text("version https://git-lfs")),
    "a folder for an adapter": (AUDIO, lambda f: ((f / AUDIO).unlink(), (f / AUDIO).mkdir())),
    "no adapter": ("adapters/audio", lambda f: shutil.rmtree(f / "adapters/audio")),
    "no adapter config": (
        "adapters/audio/config.json",
        lambda f: (f / "adapters/audio/config.json").unlink(),
    ),
    "no adapter weights": (AUDIO, lambda f: (f / AUDIO).unlink()),
    "adapter of another Q-Former": (
        "adapters/audio",
        lambda f: edited(
            f / "adapters/audio/config.json", lambda d: d["base"].update(qformer="0" * 16)
        ),
    ),
    "adapter of another LLM": (
        "adapters/audio",
        lambda f: edited(f / "adapters/audio/config.json", lambda d: d["base"].update(llm="gpt")),
    ),
    "wrong shape": (
        "adapters/audio",
        lambda f: retensored(f / AUDIO, lambda t: t.update(queries=torch.zeros(4, 16))),
    ),
    "wrong encoder width": (
        "adapters/audio",
        lambda f: edited(f / "adapters/audio/config.json", lambda d: d["encoder"].update(width=11)),
    ),
    "missing tensor": ("adapters/audio", lambda f: retensored(f / AUDIO, lambda t: t.popitem())),
    "unexpected tensor": (
        "adapters/audio",
        lambda f: retensored(f / AUDIO, lambda t: t.update(more=torch.zeros(1))),
    ),
    "no fusion block": (
        AUDIO,
        lambda f: retensored(f / AUDIO, lambda t: t.pop(files.BLOCK)),
    ),
    "wrong fusion block": (
        "adapters/audio",
        lambda f: retensored(f / AUDIO, lambda t: t.update({files.BLOCK: torch.zeros(3, 3)})),
    ),
    "base is not an object": (
        CONFIG,
        lambda f: edited(f / CONFIG, lambda d: d.update(base=None)),
    ),
    "model is not an object": (
        CONFIG,
        lambda f: edited(f / CONFIG, lambda d: d.update(model="resnet")),
    ),
    "no encoder width": (
        "adapters/audio",
        lambda f: edited(f / "adapters/audio/config.json", lambda d: d["encoder"].pop("width")),
    ),
    "encoder width is text": (
        "adapters/audio",
        lambda f: edited(
            f / "adapters/audio/config.json", lambda d: d["encoder"].update(width="x")
        ),
    ),
    "another sense's adapter in the folder": (
        "adapters/flow",
        lambda f: (
            shutil.rmtree(f / "adapters/flow"),
            shutil.copytree(f / "adapters/video", f / "adapters/flow"),
            retensored(
                f / f"adapters/flow/{ADAPTER}",
                lambda t: t.update({files.BLOCK: torch.zeros(32, 32)}),
            ),
        ),
    ),
    "a flipped bit in an adapter": (
        AUDIO,
        lambda f: retensored(f / AUDIO, lambda t: t["queries"][0].mul_(-1)),
    ),
    "an adapter of another seed": (
        AUDIO,
        lambda f: retensored(
            f / AUDIO, lambda t: t.update({n: v + 1 for n, v in t.items() if n != "fresh"})
        ),
    ),
    "a number that is not finite": (
        AUDIO,
        lambda f: retensored(f / AUDIO, lambda t: t["queries"][1].fill_(torch.nan)),
    ),
    "whole numbers": (
        AUDIO,
        lambda f: retensored(f / AUDIO, lambda t: t.update(queries=t["queries"].int())),
    ),
    "a flipped bit in the fusion bias": (
        "fusion.safetensors",
        lambda f: retensored(f / "fusion.safetensors", lambda t: t["bias"].mul_(-1)),
    ),
    "an adapter wider than any memory": (
        "adapters/audio",
        lambda f: edited(
            f / "adapters/audio/config.json", lambda d: d["encoder"].update(width=10**18)
        ),
    ),
    "a Q-Former of more layers than it has": (
        "qformer.safetensors",
        lambda f: (
            edited(f / CONFIG, lambda d: d["model"]["qformer"].update(layers=10**9)),
            [
                edited(p, lambda d: d["shape"].update(layers=10**9))
                for p in (f / "adapters").glob(f"*/{CONFIG}")
            ],
        ),
    ),
    "a configuration of a gigabyte": (
        "adapters/audio/config.json",
        lambda f: os.truncate(f / "adapters/audio/config.json", 2**30),
    ),
    "a sense out of the folder": (
        CONFIG,
        lambda f: edited(f / CONFIG, lambda d: d["model"].update(senses=["../../audio"])),
    ),
    "a sense out of the folder in an adapter": (
        "adapters/audio/config.json",
        lambda f: edited(f / "adapters/audio/config.json", lambda d: d.update(sense="../video")),
    ),
    "an adapter of another encoder": (
        "adapters/audio",
        lambda f: edited(
            f / "adapters/audio/config.json",
            lambda d: d["encoder"].update(name="yamnet", fingerprint="other"),
        ),
    ),
    "an adapter of another fusion": (
        "adapters/audio",
        lambda f: edited(
            f / "adapters/audio/config.json", lambda d: d["fusion"].update(kind="concat")
        ),
    ),
    "an adapter of another label": (
        "adapters/audio",
        lambda f: edited(
            f / "adapters/audio/config.json", lambda d: d["modality"].update(label="Noise")
        ),
    ),
    "a key that this version does not know": (
        "adapters/audio/config.json",
        lambda f: edited(f / "adapters/audio/config.json", lambda d: d.update(speed=3)),
    ),
    "an adapter of a later format": (
        "adapters/audio",
        lambda f: edited(f / "adapters/audio/config.json", lambda d: d.update(format=3)),
    ),
    "another Q-Former of the same shape": (
        "qformer.safetensors",
        lambda f: retensored(f / "qformer.safetensors", lambda t: t["norm.bias"].add_(1)),
    ),
    "a fusion file without its bias": (
        "fusion.safetensors",
        lambda f: retensored(f / "fusion.safetensors", lambda t: t.pop("bias")),
    ),
}


@pytest.mark.parametrize(
    "kind",
    [
        *DAMAGE,
    ],
)
def test_each_damage_is_an_error_that_names_the_place(llm, saved, kind):
    place, harm = DAMAGE[kind]
    harm(saved)
    with pytest.raises(WeightsError) as error:
        from_pretrained(saved, backbone=llm)
    assert str(saved / place) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere.*no such file"):
        from_pretrained(tmp_path / "nowhere")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match="file"):
        from_pretrained(tmp_path / "file")


def test_another_llm_is_refused_by_name(saved):
    with pytest.raises(WeightsError, match="tiny-llama-0, not on tiny-llama-1"):
        from_pretrained(saved, backbone=tiny.backbone(seed=1))


def test_damage_to_an_unused_adapter_does_not_matter(llm, saved):
    truncated(saved / AUDIO)
    assert from_pretrained(saved, senses=["video", "flow"], backbone=llm).senses == [
        "video",
        "flow",
    ]

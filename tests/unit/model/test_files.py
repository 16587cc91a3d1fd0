"""Saved models: whole and exact, whatever happens to who writes them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from copies import ADAPTER, CONFIG, edited, retensored, snapshot
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import tiny
from open_crema import storage
from open_crema.backbones.base import Backbone
from open_crema.config import Config, from_dict, to_dict
from open_crema.errors import CremaError, WeightsError
from open_crema.model import files
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, run_of, save_pretrained
from open_crema.model.tensors import fingerprint

SENSES = ("flow", "video", "audio")
AUDIO = f"adapters/audio/{ADAPTER}"
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


def batch():
    items = [
        tiny.item(1, options=("red", "two dogs"), video=2, audio=3, flow=2),
        tiny.item(2, options=("red", "no"), audio=1, flow=2),
    ]
    return tiny.batch(*items)


def weights(model: Crema) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": {"kind": "concat"}},
        {"fusion": {"placement": "add"}, "align": {"audio": "mean"}},
        {"lora": {"skip": ["video"]}},
        {"prompt": {"max_text_tokens": 33, "overflow": "truncate"}},
    ],
)
def test_a_model_comes_back_bit_for_bit(llm, tmp_path, options):
    model = tiny.crema(*SENSES, llm=llm, **options)
    place = save_pretrained(model, tmp_path / "a" / "b")
    assert place == tmp_path / "a" / "b"
    torch.manual_seed(99)
    back = from_pretrained(place, backbone=llm)
    assert back.config == model.config
    assert same(weights(back), weights(model))
    assert torch.equal(back(batch()).logits, model(batch()).logits)
    assert torch.equal(back.score(batch()).log_likelihood, model.score(batch()).log_likelihood)
    assert not any(m.training for m in back.modules())
    assert not any(p.requires_grad for p in back.qformer.parameters())
    again = save_pretrained(back, tmp_path / "again")
    assert snapshot(again) == snapshot(place)


def test_the_files_are_the_documented_ones(saved):
    names = {"config.json", "qformer.safetensors", "fusion.safetensors"}
    for sense in SENSES:
        names |= {f"adapters/{sense}/{ADAPTER}", f"adapters/{sense}/{CONFIG}"}
    assert set(snapshot(saved)) == names
    assert "backbone" not in str(load_file(saved / "qformer.safetensors").keys())
    assert [p.name for p in saved.parent.iterdir()] == ["model"], "nothing lies beside it"


def test_a_grown_or_shrunk_model_comes_back(llm, tmp_path):
    model = tiny.crema("video", "flow", llm=llm)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    for step in ("grown", "stirred", "shrunk"):
        if step == "stirred":
            tiny.stir(model)
        if step == "shrunk":
            model.remove_sense("flow")
        model.eval()
        back = from_pretrained(save_pretrained(model, tmp_path / step), backbone=llm)
        assert torch.equal(back(batch()).logits, model(batch()).logits)


@pytest.mark.parametrize("kept", [("video",), ("audio",), ("video", "flow"), ("flow", "audio")])
def test_a_subset_of_senses_is_the_model_asked_of_these_alone(model, llm, saved, kept):
    part = from_pretrained(saved, senses=kept, backbone=llm)
    assert set(part.senses) == set(kept)
    expected = model(batch().only(kept)).logits
    assert torch.equal(part(batch()).logits, expected)


def test_a_subset_names_what_is_not_there(llm, saved):
    with pytest.raises(WeightsError, match=r"no adapter for depth; it has flow, video, audio"):
        from_pretrained(saved, senses=["video", "depth"], backbone=llm)


def test_half_precision_on_disk_is_read_as_single(llm, saved):
    """And is the same adapter as far as its fingerprint goes, if its values are."""
    path = saved / AUDIO

    def halve(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor if tensor.dtype == torch.bool else tensor.bfloat16()

    retensored(path, halve)
    said = fingerprint(load_file(path))
    edited(path.with_name(CONFIG), lambda d: d.update(fingerprint=said))
    back = from_pretrained(saved, backbone=llm)
    assert {p.dtype for p in back.adapters["audio"].parameters()} == {torch.float32}
    assert torch.isfinite(back(batch()).loss)


def test_what_was_not_trained_since_is_written_as_it_was(llm, saved, tmp_path):
    """Even in other company, and whoever trained that: nothing published moves."""
    model = from_pretrained(saved, senses=["video", "audio"], backbone=llm)
    model.add_sense("depth", tiny.WIDTHS["depth"])
    with torch.no_grad():
        model.adapter("depth").queries.add_(1)
        model.adapter("depth").fresh.fill_(False)
    run = from_dict({"seed": 7, "model": to_dict(model.config)})
    files = snapshot(save_pretrained(model, tmp_path / "grown", run=run))
    before = snapshot(saved)
    for name in (f"adapters/{s}/{f}" for s in ("video", "audio") for f in (ADAPTER, CONFIG)):
        assert files[name] == before[name]
    new = json.loads(files["adapters/depth/config.json"])
    assert new["run"] == {"scope": "all", "seed": 7}
    assert set(new["trained_with"]) == {"video", "audio"}
    for other, said in new["trained_with"].items():
        assert said == json.loads(before[f"adapters/{other}/config.json"])["fingerprint"]


def test_a_subset_saved_again_remembers_the_company_of_its_training(llm, saved, tmp_path):
    for kept in (["audio"], ["flow", "audio"]):
        model = from_pretrained(saved, senses=kept, backbone=llm)
        again = save_pretrained(model, tmp_path / "again")
        for sense in kept:
            old, new = (
                json.loads((f / f"adapters/{sense}/config.json").read_text())
                for f in (saved, again)
            )
            assert new == old
        back = from_pretrained(again, backbone=llm)
        assert torch.equal(back(batch()).logits, model(batch()).logits)


def test_an_adapter_that_was_trained_on_is_another_one(llm, saved, tmp_path):
    model = from_pretrained(saved, backbone=llm)
    with torch.no_grad():
        model.adapter("audio").queries.mul_(1.5)
    again = save_pretrained(model, tmp_path / "again")
    old, new = (json.loads((f / "adapters/audio/config.json").read_text()) for f in (saved, again))
    assert new["fingerprint"] != old["fingerprint"]
    untouched = json.loads((again / "adapters/flow/config.json").read_text())
    assert untouched["trained_with"]["audio"] == old["fingerprint"]


def test_an_untrained_adapter_says_so_and_is_nobodys_company(llm, tmp_path):
    model = tiny.crema("video", llm=llm)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    saved = save_pretrained(model, tmp_path / "m")
    new, old = (
        json.loads((saved / f"adapters/{s}/config.json").read_text()) for s in ("audio", "video")
    )
    assert (new["fresh"], old["fresh"]) == (True, False)
    assert new["trained_with"] == old["trained_with"] == {}


def test_the_configured_encoder_is_the_one_of_the_training(llm, tmp_path):
    """Features of another resolution mean something else; the widths alone do not tell."""
    config = tiny.config("video", "audio")
    saved = save_pretrained(Crema(config, llm), tmp_path / "m")
    said = json.loads((saved / "adapters/video/config.json").read_text())["encoder"]
    assert (said["name"], said["width"]) == ("dinov2-small", 384)
    assert "112px" in said["fingerprint"]
    assert from_pretrained(saved, backbone=llm).senses == ["video", "audio"]
    edited(saved / CONFIG, lambda d: d["model"]["encoders"].update(resolution=224))
    with pytest.raises(WeightsError, match=r"adapters/video: .*112px.*'video' is .*224px"):
        from_pretrained(saved, backbone=llm)


def test_a_model_of_the_first_format_is_refused_by_name(llm, saved):
    edited(saved / CONFIG, lambda d: d.update(format=1))
    with pytest.raises(WeightsError, match=r"config.json: .*format 1.*train it again"):
        from_pretrained(saved, backbone=llm)


def test_the_run_that_made_it_is_kept(model, tmp_path):
    run = Config(name="exp", model=model.config)
    assert run_of(save_pretrained(model, tmp_path / "m", run=run)) == run
    assert run_of(save_pretrained(model, tmp_path / "n")) == Config(model=model.config)


# Writing


class Killed(BaseException):
    pass


def test_a_writer_killed_midway_leaves_the_old_model_whole(model, llm, saved, monkeypatch):
    before, calls = snapshot(saved), []

    def dying(path, tensors):
        calls.append(path)
        if len(calls) == 3:
            raise Killed
        save_file({n: t.detach().contiguous() for n, t in tensors.items()}, path)

    monkeypatch.setattr(files, "write_tensors", dying)
    other = tiny.crema(*SENSES, llm=llm, seed=5)
    with pytest.raises(Killed):
        save_pretrained(other, saved)
    assert snapshot(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    assert same(weights(from_pretrained(saved, backbone=llm)), weights(model))


def test_a_model_whose_writer_was_killed_between_two_renames_is_found(llm, saved, model):
    saved.rename(saved.with_name(".model.old-0123456789ab"))
    assert same(weights(from_pretrained(saved, backbone=llm)), weights(model))
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_new_model_replaces_all_of_the_old_one(llm, saved):
    other = tiny.crema("video", llm=llm, seed=5)
    save_pretrained(other, saved)
    assert not (saved / "adapters" / "audio").exists()
    assert not (saved / "fusion.safetensors").exists()
    assert same(weights(from_pretrained(saved, backbone=llm)), weights(other))
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_folder_of_other_things_is_not_replaced(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with suppress(CremaError):
        save_pretrained(model, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match="file"):
        save_pretrained(model, tmp_path / "file" / "model")


def test_a_fingerprint_tells_weights_apart(model):
    one = fingerprint(model.qformer)
    assert one == fingerprint(tiny.crema(*SENSES).qformer)
    other = tiny.crema(*SENSES)
    with torch.no_grad():
        other.qformer.norm.bias[3] += 1e-6
    assert fingerprint(other.qformer) != one
    assert len(one) == 16


def test_a_folder_of_somebody_elses_model_is_not_replaced(model, tmp_path):
    (tmp_path / CONFIG).write_text('{"model_type": "t5"}')
    (tmp_path / "model.safetensors").write_text("gigabytes")
    with suppress(CremaError):
        save_pretrained(model, tmp_path)
    assert (tmp_path / "model.safetensors").exists()


def test_a_file_is_not_replaced_by_a_folder(model, tmp_path):
    (tmp_path / "notes").write_text("years of work")
    with suppress(CremaError):
        save_pretrained(model, tmp_path / "notes")
    assert (tmp_path / "notes").is_file()


def test_a_full_disk_is_an_error_that_names_the_place(model, tmp_path, monkeypatch):
    def full(tensors, path, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(storage, "save_file", full)
    with pytest.raises(WeightsError, match="model"):
        save_pretrained(model, tmp_path / "model")

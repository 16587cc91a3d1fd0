"""To the hub and back, against a local stand-in of its HTTP calls."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import hub_stand_in
import tiny
from open_crema.config import Config, DataConfig, load
from open_crema.errors import WeightsError
from open_crema.model import hub as client
from open_crema.model.exchange import add_adapter, export_adapter, remove_adapter
from open_crema.model.files import from_pretrained, save_pretrained
from open_crema.model.publish import push_to_hub

SENSES = ("video", "audio", "flow")


@pytest.fixture(scope="module")
def llm():
    return tiny.backbone()


@pytest.fixture(scope="module")
def model(llm):
    return tiny.crema(*SENSES, llm=llm)


@pytest.fixture
def saved(model, tmp_path) -> Path:
    run = Config(
        model=model.config,
        out="/home/ada/secret",
        data=DataConfig(train="/home/ada/train.jsonl", media_root="/home/ada", frames=3),
    )
    return save_pretrained(model, tmp_path / "model", run=run)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_stand_in.in_place(monkeypatch, tmp_path / "hub-cache") as hub:
        yield hub


def outputs(model):
    items = [tiny.item(1, video=2, audio=3, flow=2), tiny.item(2, audio=1, flow=2)]
    return model(tiny.batch(*items)).logits


def snapshot(folder: Path) -> dict[str, bytes]:
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}


def test_a_model_goes_up_and_comes_back_bit_for_bit(model, llm, saved, hub):
    (saved / "notes.txt").write_text("mine")
    (saved / "adapters" / "audio" / "draft.safetensors").write_text("mine")
    shutil.copytree(saved / "adapters" / "audio", saved / "adapters" / "old")
    address = push_to_hub(saved, "ada/senses", message="first", licence="bsd-3-clause")
    pushed = hub.repositories["ada/senses"]
    assert address == f"{hub.url}/ada/senses/commit/{pushed.sha}"
    assert pushed.messages == ["first"]
    assert not pushed.private
    here = snapshot(saved)
    names = {n for n in here if not ("notes" in n or "draft" in n or "/old/" in n)}
    assert set(pushed.files) == names | {"README.md"}
    for name in names - {"run.yaml"}:
        assert pushed.files[name] == here[name]

    back = from_pretrained("ada/senses", backbone=llm)
    assert torch.equal(outputs(back), outputs(model))
    part = from_pretrained("ada/senses", senses=["audio"], revision=pushed.sha, backbone=llm)
    assert part.senses == ["audio"]


def test_paths_of_this_computer_stay_here(saved, hub, tmp_path):
    push_to_hub(saved, "ada/senses")
    files = hub.repositories["ada/senses"].files
    assert not any(b"/home/ada" in content for content in files.values())
    (tmp_path / "run.yaml").write_bytes(files["run.yaml"])
    run = load(tmp_path / "run.yaml")
    assert (run.data.frames, run.model) == (3, load(saved / "run.yaml").model)


def test_the_card_says_what_it_is_and_how_to_use_it(saved, hub):
    push_to_hub(saved, "ada/senses", licence="bsd-3-clause")
    card = hub.repositories["ada/senses"].files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: open-crema\nlicense: bsd-3-clause\n")
    assert 'from_pretrained("ada/senses")' in card
    for sense in SENSES:
        assert f"| {sense} |" in card
    with pytest.raises(WeightsError, match="licence"):
        push_to_hub(saved, "ada/senses", licence="mine: all\nprivate: yes")


def test_pushing_again_takes_away_what_the_model_lost(saved, hub, model, llm):
    push_to_hub(saved, "ada/senses")
    remove_adapter(saved, "flow")
    push_to_hub(saved, "ada/senses")
    assert not any("flow" in name for name in hub.repositories["ada/senses"].files)
    assert from_pretrained("ada/senses", backbone=llm).senses == ["video", "audio"]


def test_a_live_model_and_a_private_place(model, llm, hub, monkeypatch):
    push_to_hub(model, "ada/hidden", private=True, token=hub.token)
    assert hub.repositories["ada/hidden"].private
    assert torch.equal(outputs(from_pretrained("ada/hidden", backbone=llm)), outputs(model))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-other")
    with pytest.raises(WeightsError, match=r"ada/hidden: is no folder.*no such repository"):
        from_pretrained("ada/hidden", backbone=llm)


def test_an_adapter_goes_up_and_into_another_copy_of_its_base(model, llm, saved, hub, tmp_path):
    other = tmp_path / "other"
    remove_adapter(saved, "audio", out=other)
    exported = export_adapter(saved, "audio", tmp_path / "audio")
    (exported / "notes.txt").write_text("mine")
    push_to_hub(exported, "ada/audio")
    files = hub.repositories["ada/audio"].files
    assert set(files) == {"adapter.safetensors", "config.json", "README.md"}
    assert b"crema adapter add MODEL ada/audio" in files["README.md"]
    assert add_adapter(other, "ada/audio") == []
    assert torch.equal(outputs(from_pretrained(other, backbone=llm)), outputs(model))
    assert not any(path.is_symlink() for path in other.rglob("*"))


def test_what_is_damaged_does_not_go_up(saved, hub, tmp_path):
    exported = export_adapter(saved, "audio", tmp_path / "audio")
    shutil.copy(saved / "adapters/flow/adapter.safetensors", exported)
    with pytest.raises(WeightsError, match=r"audio/adapter\.safetensors"):
        push_to_hub(exported, "ada/audio")
    for name in ("qformer.safetensors", "fusion.safetensors", "adapters/flow/adapter.safetensors"):
        whole = (saved / name).read_bytes()
        (saved / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(WeightsError, match=name):
            push_to_hub(saved, "ada/senses")
        (saved / name).write_bytes(whole)
    (saved / "fusion.safetensors").unlink()
    (tmp_path / "secret").write_text("a password")
    (saved / "fusion.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(WeightsError, match=r"fusion\.safetensors"):
        push_to_hub(saved, "ada/senses")
    assert hub.calls == []


@pytest.mark.parametrize("code", [401, 403])
def test_no_access_is_one_line_that_says_what_to_do(saved, hub, code, llm):
    hub.refuse = code
    for use in (lambda: push_to_hub(saved, "ada/x"), lambda: from_pretrained("ada/x")):
        with pytest.raises(WeightsError, match=r"ada/x: .*no access; log in with") as error:
            use()
        assert "\n" not in str(error.value)


def test_what_is_not_there_is_one_line(hub, saved):
    with pytest.raises(WeightsError, match=r"ada/nothing: is no folder.*no such repository"):
        from_pretrained("ada/nothing")
    push_to_hub(saved, "ada/senses")
    with pytest.raises(WeightsError, match=r"ada/senses: .*at v9: it has no such revision"):
        from_pretrained("ada/senses", revision="v9")


def test_without_a_network_the_cache_serves_or_it_is_said(hub, saved, llm, monkeypatch, model):
    push_to_hub(saved, "ada/senses")
    from_pretrained("ada/senses", backbone=llm)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    calls = len(hub.calls)
    assert torch.equal(outputs(from_pretrained("ada/senses", backbone=llm)), outputs(model))
    with pytest.raises(WeightsError, match=r"ada/other: .*switched off \(HF_HUB_OFFLINE\)"):
        from_pretrained("ada/other")
    with pytest.raises(WeightsError, match="ada/senses: cannot be pushed: the hub is switched off"):
        push_to_hub(saved, "ada/senses")
    assert len(hub.calls) == calls


def test_a_hub_that_does_not_answer(saved, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(WeightsError, match=r"pushed: the hub cannot be reached .*; check the net"):
        push_to_hub(saved, "ada/senses", token="hf_none")


def test_names_that_are_none_never_reach_the_hub(hub, saved):
    for name in ("../../etc", "model", "a/b/c", "/abs/path", "user/.."):
        with pytest.raises(WeightsError, match=r"no such file"):
            from_pretrained(name)
        with pytest.raises(WeightsError, match="write user/name"):
            push_to_hub(saved, name)
    with pytest.raises(WeightsError, match="a revision is of a hub repository"):
        client.local(saved, "main")
    assert hub.calls == []

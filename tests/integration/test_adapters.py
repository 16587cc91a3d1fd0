"""Adapters taken out, published, and put into another copy of the base, by command."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
from command_line import tree

from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")


def test_out_of_one_copy_and_into_another(crema, place, model):
    question = [place / "clip.mp4", "What colour is it?", "--model", model, "--json"]
    whole, before = crema("ask", *question), tree(model)
    rows = json.loads(crema("adapter", "list", model, "--json").out)
    assert [(r["sense"], r["encoder"]["name"], r["notes"]) for r in rows] == [
        ("video", "dinov2-small", []),
        ("audio", "yamnet", []),
    ]
    assert set(rows[1]["trained_with"]) == {"video"}
    assert rows[1]["fingerprint"] in crema("adapter", "list", model).out

    assert crema("adapter", "export", model, "audio", place / "audio").out == f"{place}/audio\n"
    assert crema("adapter", "remove", model, "audio").code == 0
    deaf = crema("ask", *question)
    assert list(json.loads(deaf.out)["senses"]) == ["video"]

    added = crema("adapter", "add", model, place / "audio")
    assert (added.code, added.err) == (0, "")
    assert tree(model) == before
    again = json.loads(crema("ask", *question).out)
    assert again["answer"] == json.loads(whole.out)["answer"]
    assert list(again["senses"]) == ["video", "audio"]
    assert crema("eval", model).code == 0


def test_what_does_not_fit_is_one_line(crema, place, model):
    crema("adapter", "export", model, "audio", place / "audio")
    crema("adapter", "add", model, place / "audio").refused("'audio' already", "--replace")
    crema("adapter", "remove", model, "audoi").refused("did you mean 'audio'")
    crema("adapter", "list", place / "audio").refused(
        "audio/config.json", "not an Open CREMA model"
    )
    crema("adapter", "add", model, model).refused("is a model, not an adapter")
    (place / "thesis.tex").write_text("years of work")
    crema("adapter", "export", model, "audio", place).refused("other things than an adapter")
    crema("push", model, "nowhere").refused("write user/name")
    assert crema("adapter").code == 2


def test_an_adapter_that_is_forced_in_says_what_it_was_trained_with(crema, place, model):
    crema("adapter", "export", model, "audio", place / "audio")
    path = place / "audio" / "config.json"
    said = json.loads(path.read_text())
    said["trained_with"]["video"] = "0" * 16
    path.write_text(json.dumps(said))
    add = ["adapter", "add", model, place / "audio", "--replace", "--out", place / "new"]
    crema(*add).refused("primary sense 'video'", "--force")
    assert not (place / "new").exists()
    forced = crema(*add, "--force")
    assert (forced.code, forced.out) == (0, f"{place}/new\n")
    assert forced.err == "note: was trained beside another video adapter\n"
    assert "audio: was trained beside another video" in crema("adapter", "list", place / "new").err


def test_a_model_on_the_hub_is_asked_and_scored(crema, place, model, monkeypatch):
    question = [place / "clip.mp4", "What colour is it?", "--json", "--model"]
    here = json.loads(crema("ask", *question, model).out)
    cache = place / "cache" / "snapshot"
    shutil.move(model, cache)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(cache))
    monkeypatch.chdir(place)
    assert json.loads(crema("ask", *question, "ada/model").out)["answer"] == here["answer"]
    assert crema("eval", "run.yaml", "--model", "ada/model").code == 0
    assert (place / "out" / "results" / "results.json").exists()
    assert not (place / "cache" / "results").exists()

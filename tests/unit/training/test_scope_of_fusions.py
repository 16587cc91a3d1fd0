"""Scope "own" with each kind of fusion."""

from __future__ import annotations

import pytest
from test_loop import moved, own
from test_scope import PRESENCE, batch_of, grown, published, results, same, tensor_files, trainer

import tiny
from open_crema.errors import ConfigError
from open_crema.model.files import from_pretrained
from open_crema.training.scope import new_senses

KINDS = ["ungated", "linear", "mixture-of-experts", "cross-attention"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", [("video", "flow"), ("video",)], ids=["two", "one"])
def test_only_the_new_adapter_and_its_block_move(tmp_path, kind, base):
    folder = published(tmp_path, *base, fusion={"kind": kind})
    before = tensor_files(folder)
    old = from_pretrained(folder, backbone=tiny.backbone())
    model = grown(folder, "audio")
    start = own(model)
    saved = trainer(tmp_path, model, epochs=2, weight_decay=0.5).run()
    after = tensor_files(saved)
    assert {p: after[p] for p in before} == before
    trained = from_pretrained(saved, backbone=tiny.backbone())
    changed = moved(start, trained)
    assert "fusion.blocks.audio" in changed
    assert all(n.startswith(("adapters.audio.", "fusion.blocks.audio")) for n in changed)
    everything = batch_of(PRESENCE)
    without = everything.only(base)
    assert same(results(trained, without), results(old, without))
    assert not same(results(trained, everything)[1:2], results(old, everything)[1:2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["fan-in", "identity"])
def test_a_sense_that_led_is_silenced_by_a_new_leader_unless_its_block_lets_it_be_heard(
    tmp_path, kind, init
):
    model = grown(published(tmp_path, "flow", fusion={"kind": kind, "init": init}), "video")
    if kind in ("mixture-of-experts", "cross-attention") or init == "identity":
        assert new_senses(model) == ["video"]
    else:
        with pytest.raises(ConfigError, match="video would lead where flow led until now"):
            new_senses(model)

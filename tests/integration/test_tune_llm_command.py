"""``crema tune-llm``: the folder that it writes is an LLM by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from open_crema import backbones, weights
from open_crema.backbones import smollm2

pytest.importorskip("peft")
pytestmark = pytest.mark.skipif(
    weights.state(smollm2.NAME) != "ready",
    reason=f"{smollm2.NAME} is not in the cache; run `{weights.FETCH_COMMAND}`",
)


def test_what_it_writes_is_loaded_with_its_own_template(crema, tmp_path):
    out = tmp_path / "llm"
    said = crema("tune-llm", "--out", out, "--steps", "1", "--threads", "1")
    assert said.code == 0, said
    assert not (out / "paused").exists()
    stock, tuned = backbones.load(backbones.STOCK), backbones.load(str(out))
    assert stock.fingerprint != tuned.fingerprint
    assert len(tuned.before) + len(tuned.after) < len(stock.before) + len(stock.after)
    assert tuned.target("red")[0] == stock.encode(" red")[0]
    crema("tune-llm", "--out", out, "--steps", "1").refused("is not empty; choose another folder")
    crema("tune-llm", "--out", tmp_path / "no", "--steps", "0").refused("give at least 1")


def test_it_goes_on_from_the_one_that_ships(crema, tmp_path):
    shipped = backbones.load(backbones.CAPTIONS)
    init = Path(str(files("open_crema") / "assets" / backbones.CAPTIONS))
    said = crema("tune-llm", "--init", init, "--out", tmp_path / "llm", "--steps", "1")
    assert said.code == 0, said
    name = "model.layers.10.self_attn.q_proj.weight"
    stock, before, after = (
        dict(llm.llm.named_parameters())[name]
        for llm in (backbones.load(backbones.STOCK), shipped, backbones.load(str(tmp_path / "llm")))
    )
    assert not torch.equal(after, before)
    assert (after - before).norm() < 0.2 * (before - stock).norm()  # one step from where it was
    crema("tune-llm", "--init", tmp_path, "--out", tmp_path / "no").refused(str(tmp_path))

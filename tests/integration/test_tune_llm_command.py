"""``crema tune-llm``: the folder that it writes is an LLM by name."""

from __future__ import annotations

import pytest

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

"""``benchmarks/train_step.py`` at the smallest size: what it prints is what ran."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "train_step.py"
TINY = "--vit 1x64 --image 28 --qformer 2x64 --t5 1x64 --rank 2 --queries 2 --frames 1 --batch 1"


def run(*arguments: str) -> dict:
    command = [sys.executable, str(SCRIPT), *TINY.split(), "--iters", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_the_plain_loop_makes_the_same_step_with_more_operations():
    found = run("--senses", "video,flow,depth", "--oracle")
    plain = found["oracle"]
    assert plain["encode"]["gmac"] > plain["cached"]["gmac"] > found["gmac"] > 0
    assert len(found["losses_of_first_step"]) == 3
    for way in plain.values():
        assert way["largest_loss_difference"] == 0
        assert way["sum_of_weights"] == found["sum_of_weights"]
    assert found["features"] == "cached"
    assert found["cpu_seconds"]["min"] <= found["cpu_seconds"]["median"]

"""Scripts of ``benchmarks/`` at their smallest size: what they print is what ran."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = "--vit 1x64 --image 28 --qformer 2x64 --t5 1x64 --rank 2 --queries 2 --frames 1 --batch 1"


def run(*arguments: str) -> dict:
    command = [
        sys.executable,
        str(SCRIPTS / "train_step.py"),
        *TINY.split(),
        "--iters",
        "1",
        *arguments,
    ]
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


def test_exact_words_answer_what_the_video_cannot(tmp_path):
    command = [sys.executable, str(SCRIPTS / "exact_words.py"), "depth", "--test", "2"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    exact = found["video + depth, exact words"]
    assert exact["depth_farthest"] == exact["depth_gap"] == [2, 2]
    assert found["video"]["depth_gap"][0] < 2  # two clips that look alike
    assert found["video + depth, adapter"].keys() == exact.keys() == found["video"].keys()

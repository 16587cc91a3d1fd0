"""``crema train`` as a process of its own, with nothing replaced by stand-ins: asked to stop while
it makes features and while it trains, killed at no chosen moment, it ends as if it had not been."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import tree, write_lines, write_yaml

import open_crema
import tiny
from open_crema import modality
from tiny import one_seeded_thread  # noqa: F401

# Two senses of a third party, whose encoder takes its time where a test wants it to.
PACKAGE = """
import os
import time

import numpy as np
import torch

from open_crema import Features
from open_crema.modality import Modality


class Encoder:
    width = 12

    def __call__(self, signal):
        time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
        times = torch.arange(len(signal), dtype=torch.float64)[:, None] + torch.tensor([0.0, 1.0])
        tokens = torch.from_numpy(signal)[:, None]
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), times)


class Beat(Encoder):
    name = fingerprint = "beat-1"


class Wave(Encoder):
    name = fingerprint = "wave-1"


def read(path, clip):
    return np.load(path)


beat = Modality("beat", "Beat", Beat, read, alignment="overlap")
wave = Modality("wave", "Wave", Wave, read, alignment="overlap")
"""
ENTRY_POINTS = "[open_crema.modalities]\nbeat = crema_toy:beat\nwave = crema_toy:wave\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that holds the installed package."""
    about = tmp_path / "site" / "crema_toy-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: crema-toy\nVersion: 1.2\n")
    (about / "RECORD").write_text("crema_toy.py,,\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (about.parent / "crema_toy.py").write_text(PACKAGE)
    return about.parent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Its configuration: a tiny LLM in a folder, eight questions, 4 steps an epoch."""
    tiny.save_llm(tiny.llama(), tmp_path / "llm")
    draw, lines = np.random.default_rng(0), []
    for i in range(8):
        media = {sense: f"{i}.{sense}.npy" for sense in ("beat", "wave")}
        for name in media.values():
            np.save(tmp_path / name, draw.normal(size=(3, 12)).astype(np.float32))
        answer = ("red", "dog")[i % 2]
        lines.append({"media": media, "question": "what is it", "answer": answer})
    write_lines(tmp_path / "train.jsonl", *lines)
    shape = {"layers": 1, "width": 16, "heads": 2, "ffn": 16, "queries": 2, "encoder_width": 12}
    return write_yaml(
        tmp_path / "run.yaml",
        {
            "out": "out",
            "model": {"llm": "llm", "senses": ["beat", "wave"], "qformer": shape},
            "data": {"train": "train.jsonl", "store": "store", "workers": 1},
            "train": {"epochs": 12, "batch_size": 2, "threads": 1, "checkpoint_every": 3},
        },
    )


def result(folder: Path) -> dict[str, bytes]:
    files = tree(folder / "out" / "model")
    return {**files, "log.jsonl": (folder / "out" / "log.jsonl").read_bytes()}


def test_stopped_and_killed_it_ends_the_same(tmp_path, site, run, monkeypatch):
    def life(seen: Callable[[], bool], end: str, **variables: str) -> tuple[int, str, str]:
        """Begins (or continues), and ends the process once something is seen."""
        paths = [str(site), str(Path(open_crema.__file__).parents[1])]
        process = subprocess.Popen(
            [sys.executable, "-m", "open_crema.cli", "train", "run.yaml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and not seen():
            time.sleep(0.02)
        getattr(process, end)()
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err.splitlines()[-1]

    def steps() -> int:
        timing = tmp_path / "out" / "timing.jsonl"
        return timing.read_text().count("\n") if timing.exists() else 0

    def features() -> int:
        return len(list((tmp_path / "store").rglob("*.safetensors")))

    again = "run the same command again to continue"
    stopped = life(lambda: features() > 1, "terminate", TOY_SECONDS="0.2")
    assert stopped == (0, "", f"crema: stopped by SIGTERM; {again}")
    assert 1 < features() < 16
    assert not (tmp_path / "out").exists()

    code, out, said = life(lambda: steps() > 4, "terminate")
    assert (code, out) == (0, "")
    assert said.startswith("crema: out: stopped by SIGTERM and saved (step ")
    assert said.endswith(again)
    done = steps()
    assert 4 < done < 48

    assert life(lambda: steps() > done + 6, "kill")[0] == -9
    assert steps() < 48 + 2

    monkeypatch.setattr(modality, "_registry", dict(modality._registry))
    monkeypatch.setattr(modality, "_entry_points_read", False)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    from open_crema import cli

    assert cli.main(["train", "run.yaml"]) == 0
    cut = result(tmp_path)
    assert cli.main(["train", "run.yaml", "--fresh"]) == 0
    assert cut == result(tmp_path)

"""``torchrun`` with two processes on the CPU: stopped and begun again, it makes the model that one
process makes of twice as many micro-batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import write_yaml
from test_process import run, site  # noqa: F401

import open_crema
from open_crema import modality
from open_crema.storage import read_tensors
from open_crema.training import checkpoint
from tiny import one_seeded_thread  # noqa: F401

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
CREMA = ["-m", "open_crema.cli"]


@pytest.fixture
def together(tmp_path: Path, site: Path, run: Path) -> Path:  # noqa: F811
    """The run, with validation, and without what the processes draw each for themselves."""
    said = yaml.safe_load(run.read_text())
    said["model"] |= {"lora": {"dropout": 0.0}}
    said["model"]["qformer"] |= {"dropout": 0.0}
    said["data"] |= {"validation": "held_out.jsonl"}
    said["train"] |= {"batch_size": 1, "epochs": 6, "optimizer": "sgd", "lr": 0.05}
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "held_out.jsonl").write_text("\n".join(lines[:3]) + "\n")  # 2 and 1
    return write_yaml(tmp_path / "run.yaml", said)


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    paths = [str(folder / "site"), str(Path(open_crema.__file__).parents[1])]
    return subprocess.Popen(
        [*TORCHRUN, *CREMA, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_two_processes_train_one_model(tmp_path, together, monkeypatch):
    timing = tmp_path / "out" / "timing.jsonl"
    process = start(tmp_path, "train", "run.yaml", TOY_SECONDS="0.05")
    while process.poll() is None and not (timing.exists() and timing.read_text().count("\n") > 5):
        time.sleep(0.02)
    process.terminate()  # as a scheduler does; torchrun passes it on
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert "stopped by SIGTERM and saved" in err
    assert 5 < checkpoint.latest(tmp_path / "out" / "checkpoints").step < 24

    process = start(tmp_path, "train", "run.yaml")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "out/model\n"
    assert (tmp_path / "out" / "curves.png").exists()
    assert not list((tmp_path / "out").glob(".*-*"))

    monkeypatch.setattr(modality, "_registry", dict(modality._registry))
    monkeypatch.setattr(modality, "_entry_points_read", False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    from open_crema import cli

    assert cli.main(["train", "run.yaml", "out=alone", "train.accumulate=2"]) == 0
    for ours, alone in zip(lines(tmp_path / "out"), lines(tmp_path / "alone"), strict=True):
        assert ours.keys() == alone.keys()
        for key in ours.keys() - {"loss", "gradient"}:
            assert ours[key] == alone[key]
        for key in ours.keys() & {"loss", "gradient"}:
            assert ours[key] == pytest.approx(alone[key], rel=1e-4)
    ours, alone = (
        read_tensors(checkpoint.latest(tmp_path / f / "checkpoints").place / "model.safetensors")
        for f in ("out", "alone")
    )
    for name, tensor in alone.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-5, rtol=1e-3)


def test_a_fault_of_one_ends_all_and_says_what(tmp_path, together):
    process = start(tmp_path, "train", "run.yaml", "train.lr=1e30", "train.clip=0")
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert out == ""
    assert "lower train.lr or set train.clip" in err


def test_what_is_for_one_process_is_refused(tmp_path, together):
    out, err = start(tmp_path, "eval", "run.yaml").communicate(timeout=60)
    assert out == ""
    assert (
        "crema: error: crema eval runs in one process; torchrun is for `crema train` alone" in err
    )

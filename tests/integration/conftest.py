"""The command line as a user runs it, and small stand-ins for what takes long to load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUESTION, SHAPE, Crema, Ran, write_lines, write_yaml

import media_factory
import tiny
from open_crema import backbones, cli, experiment
from open_crema.features import Features
from open_crema.model.files import save_pretrained


@pytest.fixture
def crema(capsys: pytest.CaptureFixture[str]) -> Crema:
    """``crema("train", "run.yaml")`` runs that command in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as usage:  # argparse's own
            code = int(usage.code or 0)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


class Eyes:
    """A stand-in for a frozen vision encoder: the mean colour of each picture, as waves."""

    name, width, fingerprint = "mean-colour", 384, "mean-colour"

    def __call__(self, media: Any) -> Features:
        colours = torch.from_numpy(media.images.mean(axis=(1, 2))).float() / 255  # [S, 3]
        waves = torch.sin(colours[:, :, None] * torch.arange(1.0, 385))
        mask = torch.ones(waves.shape[:2], dtype=torch.bool)
        return Features(waves, mask, torch.from_numpy(media.times))


class Ears:
    """A stand-in for a frozen audio encoder: the loudness of each half second, as waves."""

    name, width, fingerprint = "loudness", 1024, "loudness"

    def __call__(self, media: Any) -> Features:
        sound = torch.from_numpy(media.samples)
        windows = sound.split(media.rate // 2)
        loud = torch.stack([w.float().pow(2).mean().sqrt() for w in windows])
        start = media.start + torch.arange(len(windows), dtype=torch.float64) / 2
        return Features(
            torch.sin(loud[:, None, None] * torch.arange(1.0, 1025)),
            torch.ones(len(windows), 1, dtype=torch.bool),
            torch.stack([start, start + 0.5], dim=1),
        )


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny random LLM and the encoders above in place of pretrained ones; a cache of its own."""
    monkeypatch.setenv("CREMA_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(backbones, "load", lambda name, **_: tiny.backbone())
    monkeypatch.setattr(
        "open_crema.data.extract.encoder_for",
        lambda kind, config: {"vision": Eyes, "audio": Ears}[kind.encoder](),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Media files, good and bad ones."""
    folder = tmp_path_factory.mktemp("made")
    media_factory.write_video(folder / "clip.mp4", sound="tone")
    media_factory.write_video(folder / "cut.mp4", sound="tone")
    media_factory.truncate(folder / "cut.mp4", 0.4)
    media_factory.write_text(folder / "text.mp4")
    media_factory.write_text(folder / "text.txt")
    (folder / "empty.mp4").touch()
    (folder / "nothing").mkdir()
    media_factory.write_audio(folder / "sound.wav", seconds=2)
    return folder


@pytest.fixture
def place(tmp_path, made):
    """A folder with those files, four questions about the good clip, and ``run.yaml``."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    for split in ("train", "test"):
        lines = [{**QUESTION, "id": f"{split}{i}"} for i in range(4)]
        write_lines(tmp_path / f"{split}.jsonl", *lines)
    run = {
        "out": str(tmp_path / "out"),
        "model": SHAPE,
        "data": {
            "train": str(tmp_path / "train.jsonl"),
            "test": str(tmp_path / "test.jsonl"),
            "store_frames": 2,
            "frames": 2,
        },
        "train": {"epochs": 1, "batch_size": 4, "threads": 1},
        "eval": {"max_new_tokens": 2},
    }
    write_yaml(tmp_path / "run.yaml", run)
    return tmp_path


@pytest.fixture
def model(place):
    """The folder of a saved model (of random weights) of that configuration."""
    run, folder = experiment.load_run(place / "run.yaml")
    save_pretrained(experiment.build_model(run), folder, run=run)
    return folder

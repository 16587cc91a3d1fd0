"""The command line as a user runs it, and small stand-ins for what takes long to load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Crema, Ran

import tiny
from open_crema import backbones, cli
from open_crema.features import Features


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
    monkeypatch.setattr(backbones, "load", lambda name, *, dropout=0.0: tiny.backbone())
    monkeypatch.setattr(
        "open_crema.data.extract.encoder_for",
        lambda kind, config: {"vision": Eyes, "audio": Ears}[kind.encoder](),
    )

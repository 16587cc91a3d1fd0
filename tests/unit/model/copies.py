"""What the tests of adapters that change hands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import tiny
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained

SENSES = ("video", "audio", "flow")
CONFIG, ADAPTER = "config.json", "adapter.safetensors"


def snapshot(folder: Path) -> dict[str, bytes]:
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}


def edited(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def retensored(path: Path, change: Callable[[dict], object]) -> None:
    tensors = {n: t.clone() for n, t in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def batch():
    items = [
        tiny.item(1, video=2, audio=3, flow=2, depth=2),
        tiny.item(2, audio=1, flow=2),
        tiny.item(3, video=2, depth=1),
    ]
    return tiny.batch(*items)


def said(folder: Path, llm) -> torch.Tensor:
    return from_pretrained(folder, backbone=llm)(batch()).logits


def grown(folder: Path, sense: str, llm, *, seed: int = 0, projected: bool = False) -> Crema:
    """What another team trains: a new sense on a published base, of which nothing moves."""
    model = from_pretrained(folder, backbone=llm)
    torch.manual_seed(seed)
    model.add_sense(sense, tiny.WIDTHS[sense], projected=projected)
    with torch.no_grad():
        for parameter in model.adapter(sense).parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.fusion.blocks[sense].normal_()
        model.adapter(sense).fresh.fill_(False)
    return model.eval()

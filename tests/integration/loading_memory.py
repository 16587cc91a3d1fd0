"""Run in a process of its own by test_loading_memory.py: what converting and loading take.

Prints one JSON line; all in bytes. resident: the peak of VmHWM above what was there before.
anonymous: the peak of RssAnon, which no pressure of memory can give back to a file.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from open_crema import backbones, convert
from open_crema.config import LoadingConfig
from open_crema.convert import frozen
from open_crema.encoders.vision import VisionFolder


def status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    resident, anonymous = status("VmRSS"), status("RssAnon")
    most, done = [anonymous], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            most.append(status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = work()
    done.set()
    watcher.join()
    peak = max(*most, status("RssAnon"))
    return result, {"resident": status("VmHWM") - resident, "anonymous": peak - anonymous}


def load(model: Path, dtype: str) -> tuple[Any, Any]:
    """The LLM and the ViT, each run once, so that all of their weights have been read."""
    llm = backbones.load(str(model / "llm"), loading=LoadingConfig(dtype=dtype)).llm
    kind = llm.get_input_embeddings().weight.dtype
    vit = VisionFolder(model / "encoders/eva-vit-g", resolution=28, dtype=kind).model
    with torch.no_grad():
        llm(input_ids=torch.zeros(1, 2).long(), decoder_input_ids=torch.zeros(1, 1).long())
        vit(pixel_values=torch.zeros(1, 3, 28, 28, dtype=kind))
    return llm, vit


def main(small: Path, large: Path, out: Path) -> None:
    torch.set_num_threads(1)
    frozen._SHARD = 12 * 2**20  # to the large model what 2 GiB are to 16 GB
    convert.from_blip2(small, out / "small")  # whatever is imported and kept is there by now
    for dtype in ("fp32", "bf16"):
        load(out / "small", dtype)
    found = {}
    _, found["convert"] = measured(lambda: convert.from_blip2(large, out / "large"))
    for dtype in ("fp32", "bf16"):
        parts, found[dtype] = measured(lambda dtype=dtype: load(out / "large", dtype))
        held = [p for part in parts for p in part.parameters()]
        found[dtype]["weights"] = sum(p.numel() * p.element_size() for p in held)
        del parts, held
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

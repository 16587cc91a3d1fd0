"""Whether `crema cost` says the memory of a training step: estimate against peak RSS, as JSON.

    python benchmarks/memory.py

Three reduced sizes, each in a process of its own: the model is built and loaded, then one optimizer
step of sequential training is taken; how far its peak lies above the loaded model is compared with
the estimate. Linux only (/proc).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

from open_crema import config, cost
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.cost import Tokens
from open_crema.data.sample import Sample, collate
from open_crema.features import Features
from open_crema.model.crema import Crema

SIZES = {  # batch, width of the LLM, its layers, text tokens
    "small": (4, 256, 4, 40),
    "middle": (8, 512, 6, 80),
    "large": (8, 768, 8, 160),
}

# Freed memory goes back at once, so that the peak is of what is held and not of what is kept ready.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}


class Words:
    pad_token_id, eos_token_id = 0, 1

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [2] * len(text.split())

    def decode(self, token_ids: object, *, skip_special_tokens: bool) -> str:
        return ""


def described(name: str, folder: Path) -> tuple[config.Config, Tokens, T5Config]:
    batch, width, layers, text = SIZES[name]
    llm = T5Config(
        vocab_size=8000,
        d_model=width,
        d_kv=64,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=width // 64,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    llm.save_pretrained(folder)
    run = config.from_dict(
        {
            "model": {
                "senses": ["video", "depth", "normal"],
                "llm": str(folder),
                "qformer": {"layers": 6, "width": 384, "heads": 6, "ffn": 1536, "queries": 32},
            },
            "train": {"batch_size": batch},
        }
    )
    return run, Tokens(frames=4, label=2, text=text, answer=3), llm


def kilobytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key))


def measure(name: str) -> dict[str, float]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        run, tokens, llm = described(name, Path(place))
        estimate = cost.training_memory(run, tokens)
        backbone = EncoderDecoder(T5ForConditionalGeneration(llm), Words())
    model = Crema(run.model, backbone).train()
    batch = run.train.batch_size
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    spans = torch.stack([times[:-1], times[1:]], dim=1)
    items = []
    for i in range(batch):
        sample = Sample(str(i), " ".join(["word"] * (tokens.text - 1)), {}, answers=("a b",))
        features = {
            sense: Features(torch.randn(4, 65, 384), torch.ones(4, 65, dtype=torch.bool), spans)
            for sense in run.model.senses
        }
        items.append((sample, features))
    held = collate(items)
    trained = [*model.adapters.parameters(), *model.fusion.parameters()]
    optimizer = torch.optim.AdamW(trained)
    torch.randn(512, 512).requires_grad_().matmul(
        torch.randn(512, 512)
    ).sum().backward()  # libraries
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # the peak starts again: building the model had one
    before = kilobytes("VmRSS")
    for sense in model.senses:  # as sequential training: one adapter and the fusion at a time
        for other in model.senses:
            model.adapters[other].requires_grad_(other == sense)
        model(held).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = (kilobytes("VmHWM") - before) * 1024
    return {
        "estimate_mib": round(estimate.training / 2**20, 1),
        "measured_mib": round(peak / 2**20, 1),
        "error": round(estimate.training / peak - 1, 3),
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    found = {}
    for name in SIZES:
        done = subprocess.run(
            [sys.executable, __file__, name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **ALLOCATOR},
        )
        found[name] = json.loads(done.stdout)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

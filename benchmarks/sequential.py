"""One sequential mini-batch two ways: everything again in each sub-step, and only what changed.

    python benchmarks/sequential.py [--repeats 3]

Prints JSON: CPU seconds on one thread (the least of the repeats), Q-Former rows run, the largest
difference between the weights that the two ways end with. Size: Q-Former 6 x 384, T5 6 + 6 x 512,
4 frames of 257 tokens, four visual senses, batch 2, rank 64; frozen encoders are not part of it
(features come from the store in both ways).
"""

import argparse
import copy
import json
import time

import torch
from transformers import T5Config, T5ForConditionalGeneration

from open_crema import Batch, Crema, Sample, sequential
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import ModelConfig, TrainConfig, from_dict
from open_crema.data.sample import SenseBatch
from open_crema.training.optimizer import build_optimizer

SENSES = ("video", "flow", "depth", "normal")
FRAMES, KEYS, WIDTH, BATCH = 4, 257, 384, 2


class Words:
    """A tokenizer: one id a character."""

    pad_token_id, eos_token_id = 0, 1

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [2 + ord(c) % 500 for c in text]

    def decode(self, token_ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return ""


def build() -> tuple[Crema, Batch]:
    torch.manual_seed(0)
    llm = T5ForConditionalGeneration(
        T5Config(
            vocab_size=512,
            d_model=512,
            d_kv=64,
            d_ff=1024,
            num_layers=6,
            num_heads=8,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )
    config = from_dict(
        {
            "senses": list(SENSES),
            "lora": {"rank": 64, "dropout": 0.0},
            "qformer": {
                "layers": 6,
                "width": 384,
                "heads": 6,
                "ffn": 1536,
                "queries": 32,
                "encoder_width": WIDTH,
                "dropout": 0.0,
            },
        },
        schema=ModelConfig,
    )
    model = Crema(config, EncoderDecoder(llm.eval(), Words()), dict.fromkeys(SENSES, WIDTH))
    edges = torch.arange(FRAMES, dtype=torch.float64)
    times = torch.stack([edges, edges + 1], dim=1).expand(BATCH, -1, -1)
    mask = torch.ones(BATCH, FRAMES, KEYS, dtype=torch.bool)
    senses = {s: SenseBatch(torch.randn(BATCH, FRAMES, KEYS, WIDTH), mask, times) for s in SENSES}
    samples = tuple(Sample(str(i), "what is the boy doing", {}, ("running",)) for i in range(BATCH))
    return model, Batch(samples, senses)


def plain(model: Crema, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    """The published loop: n full forward passes, gradients for one sense and the fusion each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for sense in SENSES:
        unit = set(model.unit(sense))
        for p in trained:
            p.requires_grad_(p in unit)
        model(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for p in trained:
        p.requires_grad_(True)


def reusing(model: Crema, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    for sub in sequential(model, [batch], SENSES):
        sub.loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    first, batch = build()
    results, ends = {}, {}
    for name, way in (("plain", plain), ("reusing", reusing)):
        model = copy.deepcopy(first)
        optimizer = build_optimizer(model, TrainConfig(optimizer="sgd", lr=0.01))
        rows = []
        model.qformer.register_forward_hook(lambda _, __, out, rows=rows: rows.append(len(out)))
        seconds = []
        for _ in range(repeats):
            start = time.process_time()
            way(model, batch, optimizer)
            seconds.append(time.process_time() - start)
        ends[name] = [p for p in model.parameters() if p.requires_grad]
        results[name] = {
            "cpu_seconds": round(min(seconds), 3),
            "qformer_rows": sum(rows) // repeats,
        }
    pairs = zip(ends["plain"], ends["reusing"], strict=True)
    results["largest_weight_difference"] = max((a - b).abs().max().item() for a, b in pairs)
    results["speed_up"] = round(
        results["plain"]["cpu_seconds"] / results["reusing"]["cpu_seconds"], 2
    )
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

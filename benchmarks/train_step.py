"""One training step, ours and (``--oracle``) the plain loop, each way in a process of its own, as
one line of JSON. docs/performance.md has the arithmetic and what was measured.

    python benchmarks/train_step.py --senses video,flow,depth,normal --mode sequential --oracle

Weights are random, of the given sizes (blocks x width). CPU seconds of an iteration (``--batch``
samples), peak memory above the loaded model, multiply-accumulates as counted of the very operations
of a step, and how long those would take at the rate of plain matrix products of the same run.
``encode`` has the frozen encoder in the step, ``cached`` reads its features from memory, as from
the store.
The plain loop is the published one: for each sense everything again. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import T5Config, T5ForConditionalGeneration, ViTConfig, ViTModel

from open_crema import Batch, Crema, Sample, joint, sequential
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import ModelConfig, TrainConfig, from_dict
from open_crema.data.sample import SenseBatch
from open_crema.training.optimizer import build_optimizer

VOCABULARY, LABEL, TEXT, ANSWER = 32_128, 4, 40, 2  # tokens; an answer has its end besides
PATCH = 14
Encode = Callable[[], dict[str, Tensor]]


def _attention(query: list[int], key: list[int], value: list[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(
    grad: list[int], query: list[int], key: list[int], value: list[int], *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


_ATEN = torch.ops.aten
ATTENTION = {  # which the counter does not know on a CPU
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Words:
    """A token a word."""

    pad_token_id, eos_token_id = 0, 1

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [2 + sum(map(ord, word)) % (VOCABULARY - 2) for word in text.split()]

    def decode(self, token_ids: Tensor, *, skip_special_tokens: bool) -> str:
        return ""


def build(o: argparse.Namespace) -> tuple[Crema, ViTModel]:
    torch.manual_seed(0)
    blocks, width = o.vit
    vit = ViTModel(
        ViTConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=blocks,
            num_attention_heads=width // 64,
            image_size=o.image,
            patch_size=PATCH,
        ),
        add_pooling_layer=False,
    )
    layers, llm_width = o.t5
    text = T5Config(
        vocab_size=VOCABULARY,
        d_model=llm_width,
        d_kv=64,
        d_ff=2 * llm_width,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=llm_width // 64,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    text.dense_act_fn = "gelu"  # Flan-T5's
    llm = T5ForConditionalGeneration(text)
    depth, hidden = o.qformer
    config = from_dict(
        {
            "senses": o.senses,
            "lora": {"rank": o.rank, "dropout": 0.0},
            "fusion": {"kind": "self-gated"},
            "qformer": {
                "layers": depth,
                "width": hidden,
                "heads": hidden // 64,
                "ffn": 4 * hidden,
                "queries": o.queries,
                "encoder_width": width,
                "dropout": 0.0,
            },
        },
        schema=ModelConfig,
    )
    frozen = torch.bfloat16 if o.dtype == "bf16" else torch.float32
    backbone = EncoderDecoder(llm.eval().to(frozen), Words())
    model = Crema(config, backbone, dict.fromkeys(o.senses, width))
    with torch.no_grad():  # LoRA begins at nothing, which would hide an error in it
        for name, p in model.named_parameters():
            if name.endswith(".b"):
                p.normal_(std=0.02)
    return model, vit.eval().requires_grad_(False).to(frozen)


class Step:
    """What an iteration needs: the model, pictures of each sense, and the samples' texts."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o = o
        self.model, self.vit = build(o)
        draw = torch.Generator().manual_seed(1)
        size = (o.batch * o.frames, 3, o.image, o.image)
        self.pictures = {s: torch.randn(size, generator=draw) for s in o.senses}
        words = TEXT - 6  # what a label and the ends add is counted in LABEL and by the model
        self.samples = tuple(
            Sample(str(i), " ".join(["word"] * words), {}, (" ".join(["yes"] * ANSWER),))
            for i in range(o.batch)
        )
        edges = torch.linspace(0, 1, o.frames + 1, dtype=torch.float64)
        spans = torch.stack([edges[:-1], edges[1:]], dim=1)
        self.times = spans.expand(o.batch, -1, -1)
        self.optimizer = build_optimizer(self.model, TrainConfig(lr=1e-4))

    @torch.no_grad()
    def encode(self) -> dict[str, Tensor]:
        """Each sense's features as the step reads them, ``[B, S, K, W]`` in fp32."""
        frozen = self.vit.dtype
        return {
            s: self.vit(x.to(frozen)).last_hidden_state.float().unflatten(0, (self.o.batch, -1))
            for s, x in self.pictures.items()
        }

    def batch(self, features: dict[str, Tensor]) -> Batch:
        senses = {
            s: SenseBatch(x, torch.ones(x.shape[:3], dtype=torch.bool), self.times)
            for s, x in features.items()
        }
        return Batch(self.samples, senses)

    def precision(self) -> Any:
        """As the training loop has it."""
        if self.o.dtype == "fp32":
            return nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)

    def ours(self, features: Encode) -> list[float]:
        batch = self.batch(features())
        if self.o.mode == "joint":
            subs = joint(self.model, [batch])
        else:
            subs = sequential(self.model, [batch], self.o.senses)
        losses = []
        while True:
            with self.precision():
                sub = next(subs, None)
            if sub is None:
                return losses
            losses.append(self._take(sub.loss))

    def plain(self, features: Encode) -> list[float]:
        """For each sense a whole forward pass, encoders included, and the gradients of it and of
        the fusion."""
        if self.o.mode == "joint":
            return [self._whole(features)]
        trained = [p for p in self.model.parameters() if p.requires_grad]
        losses = []
        for sense in self.o.senses:
            unit = set(self.model.unit(sense))
            for p in trained:
                p.requires_grad_(p in unit)
            losses.append(self._whole(features))
        for p in trained:
            p.requires_grad_(True)
        return losses

    def _whole(self, features: Encode) -> float:
        with self.precision():
            loss = self.model(self.batch(features())).loss
        return self._take(loss)

    def _take(self, loss: Tensor) -> float:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def matrix_products(dtype: torch.dtype) -> float:
    """Multiply-accumulates a second of plain products, of sizes that a step has."""
    rate = 0.0
    for rows, inner, columns in ((2056, 384, 1536), (1024, 512, 1024), (1024, 1024, 512)):
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        for _ in range(3):
            a @ b
        begun = time.process_time()
        for _ in range(20):
            a @ b
        rate = max(rate, 20 * rows * inner * columns / (time.process_time() - begun))
    return rate


def kilobytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key))


def measure(o: argparse.Namespace, way: str) -> dict[str, Any]:
    """way: "ours" or "plain", with the features that the options name."""
    torch.set_num_threads(o.threads)
    step = Step(o)
    run = getattr(step, way)
    kept = step.encode() if o.features == "cached" else None
    features: Encode = step.encode if kept is None else lambda: kept

    torch.randn(64, 64).requires_grad_().matmul(torch.randn(64, 64)).sum().backward()  # libraries
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again: building had one
    before = kilobytes("VmRSS")
    losses = run(features)
    peak = kilobytes("VmHWM") - before

    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    with counter:
        run(features)
    macs = counter.get_total_flops() // 2

    seconds = []
    for _ in range(o.iters):
        begun = time.process_time()
        run(features)
        seconds.append(time.process_time() - begun)
    rate = matrix_products(torch.bfloat16 if o.dtype == "bf16" else torch.float32)
    least = min(seconds)
    return {
        "way": way,
        "features": o.features,
        "cpu_seconds": {"min": round(least, 3), "median": round(statistics.median(seconds), 3)},
        "peak_mib_above_model": round(peak / 1024, 1),
        "gmac": round(macs / 1e9, 3),
        "gmac_per_second": round(macs / least / 1e9, 1),
        "gmac_per_second_of_matrix_products": round(rate / 1e9, 1),
        "times_the_floor": round(least / (macs / rate), 2),
        "losses_of_first_step": losses,
        "sum_of_weights": sum(
            p.detach().double().sum().item()
            for group in step.optimizer.param_groups
            for p in group["params"]
        ),
    }


def in_a_process(arguments: list[str], way: str, **changed: str) -> dict[str, Any]:
    own = [*arguments]
    for key, value in changed.items():
        own += [f"--{key}", value]  # the last one counts
    done = subprocess.run(
        [sys.executable, __file__, *own, "--way", way],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def blocks(text: str) -> tuple[int, int]:
    """``6x384``: so many blocks, so wide."""
    count, _, width = text.partition("x")
    return int(count), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--senses", default="video,flow,depth,normal", type=lambda s: s.split(","))
    parser.add_argument("--mode", choices=("sequential", "joint"), default="sequential")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--vit", type=blocks, default=(12, 384))
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--qformer", type=blocks, default=(6, 384))
    parser.add_argument("--t5", type=blocks, default=(6, 512))
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--features", choices=("encode", "cached"), default="cached")
    parser.add_argument("--iters", type=int, default=3)
    parser.add_argument("--oracle", action="store_true", help="and the plain loop, both ways")
    parser.add_argument("--way", choices=("ours", "plain"), help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.way:
        print(json.dumps(measure(o, o.way)))
        return
    arguments = sys.argv[1:]
    found = in_a_process(arguments, "ours")
    if o.dtype == "bf16":
        exact = in_a_process(arguments, "ours", dtype="fp32", iters="1")
        pairs = zip(found["losses_of_first_step"], exact["losses_of_first_step"], strict=True)
        found["largest_loss_difference_to_fp32"] = max(abs(a - b) for a, b in pairs)
    if o.oracle:
        found["oracle"] = {}
        for features in ("encode", "cached"):
            plain = in_a_process(arguments, "plain", features=features)
            pairs = zip(found["losses_of_first_step"], plain["losses_of_first_step"], strict=True)
            plain["largest_loss_difference"] = max(abs(a - b) for a, b in pairs)
            plain["times_ours"] = round(
                plain["cpu_seconds"]["min"] / found["cpu_seconds"]["min"], 2
            )
            found["oracle"][features] = plain
    print(json.dumps(found))


if __name__ == "__main__":
    main()

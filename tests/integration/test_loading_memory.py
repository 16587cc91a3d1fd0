"""The frozen parts of a BLIP-2 are never in memory twice: not in conversion, not in loading."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration

import tiny


def blip2(folder: Path, width: int, layers: int) -> Path:
    torch.manual_seed(0)
    few = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = Blip2Config(
        vision_config={
            "hidden_size": width,
            "image_size": 28,
            "patch_size": 14,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "intermediate_size": 4 * width,
        },
        qformer_config={"hidden_size": 32, "encoder_hidden_size": width, "vocab_size": 9, **few},
        text_config={
            "model_type": "t5",
            "vocab_size": 8,
            "d_model": width,
            "d_kv": width // 4,
            "d_ff": 4 * width,
            "num_layers": layers,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        num_query_tokens=4,
    )
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(0.01)
    tiny.save_llm(model, folder)
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_no_weight_is_in_memory_twice(tmp_path):
    small, large = blip2(tmp_path / "a", 32, 1), blip2(tmp_path / "b", 384, 4)
    script = Path(__file__).with_name("loading_memory.py")
    arguments = [str(small), str(large), str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    whole = found["fp32"]["weights"]
    assert whole > 100e6
    assert found["bf16"]["weights"] == whole / 2
    # As the file has them, they are the file's own pages.
    assert found["fp32"]["resident"] <= 1.15 * whole
    # Made half as large while they are read: the file's pages, which can be given back at any time,
    # and the half.
    assert found["bf16"]["anonymous"] <= 1.3 * whole / 2
    assert found["bf16"]["resident"] <= 1.65 * whole
    # A shard at a time.
    assert found["convert"]["anonymous"] <= 0.35 * whole

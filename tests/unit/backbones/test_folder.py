"""An LLM from a local transformers folder: right, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from open_crema import backbones
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.errors import CremaError
from tiny import save_llm as save


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
        )
    )


def t5(**options: object) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=8,
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
            **options,
        )
    )


def test_a_causal_lm(tmp_path: Path) -> None:
    llm = llama()
    backbone = backbones.load(str(save(llm, tmp_path)))
    assert isinstance(backbone, DecoderOnly)
    assert torch.equal(backbone.llm.lm_head.weight, llm.lm_head.weight)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert backbone.encode("what is it") == [5, 6, 7]


@pytest.mark.parametrize(
    ("shipped", "used"), [("gated-gelu", "gelu"), ("relu", "relu")], ids=["flan-t5", "t5"]
)
def test_an_encoder_decoder_gets_the_exact_gelu_only_for_the_approximate_one(
    tmp_path: Path, shipped: str, used: str
) -> None:
    llm = t5(feed_forward_proj=shipped)
    backbone = backbones.load(str(save(llm, tmp_path)))
    assert isinstance(backbone, EncoderDecoder)
    assert backbone.llm.config.dense_act_fn == used


def test_other_weights_are_another_base(tmp_path: Path) -> None:
    one = backbones.load(str(save(llama(), tmp_path / "a"))).fingerprint
    changed = llama()
    with torch.no_grad():
        changed.lm_head.weight[0, 0] += 1
    assert backbones.load(str(save(llama(), tmp_path / "b"))).fingerprint == one
    assert backbones.load(str(save(changed, tmp_path / "c"))).fingerprint != one


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickle_only(folder: Path) -> None:
    torch.save(llama().state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def lacking(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize("harm", [truncate, pickle_only, lacking, no_config])
def test_a_folder_that_is_not_right_is_refused_by_name(tmp_path: Path, harm) -> None:
    folder = save(llama(), tmp_path / "llm")
    harm(folder)
    with pytest.raises(CremaError, match="llm"):
        backbones.load(str(folder))


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(CremaError, match="did you mean 'smollm2-135m-instruct'"):
        backbones.load("smollm2-135m-instuct")

"""SmolLM2-135M-Instruct, the frozen language model of the embedded scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from open_crema import weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "smollm2-135m-instruct-q4_1"


def fetch() -> Path:
    """The transformers folder of the model, downloaded and converted once. Raises WeightsError."""
    return weights.ensure(NAME, _convert)


def load(dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in eval mode, without gradients, and its tokenizer. Raises WeightsError."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    path = fetch()
    model = weights.load_frozen(LlamaForCausalLM, path, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(path, local_files_only=True)


def _convert(raw: Path, out: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer, LlamaForCausalLM

    gguf = {"gguf_file": raw.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(raw.parent, **gguf)
    # transformers ignores tokenizer.ggml.pre = "smollm", which splits digits before anything else;
    # without it "a  3" is cut into other tokens than the model was trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    with weights.no_progress_bars():
        model = LlamaForCausalLM.from_pretrained(raw.parent, **gguf)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(out)

    # A GGUF-loaded model refuses save_pretrained; its tensors and configuration are plain.
    tensors = {
        name: tensor.to(torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    del model.config.quantization_config
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)

"""Frozen LLMs by name, all behind one protocol (:class:`~open_crema.backbones.base.Backbone`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from open_crema import repositories, weights
from open_crema.backbones import lora, smollm2, vlm
from open_crema.backbones.base import Backbone
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import LoadingConfig, ModelConfig
from open_crema.errors import ConfigError, did_you_mean

# What a configuration may name without any file: enough of the architecture to count it.
_FLAN_T5_XL: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 2048,
    "d_kv": 64,
    "d_ff": 5120,
    "num_layers": 24,
    "num_heads": 32,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
_SMOLLM2_135M: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


def load_stock(dropout: float = 0.0) -> DecoderOnly:
    """SmolLM2 as it is. Raises WeightsError."""
    llm, tokenizer = smollm2.load()
    return _smollm2_of(llm, tokenizer, dropout, weights.fingerprint(smollm2.NAME))


def _captions(dropout: float) -> Backbone:
    return _tuned(Path(str(files("open_crema") / "assets" / CAPTIONS)), dropout)


def _tuned(folder: Path, dropout: float) -> Backbone:
    """SmolLM2 with a low-rank update merged into its weights."""
    llm, tokenizer = smollm2.load()
    update = lora.merge(llm, folder, base=STOCK)
    parts = [weights.fingerprint(smollm2.NAME), update]
    if (folder / lora.TEMPLATE).is_file():
        tokenizer.chat_template = (folder / lora.TEMPLATE).read_text(encoding="utf-8")
        parts.append(tokenizer.chat_template)
    source = hashlib.sha256(" ".join(parts).encode())
    return _smollm2_of(llm, tokenizer, dropout, source.hexdigest()[:16])


def _smollm2_of(llm: Any, tokenizer: Any, dropout: float, fingerprint: str) -> DecoderOnly:
    llm.config.attention_dropout = dropout
    for module in llm.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = dropout
    return DecoderOnly(llm, tokenizer, fingerprint)


_SAMPLED = 2**20  # bytes at each end of a weight file

STOCK = "smollm2-135m-instruct"
CAPTIONS = "smollm2-135m-captions"  # text-tuned by us, see docs/model-card.md
BACKBONES: dict[str, Callable[[float], Backbone]] = {STOCK: load_stock, CAPTIONS: _captions}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "flan-t5-xl": _FLAN_T5_XL,
    "flan-t5-xxl": {**_FLAN_T5_XL, "d_model": 4096, "d_ff": 10240, "num_heads": 64},
    "smollm2-135m-instruct": _SMOLLM2_135M,
    "smollm2-135m-captions": _SMOLLM2_135M,
}
HUB = {"flan-t5-xl": "google/flan-t5-xl", "flan-t5-xxl": "google/flan-t5-xxl"}
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")  # nothing pickled
_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")


def of(config: ModelConfig) -> Backbone:
    """The frozen LLM of a model's configuration. Raises what :func:`load` does."""
    return load(config.llm, dropout=config.llm_dropout, loading=config.loading)


def load(name: str, *, dropout: float = 0.0, loading: LoadingConfig | None = None) -> Backbone:
    """The frozen LLM of that name, of a local transformers folder, of a repository of the hub
    (``google/flan-t5-xl``), or of a folder that ``crema tune-llm`` has written.

    A folder's weights are read tensor by tensor into the dtype and the place where they stay, so
    that they are never in memory twice. Raises ConfigError for an unknown name, or a device or
    package that is not here; WeightsError for missing or damaged weights.
    """
    loading = loading or LoadingConfig()
    if loading.device_map not in (None, *_SPREAD):
        weights.check_device(loading.device_map, "model.loading.device_map")
    if name in BACKBONES:
        return _moved(BACKBONES[name](dropout), name, loading)
    if (Path(name) / lora.CONFIG).is_file():
        return _moved(_tuned(Path(name), dropout), name, loading)
    if Path(name).is_dir():
        return _from_folder(Path(name), dropout, loading)
    if repositories.ID.fullmatch(repository := HUB.get(name, name)):
        return _from_folder(repositories.snapshot(repository, _FILES), dropout, loading)
    if name.startswith(vlm.NAME):
        raise ConfigError(
            f"model.llm {name!r}: attached to a VLM, which you load yourself; open it with "
            "open_crema.attach(vlm, processor, from_pretrained=FOLDER)"
        )
    hint = did_you_mean(name, [*BACKBONES, *ARCHITECTURES])
    raise ConfigError(
        f"unknown model.llm {name!r}: {hint}known: {', '.join(BACKBONES)}, {', '.join(HUB)}, a "
        "local folder in the transformers layout, or a repository of the hub"
    )


def _moved(backbone: Backbone, name: str, loading: LoadingConfig) -> Backbone:
    """A small LLM that has been loaded whole."""
    if loading.quantised != "none" or loading.device_map in _SPREAD:
        raise ConfigError(
            f"model.llm {name!r}: quantising and device maps are for LLMs in the transformers "
            "layout; leave model.loading.quantised out, and name one device"
        )
    if loading != LoadingConfig():
        backbone.llm.to(device=loading.device_map, dtype=weights.dtype_of(loading.dtype))
    return backbone


def _placing(loading: LoadingConfig) -> dict[str, Any]:
    """How transformers is to read the weights."""
    dtype = weights.dtype_of(loading.dtype)
    options: dict[str, Any] = {"dtype": dtype}
    if loading.device_map is not None:
        options["device_map"] = loading.device_map
    if loading.quantised == "none":
        return options
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.loading.quantised={loading.quantised}: needs bitsandbytes; "
            "pip install 'open-crema[quantised]'"
        )
    from transformers import BitsAndBytesConfig

    options["quantization_config"] = (
        BitsAndBytesConfig(load_in_8bit=True)
        if loading.quantised == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    )
    return options


def _from_folder(folder: Path, dropout: float, loading: LoadingConfig) -> Backbone:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"model.llm {folder}: holds no *.safetensors; pickled weights are not read"
        )
    placing = _placing(loading)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if config.is_encoder_decoder:
            config.dropout_rate = dropout
            if getattr(config, "dense_act_fn", "") == "gelu_new":
                config.dense_act_fn = (
                    "gelu"  # BLIP-2's T5 has the exact one, Flan-T5 ships the other
                )
        else:
            config.attention_dropout = dropout
        architecture = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        llm = weights.load_frozen(architecture, folder, config=config, **placing)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model.llm {folder}: not a usable transformers folder: {reason}"
        ) from None
    family = EncoderDecoder if config.is_encoder_decoder else DecoderOnly
    return family(llm, tokenizer, fingerprint_of(folder))


def fingerprint_of(folder: Path) -> str:
    """Of the weight files' names, sizes, starts and ends: a full hash of billions of weights would
    take longer than loading them, and other weights differ there too."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_SAMPLED))
            opened.seek(max(0, size - _SAMPLED))
            digest.update(opened.read(_SAMPLED))
    return digest.hexdigest()[:16]

"""The whole model on the meta device, where tensors have shapes but no memory."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from open_crema.backbones import ARCHITECTURES, BACKBONES
from open_crema.backbones.base import Backbone
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import ModelConfig
from open_crema.errors import ConfigError, did_you_mean
from open_crema.model.crema import Crema


def skeleton(config: ModelConfig, *, own_llm: bool = False) -> Crema:
    """The whole model on the meta device: every module and shape, no values, no memory.

    An LLM that is known by name is built once and shared by all skeletons; own_llm: another one, to
    be changed. Raises ConfigError where an encoder or the LLM is unknown.
    """
    shared = config.llm in ARCHITECTURES and not own_llm
    with torch.device("meta"):
        return Crema(config, (_named if shared else _backbone)(config.llm))


class _NoText:
    """Stands in for a tokenizer where no text is read."""

    pad_token_id: int | None = 0
    eos_token_id: int = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return []

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        return ""


def _backbone(name: str) -> Backbone:
    """The LLM of that name or local folder, of which only the architecture is read."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    architecture = _architecture(name)
    try:
        config = CONFIG_MAPPING[architecture["model_type"]].from_dict(architecture)
        if not config.is_encoder_decoder:
            return DecoderOnly(AutoModelForCausalLM.from_config(config), _NoText())
        llm = AutoModelForSeq2SeqLM.from_config(config)
    except Exception as error:  # a config.json may be wrong in any way, and fails in as many
        raise ConfigError(
            f"model.llm {name}: its config.json describes no language model that can be counted: "
            f"{type(error).__name__}: {shorten(str(error), 200)}"
        ) from None
    if getattr(config, "decoder_start_token_id", None) is None:
        llm.config.decoder_start_token_id = 0  # any: nothing is read
    # transformers 5 ties T5's head to its embeddings whatever the configuration says, until
    # weights that differ are loaded; Flan-T5's differ.
    head = llm.get_output_embeddings()
    apart = False in (architecture.get(k) for k in ("tie_word_embeddings", "scale_decoder_outputs"))
    if apart and head.weight is llm.get_input_embeddings().weight:
        head.weight = nn.Parameter(torch.empty_like(head.weight))
    return EncoderDecoder(llm, _NoText())


_named = cache(_backbone)


def _architecture(name: str) -> dict[str, Any]:
    """What a transformers config.json holds."""
    if Path(name).is_dir() and name not in BACKBONES:
        path = Path(name) / "config.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.llm {name}: not a transformers folder: {path} cannot be read ({error})"
            ) from None
        if not isinstance(found, dict):
            raise ConfigError(f"model.llm {name}: not a transformers folder: {path} is no object")
        return found
    if name not in ARCHITECTURES:
        hint = did_you_mean(name, ARCHITECTURES)
        raise ConfigError(
            f"unknown model.llm {name!r}: {hint}known: {', '.join(ARCHITECTURES)}, or a local "
            "folder in the transformers layout, of which config.json is enough"
        )
    return ARCHITECTURES[name]

"""Frozen encoder-decoder LLMs (Flan-T5, the paper's)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from open_crema.backbones.base import (
    IGNORED,
    Backbone,
    OptionScores,
    Output,
    Prompt,
    Tokenizer,
    cross_entropy,
)


class EncoderDecoder(Backbone):
    """A T5-style model: the prompt goes to the encoder, the answer to the decoder."""

    side = "right"

    def __init__(self, llm: Any, tokenizer: Tokenizer, fingerprint: str = "") -> None:
        super().__init__(llm, tokenizer, fingerprint)
        self.after = [tokenizer.eos_token_id]

    def forward(self, prompt: Prompt, targets: Sequence[Sequence[int]]) -> Output:
        labels = self.pad(targets, IGNORED)
        out = self.llm(
            inputs_embeds=prompt.embeds,
            attention_mask=prompt.mask,
            labels=labels,
            decoder_attention_mask=(labels != IGNORED).long(),
        )
        return Output(cross_entropy(out.logits, labels), out.logits, labels)

    @torch.no_grad()
    def score(self, prompt: Prompt, options: Sequence[Sequence[Sequence[int]]]) -> OptionScores:
        _, labels, filled = self._flat_options(options)
        encoded = self.llm.get_encoder()(inputs_embeds=prompt.embeds, attention_mask=prompt.mask)
        each = len(filled[0])
        hidden = encoded.last_hidden_state.repeat_interleave(each, dim=0)
        out = self.llm(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=prompt.mask.repeat_interleave(each, dim=0),
            labels=labels,
        )
        return self._option_scores(out.logits, labels, options)

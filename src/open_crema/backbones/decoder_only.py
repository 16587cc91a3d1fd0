"""Frozen decoder-only LLMs (SmolLM2, and any transformers causal LM: Qwen, Llama, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from open_crema.backbones.base import (
    IGNORED,
    Backbone,
    OptionScores,
    Output,
    Prompt,
    Tokenizer,
    cross_entropy,
)
from open_crema.errors import ConfigError


class DecoderOnly(Backbone):
    """A causal LM. Prompts are padded on the left, so that every answer starts at one column;
    positions count real tokens only, so that padding changes nothing."""

    side = "left"

    def __init__(self, llm: Any, tokenizer: Tokenizer, fingerprint: str = "") -> None:
        super().__init__(llm, tokenizer, fingerprint)
        self.before, self.after = self._chat_template()

    def _chat_template(self) -> tuple[list[int], list[int]]:
        """Token ids before and after the user's words, from the tokenizer's own chat template."""
        template = getattr(self.tokenizer, "apply_chat_template", None)
        if template is None or not getattr(self.tokenizer, "chat_template", None):
            return [], self.encode("\n")
        mark = "<<user>>"
        turn = [{"role": "user", "content": mark}]
        text = template(turn, tokenize=False, add_generation_prompt=True)
        before, found, after = text.partition(mark)
        if not found:
            raise ConfigError(
                "the LLM's chat template changes the user's words; it cannot hold a prompt"
            )
        return self.encode(before), self.encode(after)

    def forward(self, prompt: Prompt, targets: Sequence[Sequence[int]]) -> Output:
        ids = self.pad(targets, self.pad_id)
        labels = self.pad(targets, IGNORED)
        mask = torch.cat([prompt.mask, (labels != IGNORED).long()], dim=1)
        out = self.llm(
            inputs_embeds=torch.cat([prompt.embeds, self.embed(ids).to(prompt.embeds)], dim=1),
            attention_mask=mask,
            position_ids=_positions(mask),
            # the vocabulary is large and the prompt long: logits only where there is a target
            logits_to_keep=ids.shape[1] + 1,
            use_cache=False,
        )
        logits = out.logits[:, :-1]
        return Output(cross_entropy(logits, labels), logits, labels)

    @torch.no_grad()
    def score(self, prompt: Prompt, options: Sequence[Sequence[Sequence[int]]]) -> OptionScores:
        ids, labels, filled = self._flat_options(options)
        each = len(filled[0])
        read = self.llm(
            inputs_embeds=prompt.embeds,
            attention_mask=prompt.mask,
            position_ids=_positions(prompt.mask),
            logits_to_keep=1,
            use_cache=True,
        )
        cache = read.past_key_values
        cache.batch_repeat_interleave(each)
        mask = torch.cat(
            [prompt.mask.repeat_interleave(each, dim=0), (labels != IGNORED).long()], dim=1
        )
        first = read.logits.repeat_interleave(each, dim=0)
        logits = first
        if ids.shape[1] > 1:
            rest = self.llm(
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                position_ids=_positions(mask)[:, prompt.mask.shape[1] : -1],
                past_key_values=cache,
            )
            logits = torch.cat([first, rest.logits], dim=1)
        return self._option_scores(logits, labels, options)


def _positions(mask: Tensor) -> Tensor:
    """``[B, L]``: each real token's place among the real ones."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)

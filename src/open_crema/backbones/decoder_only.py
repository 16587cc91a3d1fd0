"""Frozen decoder-only LLMs (SmolLM2, and any transformers causal LM: Qwen, Llama, Gemma, ...)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

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

_TOGETHER = 8  # questions behind shared prefixes that are read at once
_USER, _ANSWER = "<<user>>", "<<answer>>"  # mark the places of words in a chat template


class DecoderOnly(Backbone):
    """A causal LM. Prompts are padded on the left, so that every answer starts at one column;
    positions count real tokens only, so that padding changes nothing."""

    side = "left"

    def __init__(self, llm: Any, tokenizer: Tokenizer, fingerprint: str = "") -> None:
        super().__init__(llm, tokenizer, fingerprint)
        self.before, self.after, self.lead = self._chat_template()

    def use_template(self, template: str) -> None:
        """Reads prompts in another chat template (Jinja) than the tokenizer's own."""
        self.tokenizer.chat_template = template  # type: ignore[attr-defined]
        self.before, self.after, self.lead = self._chat_template()

    def _chat_template(self) -> tuple[list[int], list[int], str]:
        """Token ids before and after the user's words, from the tokenizer's own chat template; a
        space at its end is part of the answer's first token."""
        template = getattr(self.tokenizer, "apply_chat_template", None)
        if template is None or not getattr(self.tokenizer, "chat_template", None):
            return self._start(), self.encode("\n"), ""
        turns = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        # Some templates let the LLM think before it answers, unless told not to; others ignore it.
        written = partial(template, tokenize=False, enable_thinking=False)
        before, found, after = written(turns[:1], add_generation_prompt=True).partition(_USER)
        if not found:
            raise ConfigError(
                "the LLM's chat template changes the user's words; it cannot hold a prompt"
            )
        behind = written(turns, add_generation_prompt=False).partition(_ANSWER)[2]
        ends = (i for i in self.encode(behind) if i in self.stops)
        self.end = next(ends, self.tokenizer.eos_token_id)
        closed = after.rstrip(" ")
        return self.encode(before), self.encode(closed), after[len(closed) :]

    def _start(self) -> list[int]:
        """What the tokenizer puts before any text: many an LLM was never trained without it."""
        whole = list(self.tokenizer.encode(_USER, add_special_tokens=True))
        plain = self.encode(_USER)
        places = (i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return whole[: next(places, 0)]

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

    def forward_shared(
        self,
        prefix: Prompt,
        texts: Sequence[Sequence[Sequence[int]]],
        targets: Sequence[Sequence[Sequence[int]]],
    ) -> Output:
        decoder = self.llm.get_decoder()
        read = DynamicCache()
        decoder(
            inputs_embeds=prefix.embeds,
            attention_mask=prefix.mask,
            position_ids=_positions(prefix.mask),
            past_key_values=read,
            use_cache=True,
        )
        rows = [row for row, own in enumerate(texts) for _ in own]
        asked = [text for own in texts for text in own]
        answers = [target for own in targets for target in own]
        # What is of one length goes together, so that little is padded.
        order = sorted(range(len(rows)), key=lambda i: len(asked[i]) + len(answers[i]))
        labels = self.pad(answers, IGNORED)
        parts = []
        for start in range(0, len(order), _TOGETHER):
            chosen = order[start : start + _TOGETHER]
            parts.append(
                self._continued(
                    read,
                    prefix.mask,
                    [rows[i] for i in chosen],
                    [asked[i] for i in chosen],
                    [answers[i] for i in chosen],
                    labels.shape[1],
                )
            )
        places = torch.tensor(order, device=labels.device).argsort()
        logits = torch.cat(parts)[places]
        return Output(cross_entropy(logits, labels), logits, labels)

    def _continued(
        self,
        read: DynamicCache,
        mask: Tensor,
        rows: Sequence[int],
        texts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        width: int,
    ) -> Tensor:
        """``[N, width, V]``: logits of N answers (padded to ``width`` tokens), each after its text
        and the row of the prefix that it is about."""
        cache = DynamicCache()
        for i, layer in enumerate(read.layers):
            cache.update(layer.keys[rows], layer.values[rows], i)
        # An answer's last token is never read; each other one predicts the next.
        tokens = [[*a, *b[:-1]] for a, b in zip(texts, answers, strict=True)]
        ids = self.pad(tokens, self.pad_id)
        real = self.pad([[1] * len(own) for own in tokens], 0)
        whole = torch.cat([mask[rows], real], dim=1)
        starts = torch.tensor([len(text) - 1 for text in texts], device=ids.device)
        places = starts[:, None] + torch.arange(width, device=ids.device)
        with self._head_at(places.clamp(max=ids.shape[1] - 1)):
            logits: Tensor = self.llm(
                inputs_embeds=self.embed(ids).to(read.layers[0].keys.dtype),
                attention_mask=whole,
                position_ids=_positions(whole)[:, mask.shape[1] :],
                past_key_values=cache,
                use_cache=True,
            ).logits
        return logits

    @contextmanager
    def _head_at(self, places: Tensor) -> Iterator[None]:
        """Within it the LLM makes logits at these columns ``[N, A]`` of each row alone. By a hook,
        as some LLMs scale or cap what the head gives, so the head by itself will not do."""

        def chosen(_: Any, given: tuple[Tensor, ...]) -> Tensor:
            (hidden,) = given
            return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))

        handle = self.llm.get_output_embeddings().register_forward_pre_hook(chosen)
        try:
            yield
        finally:
            handle.remove()

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

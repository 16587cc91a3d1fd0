"""A whole frozen VLM as the backbone: its own tower sees, tokens of other senses are spliced in.

One mechanism for all families. The processor makes the prompt as ever; a marker in the user's text
shows where the sense tokens belong and is replaced by that many ordinary text positions; a forward
hook on the input embedding, there for the length of one call, puts the sense tokens on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from open_crema.backbones.base import (
    IGNORED,
    Backbone,
    Generation,
    OptionScores,
    Output,
    Prompt,
    cross_entropy,
)
from open_crema.errors import ConfigError, CremaError, DataError

Conversation = Sequence[Mapping[str, Any]]  # turns as a processor's chat template takes them

NAME = "vlm:"  # begins model.llm of a model that is attached to a VLM
_RUN = 3  # end tokens in a row are the marker: no chat template writes that
# Inputs that speak of every token, with what they say of a sense token and of padding; the ids of
# both are the padding token's.
_TOKEN_WISE = {"attention_mask": (1, 0), "mm_token_type_ids": (0, 0), "token_type_ids": (0, 0)}
_SAMPLED = 4096  # values of each tensor that the fingerprint reads
_VOLATILE = ("architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")


@dataclass(frozen=True)
class VlmPrompt(Prompt):
    """embeds ``[B, L, D]`` holds the sense tokens at ``places`` ``[B, L]`` (bool) and zeros
    elsewhere; inputs: what the VLM is called with, padded on the left."""

    inputs: Mapping[str, Any]
    places: Tensor


class Vlm(Backbone):
    """A transformers VLM with its processor: Qwen2.5-VL, LLaVA-OneVision, SmolVLM, Idefics3, and
    others that take ``input_ids`` and embed them with ``get_input_embeddings()``.

    The VLM is frozen; nothing else of it changes, its generation settings included.
    Raises ConfigError for a processor without a tokenizer that can hold the marker, or for weights
    that are not loaded.
    """

    side = "left"
    sees = ("video",)

    def __init__(self, vlm: Any, processor: Any) -> None:
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or not hasattr(processor, "apply_chat_template"):
            raise ConfigError(
                f"{type(processor).__name__}: not a VLM's processor (it has no tokenizer or no "
                "chat template); give the one that belongs to the VLM"
            )
        super().__init__(vlm, tokenizer, fingerprint(vlm))
        self.processor = processor
        self.mark: str = tokenizer.eos_token * _RUN
        self._mark_ids = [tokenizer.eos_token_id] * _RUN
        if _places(self.encode(f"a{self.mark}b"), self._mark_ids) != [len(self.encode("a"))]:
            raise ConfigError(
                f"{type(tokenizer).__name__}: does not keep its end token {tokenizer.eos_token!r} "
                "apart from the text around it, so sense tokens find no place"
            )
        self.lead = self._before_an_answer()

    def _settle_search(self, llm: Any) -> None:
        """The VLM is the user's: its generation settings stay."""

    def _before_an_answer(self) -> str:
        """What the chat template writes between its generation prompt and the answer."""
        mark = "<<answer>>"
        turns = [
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": mark}]},
        ]
        asked = self.processor.apply_chat_template(turns[:1], add_generation_prompt=True)
        answered = self.processor.apply_chat_template(turns)
        lead, found, _ = answered.removeprefix(asked).partition(mark)
        return lead if found and answered.startswith(asked) else ""

    def read(
        self,
        conversations: Sequence[Conversation],
        marked: Sequence[bool],
        processing: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What the processor makes of the conversations, padded on the left; those that are
        ``marked`` hold the marker before the last turn's question, after its pictures.

        processing: options of the processor (``fps``, ``num_frames``, ``size``, ...).
        Raises DataError for a conversation that does not end with the user's turn.
        """
        turns = [
            [*conversation[:-1], self._marked(conversation[-1]) if mark else conversation[-1]]
            for conversation, mark in zip(conversations, marked, strict=True)
        ]
        found = self.processor.apply_chat_template(
            turns,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={**processing, "padding": True, "padding_side": "left"},
        )
        return dict(found)

    def _marked(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        content = turn["content"]
        if isinstance(content, str):
            return {**turn, "content": self.mark + content}
        parts = [dict(part) for part in content]
        texts = [part for part in parts if part["type"] == "text"]
        if texts:
            texts[-1]["text"] = self.mark + texts[-1]["text"]
        else:
            parts.append({"type": "text", "text": self.mark})
        return {**turn, "content": parts}

    def splice(self, inputs: Mapping[str, Any], senses: Prompt) -> VlmPrompt:
        """The processor's output with each row's sense tokens in the place of its marker.

        senses: embeds ``[B, N, D]`` and mask ``[B, N]``, valid tokens first; rows without any have
        no marker. Without any at all the inputs stay the processor's own, bit for bit.
        """
        device = self.device
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        ids, mask = moved["input_ids"], moved["attention_mask"]
        counts = senses.mask.sum(dim=1).tolist()
        if not any(counts):
            return VlmPrompt(senses.embeds, mask, moved, torch.zeros_like(ids, dtype=torch.bool))
        columns = [self._columns(*row) for row in zip(ids, mask, counts, strict=True)]
        longest = max(map(len, columns))
        order = torch.tensor([[_PAD] * (longest - len(c)) + c for c in columns], device=device)
        places = order == _SENSE
        taken = order.clamp(min=0)
        moved["input_ids"] = ids.gather(1, taken).masked_fill(order < 0, self.pad_id)
        for name, (of_sense, of_padding) in _TOKEN_WISE.items():
            if name in moved:
                values = moved[name].gather(1, taken).masked_fill(places, of_sense)
                moved[name] = values.masked_fill(order == _PAD, of_padding)
        embeds = senses.embeds.new_zeros(*order.shape, self.width)
        embeds = embeds.masked_scatter(places[:, :, None], senses.embeds[senses.mask.bool()])
        return VlmPrompt(embeds, moved["attention_mask"], moved, places)

    def _columns(self, ids: Tensor, mask: Tensor, count: int) -> list[int]:
        """Which column of a row each token of its new prompt is taken from."""
        real: list[int] = mask.nonzero()[:, 0].tolist()
        if not count:
            return real
        found = _places(ids[mask.bool()].tolist(), self._mark_ids)
        # where the turn's own end token follows at once, the run is longer and begins as meant
        runs = [i for i in found if i - 1 not in found]
        if len(runs) != 1:
            raise DataError(
                f"the place of the sense tokens is not clear: the marker {self.mark!r} stands "
                f"{len(runs)} times in the prompt; take such end tokens out of the text, and see "
                "that the chat template keeps the user's words"
            )
        start = runs[0]
        return [*real[:start], *[_SENSE] * count, *real[start + len(self._mark_ids) :]]

    @contextmanager
    def _spliced(self, prompt: VlmPrompt) -> Iterator[None]:
        """While it lasts, the VLM embeds this prompt with the sense tokens in their places.

        A hook, not ``inputs_embeds``: the families need ``input_ids`` to place pictures and to
        count their (three-dimensional) positions, and most refuse to be given both.
        """
        if not bool(prompt.places.any()):
            yield
            return
        ids = prompt.inputs["input_ids"]
        rows, length = ids.shape
        met = False

        def put(module: nn.Module, given: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
            nonlocal met
            asked = given[0]
            copies = asked.shape[0] // rows  # beams stand side by side
            if asked.ndim != 2 or asked.shape[0] != copies * rows or asked.shape[1] < length:
                return None  # a later token, embedded on its own
            if not torch.equal(asked[:, :length], ids.repeat_interleave(copies, dim=0)):
                return None
            met = True
            places = prompt.places.repeat_interleave(copies, dim=0)[:, :, None]
            tokens = prompt.embeds.repeat_interleave(copies, dim=0).to(embedded)
            head = torch.where(places, tokens, embedded[:, :length])
            return torch.cat([head, embedded[:, length:]], dim=1)

        handle = self.llm.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()
        if not met:
            raise CremaError(
                f"{type(self.llm).__name__}: did not embed its prompt in one piece, so the sense "
                "tokens were not heard; switch off chunked prefill and the like"
            )

    def forward(self, prompt: Prompt, targets: Sequence[Sequence[int]]) -> Output:
        assert isinstance(prompt, VlmPrompt)
        ids, labels = self.pad(targets, self.pad_id), self.pad(targets, IGNORED)
        real = (labels != IGNORED).long()
        inputs = dict(prompt.inputs)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
        for name, (of_text, _) in _TOKEN_WISE.items():
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], real * of_text], dim=1)
        with self._spliced(prompt):
            out = self.llm(**inputs, logits_to_keep=ids.shape[1] + 1, use_cache=False)
        logits = out.logits[:, :-1]
        return Output(cross_entropy(logits, labels), logits, labels)

    @torch.no_grad()
    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int,
        beams: int = 1,
        length_penalty: float = 1.0,
        scores: bool = False,
    ) -> Generation:
        """Greedy or beam search, without sampling, by the VLM's own settings otherwise."""
        assert isinstance(prompt, VlmPrompt)
        with self._spliced(prompt):
            found = self.llm.generate(
                **prompt.inputs,
                max_new_tokens=max_new_tokens,
                num_beams=beams,
                length_penalty=length_penalty if beams > 1 else None,
                do_sample=False,
                output_scores=scores,
                return_dict_in_generate=True,
            )
        ids: Tensor = found.sequences[:, prompt.mask.shape[1] :]
        stacked = torch.stack(found.scores) if scores else None
        return Generation(ids, [self.decode(row) for row in ids], stacked)

    @torch.no_grad()
    def score(self, prompt: Prompt, options: Sequence[Sequence[Sequence[int]]]) -> OptionScores:
        """The prompt is read once for each option: how positions go on after a cached prompt is
        each family's own."""
        _, _, filled = self._flat_options(options)
        likely, tokens, greedy = [], [], []
        for column in range(len(filled[0])):
            own = [row[column] for row in filled]
            out = self(prompt, own)
            scored = self._option_scores(out.logits, out.labels, [[option] for option in own])
            likely.append(scored.log_likelihood)
            tokens.append(scored.tokens)
            greedy.append(scored.greedy)
        log_likelihood, greediest = torch.cat(likely, dim=1), torch.cat(greedy, dim=1)
        for row, given in enumerate(options):
            log_likelihood[row, len(given) :] = -torch.inf
            greediest[row, len(given) :] = False
        return OptionScores(log_likelihood, torch.cat(tokens, dim=1), greediest)


_SENSE, _PAD = -1, -2  # columns that no input has


def _places(ids: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Where a run of ids stands in others."""
    return [i for i in range(len(ids)) if list(ids[i : i + len(wanted)]) == list(wanted)]


def fingerprint(vlm: Any) -> str:
    """The VLM's class and 16 hexadecimal digits of its configuration and weights.

    Of each tensor, name, shape and up to 4096 values spread evenly are read, as bfloat16, so that
    the same weights in float32 and bfloat16 are one VLM, and billions of them take a second.
    Raises ConfigError for weights that are not in memory.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_lasting(vlm.config.to_diff_dict()), sort_keys=True).encode())
    for name, tensor in sorted(vlm.state_dict().items()):
        if tensor.is_meta:
            raise ConfigError(f"{type(vlm).__name__}: {name} is not in memory; load all weights")
        flat = tensor.detach().reshape(-1)
        values = flat[:: max(1, len(flat) // _SAMPLED)].to(torch.bfloat16).float()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(values.cpu().numpy().tobytes())
    return f"{type(vlm).__name__}-{digest.hexdigest()[:16]}"


def _lasting(value: Any) -> Any:
    """A configuration without what loading and saving write into it."""
    if isinstance(value, dict):
        kept = {str(k): v for k, v in value.items() if k not in _VOLATILE and str(k)[0] != "_"}
        return {k: _lasting(v) for k, v in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_lasting(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

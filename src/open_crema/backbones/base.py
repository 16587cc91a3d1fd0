"""What the model asks of a frozen LLM, whichever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

IGNORED = -100  # the label that a cross-entropy skips


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    pad_token_id: int | None
    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True)
class Prompt:
    """The LLM's input: embeds ``[B, L, D]`` and mask ``[B, L]`` (1 = real, int64)."""

    embeds: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Output:
    """loss: mean cross-entropy over target tokens; logits ``[B, A, V]`` and labels ``[B, A]``
    (-100 where there is no target) of the A target positions."""

    loss: Tensor
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Generation:
    """ids ``[B, N]`` of the new tokens (with the decoder's start token for encoder-decoders), the
    decoded texts, and scores ``[steps, B, V]``, the logits of each step of a greedy search."""

    ids: Tensor
    texts: list[str]
    scores: Tensor | None

    def letters(self, option_ids: Sequence[int], stops: Sequence[int] = ()) -> Tensor:
        """``[B, len(option_ids)]``: the logits of the option letters' tokens at the second step
        ("Option" comes first), as the released code chooses; at the first step where there is only
        one, or where that gave a token of ``stops``. Needs ``generate(..., scores=True)``."""
        if self.scores is None:
            raise ValueError("generate(..., scores=True) keeps the logits that this reads")
        second = self.scores[min(1, len(self.scores) - 1)]
        over = torch.isin(self.scores[0].argmax(dim=1), second.new_tensor(stops, dtype=torch.long))
        return torch.where(over[:, None], self.scores[0], second)[:, list(option_ids)]


@dataclass(frozen=True)
class OptionScores:
    """log_likelihood ``[B, O]`` of each option's tokens given the prompt, and how many tokens
    ``[B, O]`` each has, end token included; greedy ``[B, O]`` bool: whether each of them is the
    likeliest, as a greedy search would have it. Samples with fewer options have -inf, 1, False."""

    log_likelihood: Tensor
    tokens: Tensor
    greedy: Tensor

    @property
    def mean(self) -> Tensor:
        """``[B, O]``: length-normalised."""
        return self.log_likelihood / self.tokens

    def probabilities(self) -> Tensor:
        """``[B, O]``: softmax over the options of the length-normalised log-likelihoods."""
        return self.mean.softmax(dim=1)


class Backbone(nn.Module, ABC):
    """A frozen LLM.

    side: the end at which a batch of prompts is padded. width: of its embeddings.
    before, after: token ids that its chat template puts around the user's turn, or the end token
    that closes an encoder's input. lead: what belongs to an answer's first token and is no part of
    the answer, as a space. end: the token that closes an answer. stops: all at which a search
    ends, those that the LLM's folder names among them. fingerprint: of the source of its weights;
    adapters are tied to it. sees: senses that the LLM has of its own (a VLM's video); they lead,
    without an adapter.
    """

    side: Literal["left", "right"]
    sees: tuple[str, ...] = ()

    def __init__(self, llm: Any, tokenizer: Tokenizer, fingerprint: str = "") -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.llm = llm.requires_grad_(False)
        self.tokenizer = tokenizer
        # many causal LMs name no padding token; what stands there is masked
        named = tokenizer.pad_token_id
        self.pad_id: int = tokenizer.eos_token_id if named is None else named
        self.end: int = tokenizer.eos_token_id
        said = llm.generation_config.eos_token_id
        more = said if isinstance(said, list) else [] if said is None else [said]
        self.stops = sorted({self.end, *more})
        self._settle_search(llm)
        self.width: int = llm.get_input_embeddings().embedding_dim
        self.before: list[int] = []
        self.after: list[int] = []
        self.lead = ""

    def _settle_search(self, llm: Any) -> None:
        """Answers are searched as asked, not with a folder's own penalties and temperatures."""
        llm.generation_config = GenerationConfig(
            pad_token_id=self.pad_id,
            eos_token_id=self.stops,
            decoder_start_token_id=llm.generation_config.decoder_start_token_id,
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def target(self, answer: str) -> list[int]:
        """Token ids that the LLM must produce, end token included."""
        return [*self.encode(self.lead + answer), self.end]

    def letters(self, count: int) -> list[int] | None:
        """The token that tells each of "Option A", "Option B", ... from the others; None where the
        tokenizer has no such tokens."""
        spoken = [f"{self.lead}Option {letter}" for letter in ascii_uppercase[:count]]
        ends = [self.encode(text)[-1] for text in spoken]
        return ends if len(set(ends)) == count else None

    def decode(self, ids: Tensor) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def embed(self, ids: Tensor) -> Tensor:
        """``[...] -> [..., D]``"""
        embedded: Tensor = self.llm.get_input_embeddings()(ids)
        return embedded

    @property
    def device(self) -> torch.device:
        device: torch.device = self.llm.get_input_embeddings().weight.device
        return device

    def pad(self, sequences: Sequence[Sequence[int]], value: int) -> Tensor:
        """``[B, longest]`` int64, padded on the right."""
        longest = max(map(len, sequences))
        rows = [[*s, *[value] * (longest - len(s))] for s in sequences]
        return torch.tensor(rows, dtype=torch.long, device=self.device)

    @abstractmethod
    def forward(self, prompt: Prompt, targets: Sequence[Sequence[int]]) -> Output:
        """Teacher-forced loss and logits of the targets (token ids, end token included)."""

    def forward_shared(
        self,
        prefix: Prompt,
        texts: Sequence[Sequence[Sequence[int]]],
        targets: Sequence[Sequence[Sequence[int]]],
    ) -> Output:
        """As :meth:`forward` for N questions, of which each row of the prefix has some; texts and
        targets: each row's own. ``logits [N, A, V]``, in their order.

        Here the prefix is repeated for each; a decoder-only LLM reads it once.
        """
        rows = [row for row, own in enumerate(texts) for _ in own]
        ids = [text for own in texts for text in own]
        lengths = torch.tensor([len(text) for text in ids], device=self.device)
        embeds = torch.cat([prefix.embeds[rows], self.embed(self.pad(ids, self.pad_id))], dim=1)
        places = torch.arange(int(lengths.max()), device=self.device)
        mask = torch.cat([prefix.mask[rows], (places < lengths[:, None]).long()], dim=1)
        order = torch.argsort(mask, dim=1, stable=True, descending=self.side == "right")
        embeds = embeds.gather(1, order[:, :, None].expand(-1, -1, embeds.shape[2]))
        found: Output = self(
            Prompt(embeds, mask.gather(1, order)), [target for own in targets for target in own]
        )
        return found

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
        """Greedy (``beams=1``) or beam search, without sampling."""
        found = self.llm.generate(
            inputs_embeds=prompt.embeds,
            attention_mask=prompt.mask,
            max_new_tokens=max_new_tokens,
            num_beams=beams,
            length_penalty=length_penalty if beams > 1 else None,
            do_sample=False,
            output_scores=scores,
            return_dict_in_generate=True,
        )
        ids: Tensor = found.sequences
        # transformers' beam search fills with the end token where the padding token's id is 0
        ends = torch.isin(ids, torch.tensor(self.stops, device=ids.device)).long()
        ids = ids.masked_fill(ends.cumsum(dim=1) > ends, self.pad_id)
        stacked = torch.stack(found.scores) if scores else None
        return Generation(ids, [self.decode(row) for row in ids], stacked)

    @abstractmethod
    def score(self, prompt: Prompt, options: Sequence[Sequence[Sequence[int]]]) -> OptionScores:
        """How likely each option (token ids) of each sample is; the prompt is read once."""

    def _flat_options(
        self, options: Sequence[Sequence[Sequence[int]]]
    ) -> tuple[Tensor, Tensor, list[list[Sequence[int]]]]:
        """All options of a batch as rows: ids ``[B * O, A]`` and labels, O the most options."""
        most = max(map(len, options))
        filled = [[*own, *[[self.tokenizer.eos_token_id]] * (most - len(own))] for own in options]
        flat = [option for own in filled for option in own]
        ids = self.pad(flat, self.pad_id)
        return ids, self.pad(flat, IGNORED), filled

    @staticmethod
    def _option_scores(
        logits: Tensor, labels: Tensor, options: Sequence[Sequence[Sequence[int]]]
    ) -> OptionScores:
        """From logits and labels ``[B * O, A]`` of the filled options."""
        log_p = logits.float().log_softmax(dim=-1)
        taken = log_p.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0]
        real = labels != IGNORED
        total = (taken * real).sum(dim=1).view(len(options), -1)
        count = real.sum(dim=1).view(len(options), -1)
        greedy = ((log_p.argmax(dim=-1) == labels) | ~real).all(dim=1).view(len(options), -1)
        for row, own in enumerate(options):
            total[row, len(own) :] = -torch.inf
            greedy[row, len(own) :] = False
        return OptionScores(total, count, greedy)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch's real tokens; logits ``[B, A, V]``, labels ``[B, A]``."""
    return nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
    )

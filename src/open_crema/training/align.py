"""Alignment: query tokens learn to be words of the LLM, without a pass through the LLM.

A fresh Q-Former trained straight through a small LLM stays at chance for long: its tokens are
nothing that the LLM has ever read. So first each token that the LLM will read is trained to
predict a word as a row of the LLM's own embedding matrix. It is to a new base what BLIP-2's first
stage is to BLIP-2, and takes a minute where training through the LLM takes ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from open_crema import processes
from open_crema.backbones.base import Backbone
from open_crema.config import AlignmentStageConfig
from open_crema.data.sample import Batch, Sample
from open_crema.errors import DataError
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens
from open_crema.training.optimizer import set_rate
from open_crema.training.words import token_of

Media = frozenset[tuple[str, str]]
Words = Mapping[Media, Sequence[int]]


@dataclass(frozen=True)
class Captions:
    """ids: for each of the media, sense -> token ids ``[parts, words]``. shares: alike, how much of
    its row each is (soft words: less than 1). used: all ids, sorted. usual: the share of each of
    them, the largest where there are several."""

    ids: Mapping[Media, Mapping[str, Tensor]]
    shares: Mapping[Media, Mapping[str, Tensor]]
    used: Tensor
    usual: Tensor


def captions_of(backbone: Backbone, samples: Sequence[Sample]) -> Captions | None:
    """The captions of the media as token ids (:func:`~open_crema.training.words.token_of`).
    Of several samples about the same media one may have them. None where no sample has one."""
    known: dict[str, tuple[int, float]] = {}

    def token(word: str) -> tuple[int, float]:
        if word not in known:
            known[word] = token_of(backbone, word)
        return known[word]

    ids: dict[Media, dict[str, Tensor]] = {}
    shares: dict[Media, dict[str, Tensor]] = {}
    for sample in samples:
        if sample.captions:
            told = {
                sense: [[token(word) for word in part] for part in parts]
                for sense, parts in sample.captions.items()
            }
            media = _media(sample)
            ids[media] = {s: torch.tensor([[i for i, _ in p] for p in x]) for s, x in told.items()}
            shares[media] = {
                s: torch.tensor([[share for _, share in p] for p in x]) for s, x in told.items()
            }
    if not ids:
        return None
    usual: dict[int, float] = {}
    for i, share in known.values():
        usual[i] = max(share, usual.get(i, 0.0))
    used = sorted(usual)
    return Captions(ids, shares, torch.tensor(used), torch.tensor([usual[i] for i in used]))


def trained_tokens(model: Crema, batch: Batch) -> dict[str, QueryTokens]:
    """Without the senses of which nothing is trained."""
    trained = [s for s in model.senses_in(batch) if model.trains(s)]
    return {s: model.query(s, batch.senses[s]) for s in trained}


class WordLoss(NamedTuple):
    """loss: a mean over so many tokens; 0 of none."""

    loss: Tensor
    tokens: int


def caption_loss(
    model: Crema,
    tokens: Mapping[str, QueryTokens],
    batch: Batch,
    captions: Captions,
    config: AlignmentStageConfig,
) -> WordLoss:
    """As :func:`alignment_loss`, for senses' own query tokens, before the fusion.

    Query token q of a segment stands for word q of its sense's caption of that part of the clip;
    queries beyond the caption, and senses without one, have no target.
    """
    said, wanted, shares = [], [], []
    for sense, query in tokens.items():
        ids = torch.full(query.tokens.shape[:3], -1)
        share = torch.ones(ids.shape)
        for row, media in enumerate(map(_media, batch.samples)):
            words = captions.ids.get(media, {}).get(sense)
            if words is not None:
                count = int(query.segments[row].sum())
                parts = (torch.arange(count) * 2 + 1) * len(words) // (2 * count)
                most = min(words.shape[1], ids.shape[2])
                ids[row, :count, :most] = words[parts, :most]
                share[row, :count, :most] = captions.shares[media][sense][parts, :most]
        ids, share = ids.to(query.tokens.device), share.to(query.tokens.device)
        if not bool((ids >= 0).any()):
            continue  # in no graph, or its adapter's weights would decay for nothing
        said.append(query.tokens[ids >= 0].float())
        wanted.append(ids[ids >= 0])
        shares.append(share[ids >= 0])
    if not sum(map(len, wanted)):
        return WordLoss(torch.zeros(()), 0)
    meant = _Meant(torch.cat(wanted), torch.cat(shares), captions.used, captions.usual)
    return _word_loss(model, torch.cat(said), meant, config)


def words_of_media(backbone: Backbone, samples: Sequence[Sample]) -> dict[Media, list[int]]:
    """What each clip is described by: the token ids of the answers to all questions about it,
    questions in alphabetical order, so that the same place means the same question.

    Raises DataError for a sample whose answer is missing or has no token.
    """
    answers: dict[Media, dict[str, list[int]]] = {}
    for sample in samples:
        words = backbone.encode(sample.answers[0]) if sample.answers else []
        if not words:
            raise DataError(f"sample {sample.id!r} has no answer to train on")
        answers.setdefault(_media(sample), {})[sample.question] = words
    return {
        media: [i for question in sorted(asked) for i in asked[question]]
        for media, asked in answers.items()
    }


def _media(sample: Sample) -> Media:
    return frozenset(sample.media.items())


def alignment_loss(
    model: Crema, batch: Batch, words: Words, config: AlignmentStageConfig
) -> WordLoss:
    """Mean over the LLM's input tokens of a cross-entropy and a squared error to the right row.

    Query token q of a segment stands for word ``q mod n`` of the clip's n words. The cross-entropy
    chooses, by cosine similarity over the temperature, among all words in use and ``random_rows``
    others; the squared error is relative to the mean squared norm of the rows in use.
    """
    own = [words[_media(sample)] for sample in batch.samples]
    said, wanted = [], []
    for block in model.fusion(model.query_all(batch)):
        queries = range(model.config.qformer.queries)
        ids = torch.tensor(
            [[w[q % len(w)] for q in queries] for w in own], device=block.mask.device
        )
        ids = ids.repeat(1, block.tokens.shape[1] // len(queries))  # [B, N], as block.tokens
        said.append(block.tokens[block.mask].float())
        wanted.append(ids[block.mask])
    used = torch.tensor(sorted({i for own in words.values() for i in own}))
    ids = torch.cat(wanted)
    meant = _Meant(ids, torch.ones(len(ids), device=ids.device), used, torch.ones(len(used)))
    return _word_loss(model, torch.cat(said), meant, config)


class _Meant(NamedTuple):
    """wanted, shares ``[N]``: of which row of the embedding matrix N tokens are to be how much.
    used, usual: all rows that are ever wanted, in order, and their share."""

    wanted: Tensor
    shares: Tensor
    used: Tensor
    usual: Tensor


def _word_loss(
    model: Crema, tokens: Tensor, meant: _Meant, config: AlignmentStageConfig
) -> WordLoss:
    """tokens: ``[N, D]``."""
    backbone = model.backbone
    used = meant.used.to(backbone.device)
    count = backbone.llm.get_input_embeddings().num_embeddings
    others = torch.randint(count, (config.random_rows,), device=used.device)
    with torch.no_grad():  # as the LLM reads them: some scale the matrix
        table = backbone.embed(torch.cat([used, others[~torch.isin(others, used)]])).float()
    unit = functional.normalize(table, dim=1)
    scale = table[: len(used)].square().sum(dim=1).mean()
    target = torch.searchsorted(used, meant.wanted)
    with torch.autocast(tokens.device.type, enabled=False):  # over the temperature, bf16 is coarse
        logits = functional.normalize(tokens, dim=1) @ unit.T / config.temperature
    said, shares = target, meant.shares
    if config.commit:
        said = logits[:, : len(used)].argmax(dim=1)
        shares = torch.where(said == target, shares, meant.usual.to(shares)[said])
    rows = table[said] * shares[:, None]
    squared = (tokens - rows).square().sum(dim=1).mean() / scale
    loss: Tensor = functional.cross_entropy(logits, target) + config.mse_weight * squared
    return WordLoss(loss, len(tokens))


def build_optimizer(model: Crema, config: AlignmentStageConfig) -> Optimizer:
    """Over whatever is trainable: adapters, fusion, the Q-Former if asked."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=config.lr, weight_decay=0.01)


def _rate(config: AlignmentStageConfig, step: int, steps: int) -> float:
    rate = config.lr
    if config.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * step / steps)) / 2
    return rate * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else rate


def align(
    model: Crema,
    samples: Sequence[Sample],
    batches: Callable[[int, int], Iterable[Batch | None]],
    config: AlignmentStageConfig,
    optimizer: Optimizer,
    *,
    seed: int,
    steps_per_epoch: int,
    start: int = 0,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[int, int, float]]:
    """Trains for ``epochs``, one step a batch; gives epoch, step and loss after each.

    samples: all of them, for their words. batches: epoch and number of batches to skip -> the rest
    of its batches (None: only other processes have one); a step in which no process has a sense
    that is trained is left out. start: the step to go on from, with the optimizer as it was then.
    autocast: what the query tokens are computed in.
    """
    captions = captions_of(model.backbone, samples)
    words = {} if captions is not None else words_of_media(model.backbone, samples)
    for epoch in range(start // steps_per_epoch, config.epochs):
        skip = max(start - epoch * steps_per_epoch, 0)
        for step, batch in enumerate(batches(epoch, skip), start=epoch * steps_per_epoch + skip):
            processes.seed(seed + step)
            model.train()
            loss, count = torch.zeros(()), 0
            if batch is not None and model.senses_in(batch):
                with autocast():
                    if captions is not None:
                        tokens = trained_tokens(model, batch)
                        loss, count = caption_loss(model, tokens, batch, captions, config)
                    else:
                        loss, count = alignment_loss(model, batch, words, config)
            if processes.count() > 1:
                loss = loss * processes.share(count)
            if not any(processes.any_of([loss.requires_grad])):  # nothing that is trained took part
                continue
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            processes.sum_gradients(p for g in optimizer.param_groups for p in g["params"])
            set_rate(optimizer, _rate(config, step, config.epochs * steps_per_epoch))
            optimizer.step()
            optimizer.zero_grad()  # here, so that none is left to what trains next
            (whole,) = processes.total([loss.item()])
            yield epoch, step, whole

"""Training strategies: what is updated, in which order, for one mini-batch (paper 3.3).

Both are iterators over sub-steps, to be used in the loop here or in anybody else's::

    for sub in sequential(model, [batch], order):
        sub.loss.backward()
        if sub.last:
            optimizer.step()
            optimizer.zero_grad()

Sequential training is coordinate descent: per mini-batch and per live sense, update that sense's
adapter and the fusion given everything else. Nothing is computed twice: features come from the
store, only the live sense's tokens carry a gradient, the others' are reused until their adapter
has moved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from open_crema.data.sample import Batch
from open_crema.errors import ConfigError
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens


@dataclass(frozen=True)
class SubStep:
    """sense: whose adapter this loss trains (None: all). loss: call ``backward()`` on it; over the
    micro-batches of one optimizer step the losses sum to the mean over all target tokens. last:
    whether the optimizer steps now."""

    sense: str | None
    loss: Tensor
    last: bool


def joint(
    model: Crema, batches: Sequence[Batch], frozen: Collection[str] = ()
) -> Iterator[SubStep]:
    """All senses at once; batches are the micro-batches of one optimizer step.

    frozen: senses that take part but are not trained (they have exited).
    """
    shares = _shares(model, batches)
    for i, batch in enumerate(batches):
        model.train()
        tokens = {}
        for sense in model.senses:
            if sense not in batch.senses:
                continue
            if sense in frozen:
                tokens[sense] = _settled(model, sense, batch)
            else:
                tokens[sense] = model.query(sense, batch.senses[sense])
        loss = model.answer(tokens, batch).loss * shares[i]
        yield SubStep(None, loss, last=i == len(batches) - 1)


def sequential(model: Crema, batches: Sequence[Batch], order: Sequence[str]) -> Iterator[SubStep]:
    """One sense after the other, each with its own optimizer step; a sense that is in none of the
    micro-batches is skipped. Later senses see the earlier ones' updates.

    order: the live senses, in the order of their sub-steps.
    Raises ConfigError when the shared Q-Former is trainable: no sense's tokens could be reused.
    """
    if any(p.requires_grad for p in model.qformer.parameters()):
        raise ConfigError(
            "sequential training needs a frozen Q-Former: train.qformer=always goes with "
            "train.strategy=joint"
        )
    turns = [s for s in order if any(_has(b, s) for b in batches)]
    shares = _shares(model, batches)
    # The first sense's tokens are not needed before its own sub-step makes them.
    known = [
        {s: _settled(model, s, b) for s in model.senses if s in b.senses and s not in turns[:1]}
        for b in batches
    ]
    for turn, sense in enumerate(turns):
        live = [i for i, b in enumerate(batches) if sense in b.senses]
        for i, batch in enumerate(batches):
            with _training_only(model, sense):
                tokens = dict(known[i])
                if i in live:
                    tokens[sense] = model.query(sense, batch.senses[sense])
                loss = model.answer(tokens, batch).loss * shares[i]
            yield SubStep(sense, loss, last=i == len(batches) - 1)
        if turn < len(turns) - 1:  # its adapter has moved; the other senses need its new tokens
            for i in live:
                known[i][sense] = _settled(model, sense, batches[i])


def _has(batch: Batch, sense: str) -> bool:
    return sense in batch.senses and bool(batch.senses[sense].present.any())


def _shares(model: Crema, batches: Sequence[Batch]) -> list[float]:
    """Each micro-batch's share of the target tokens, so that the sum is the large batch's mean."""
    if len(batches) == 1:
        return [1.0]
    counts = [
        sum(len(model.backbone.target(s.answers[0])) for s in batch.samples) for batch in batches
    ]
    return [count / sum(counts) for count in counts]


@torch.no_grad()
def _settled(model: Crema, sense: str, batch: Batch) -> QueryTokens:
    """A sense's tokens as a constant: no gradient, no dropout."""
    model.adapters[sense].eval()
    model.qformer.eval()
    return model.query(sense, batch.senses[sense])


@contextmanager
def _training_only(model: Crema, sense: str) -> Iterator[None]:
    """Training mode for one sense's path and the fusion; all other adapters are in eval mode."""
    model.train()
    for name, adapter in model.adapters.items():
        adapter.train(name == sense)
    yield

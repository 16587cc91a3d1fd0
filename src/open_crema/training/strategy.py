"""Training strategies: what is updated, in which order, for one mini-batch (paper 3.3).

Both are iterators over sub-steps, to be used in the loop here or in anybody else's::

    for sub in sequential(model, [batch], order):
        sub.loss.backward()
        if sub.last:
            optimizer.step()
            optimizer.zero_grad()

Sequential training is coordinate descent: per mini-batch and per live sense, update that sense's
adapter and the fusion given everything else. What does not require a gradient stays as it is: a
sense whose adapter is frozen is heard, without dropout, and has no sub-step. Nothing is computed
twice: features come from the store, only the live sense's tokens carry a gradient, the others' are
reused until their adapter has moved. Without dropout a sense's tokens are the same whether it is
trained or heard: they are made once, with the graph that its own sub-step needs. That graph is kept
until then, so this is not done where micro-batches are to save memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from open_crema import processes
from open_crema.config import ModelConfig
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens

# What is added to the LLM's loss of a micro-batch: of the query tokens that are trained.
Also = Callable[[Mapping[str, QueryTokens], Batch], Tensor]


@dataclass(frozen=True)
class SubStep:
    """sense: whose adapter this loss trains (None: all). loss: call ``backward()`` on it; over the
    micro-batches of one optimizer step, of all processes, the losses sum to the mean over all
    target tokens. last: whether the optimizer steps now."""

    sense: str | None
    loss: Tensor
    last: bool


def joint(
    model: Crema,
    batches: Sequence[Batch],
    frozen: Collection[str] = (),
    *,
    idle: bool = False,
    also: Also | None = None,
) -> Iterator[SubStep]:
    """All senses at once; batches are the micro-batches of one optimizer step.

    frozen: senses that take part but are not trained (they have exited). idle: only other
    processes have micro-batches left; these stand for none, and their loss is 0. also: a loss
    that is added to the LLM's.
    """
    given = {s for s in model.senses if s in frozen or not model.trains(s)}
    shares = _shares(model, batches, idle)
    for i, batch in enumerate(batches):
        model.train()
        tokens = {
            sense: (_settled if sense in given else _live)(model, sense, batch)
            for sense in model.senses_in(batch)
        }
        loss = model.answer(tokens, batch).loss
        if also is not None:
            loss = loss + also({s: x for s, x in tokens.items() if s not in given}, batch)
        loss = loss * shares[i]
        yield SubStep(None, _rooted(loss), last=i == len(batches) - 1)


def sequential(
    model: Crema,
    batches: Sequence[Batch],
    order: Sequence[str],
    *,
    most: int = 1,
    idle: bool = False,
    also: Also | None = None,
) -> Iterator[SubStep]:
    """One sense after the other, each with its own optimizer step; a sense that is in none of the
    micro-batches of any process is skipped. Later senses see the earlier ones' updates.

    order: the live senses, in the order of their sub-steps. most: micro-batches that any step has:
    where there are several, memory is short, also in a step that has fewer. idle, also: as in
    :func:`joint`.
    Raises ConfigError when the shared Q-Former is trainable: no sense's tokens could be reused.
    """
    if any(p.requires_grad for p in model.qformer.parameters()):
        raise ConfigError(
            "sequential training needs a frozen Q-Former: train.qformer=always goes with "
            "train.strategy=joint"
        )
    strangers = [s for s in order if s not in model.senses]
    if strangers:
        raise ConfigError(
            f"the order names {', '.join(strangers)}; the model has {', '.join(model.senses)}"
        )
    model.train()
    there = [model.senses_in(batch) for batch in batches]
    met = processes.any_of([not idle and any(s in own for own in there) for s in order])
    turns = [s for s, has in zip(order, met, strict=True) if has and model.trains(s)]
    if not turns:
        return
    shares = _shares(model, batches, idle)
    ahead: dict[str, QueryTokens] = {}  # with their graph, of the only micro-batch
    if keeps_graphs(model.config, max(most, len(batches))):
        ahead = {s: _live(model, s, batches[0]) for s in turns[1:] if s in there[0]}
    # The first sense's tokens are not needed before its own sub-step makes them.
    known = [
        {
            s: ahead[s].detached() if s in ahead else _settled(model, s, batch)
            for s in own
            if s != turns[0]
        }
        for batch, own in zip(batches, there, strict=True)
    ]
    for turn, sense in enumerate(turns):
        for i, batch in enumerate(batches):
            _train_only(model, sense)
            live = {}
            if sense in there[i]:
                live[sense] = ahead.pop(sense) if sense in ahead else _live(model, sense, batch)
            loss = model.answer(known[i] | live, batch).loss
            if also is not None:
                loss = loss + also(live, batch)
            loss = loss * shares[i]
            yield SubStep(sense, _rooted(loss), last=i == len(batches) - 1)
        if turn < len(turns) - 1:  # its adapter has moved; the other senses need its new tokens
            for i, batch in enumerate(batches):
                if sense in there[i]:
                    known[i][sense] = _settled(model, sense, batch)


def keeps_graphs(config: ModelConfig, batches: int) -> bool:
    """Whether sequential training makes all senses' tokens at once with their graphs."""
    return batches == 1 and not (config.qformer.dropout or config.lora.dropout)


def _live(model: Crema, sense: str, batch: Batch) -> QueryTokens:
    return model.query(sense, batch.senses[sense])


@torch.no_grad()
def _settled(model: Crema, sense: str, batch: Batch) -> QueryTokens:
    """A sense's tokens as a constant: no gradient, no dropout."""
    path: tuple[nn.Module, ...] = (model.adapter(sense), model.qformer)
    modes = [module.training for module in path]
    for module in path:
        module.eval()
    tokens = model.query(sense, batch.senses[sense])
    for module, mode in zip(path, modes, strict=True):
        module.train(mode)
    return tokens


def _train_only(model: Crema, sense: str) -> None:
    """Training mode for one sense's path and the fusion; all other adapters are in eval mode."""
    model.train()
    for name, adapter in model.adapters.items():
        adapter.train(name == sense)


def _rooted(loss: Tensor) -> Tensor:
    """A loss on which ``backward()`` works, also where nothing that is trained took part."""
    return loss if loss.requires_grad else loss.detach().requires_grad_()


def _shares(model: Crema, batches: Sequence[Batch], idle: bool) -> list[float]:
    """Each micro-batch's share of the target tokens of all processes, so that the sum is the large
    batch's mean."""
    if len(batches) == 1 and processes.count() == 1:
        return [1.0]
    counts = [sum(len(t) for own in model.targets(batch) for t in own) for batch in batches]
    if idle:
        counts = [0] * len(counts)
    (whole,) = processes.total([sum(counts)])
    return [count / whole for count in counts]

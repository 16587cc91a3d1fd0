"""Peak memory of a training step, estimated by running the step on tensors without storage.

A tensor of torch's FakeTensorMode has a shape, a type and a device, and every operation on it gives
the next such tensor; what each would take is added up while it lives. Forward and backward pass are
those of the model itself, so that whatever autograd keeps is counted, at any size and for any LLM.
Of an LLM's equal layers two and three are run, and their difference stands for each of the others.

Not counted: Python and its libraries, what an operation needs inside itself, and what an allocator
keeps. docs/paper-scale.md says how far the estimate was from measurements.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from open_crema import modality
from open_crema.backbones.base import Prompt
from open_crema.config import Config
from open_crema.cost.encoders import work_of
from open_crema.cost.meta import skeleton
from open_crema.cost.operations import Workload, prompt_tokens
from open_crema.encoders.registry import width_for
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens

_FEW, _MORE = 2, 3  # layers that are run


@dataclass(frozen=True)
class Memory:
    """Bytes. weights: of the loaded model, without frozen encoders, as training reads features from
    the store. step: the peak of a micro-batch's forward and backward passes, its features and
    gradients included. optimizer: what it keeps between steps. batch_size: samples of the
    micro-batch."""

    weights: int
    step: int
    optimizer: int
    batch_size: int

    @property
    def above(self) -> int:
        """Above the loaded model."""
        return self.step + self.optimizer

    @property
    def total(self) -> int:
        return self.weights + self.above


def memory(config: Config, work: Workload) -> Memory:
    """Of training as configured, all senses there."""
    model = skeleton(config.model, own_llm=True)
    model.qformer.requires_grad_(config.train.qformer == "always")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    kept = 2 if config.train.optimizer == "adamw" else 0  # two running means of each gradient
    with FakeTensorMode(), _Alive() as alive:
        _without_storage(model)
        alive.forget()
        step = _step(model, config, work, alive)
    return Memory(weights, step, kept * trained, config.train.batch_size)


@dataclass(frozen=True)
class _Stack:
    """Where the LLM keeps a stack of equal layers."""

    owner: nn.Module
    name: str
    layers: nn.ModuleList

    @property
    def length(self) -> int:
        return len(self.layers)


def _stacks(llm: Any) -> list[_Stack]:
    return [
        _Stack(owner, name, child)
        for owner in llm.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and len({type(layer) for layer in child}) == 1
    ]


@contextmanager
def _shortened(stacks: Sequence[_Stack], longer: Sequence[_Stack]) -> Iterator[None]:
    """While it lasts, each stack has two layers, and those of ``longer`` have three."""
    for stack in stacks:
        setattr(stack.owner, stack.name, stack.layers[: _MORE if stack in longer else _FEW])
    try:
        yield
    finally:
        for stack in stacks:
            setattr(stack.owner, stack.name, stack.layers)


def _without_storage(model: Crema) -> None:
    """Parameters and buffers become fake tensors of the CPU; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False):
            if id(old) not in made:
                empty = torch.empty(old.shape, dtype=old.dtype)
                made[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad)
            module._parameters[name] = made[id(old)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    for sense in model.senses:
        # The code of places is kept for all models of a process: it must not be made here.
        model.adapter(sense).grid = False


class _Alive(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and _key(made) not in given:
                self._add(made)
        return out

    def forget(self) -> None:
        """What is there by now is not counted."""
        self.now = self.peak = 0
        self._storages.clear()

    def _add(self, made: Tensor) -> None:
        storage, key = made.untyped_storage(), _key(made)
        if key in self._storages:
            return
        size = storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _step(model: Crema, config: Config, work: Workload, alive: _Alive) -> int:
    """Peak of one sub-step: the features, forward and backward pass."""
    model.train()
    features = {sense: _features(sense, config, work) for sense in model.senses}
    live = model.senses
    if config.train.strategy == "sequential":
        live = [max(features, key=lambda sense: features[sense].numel())]
    with _autocast(config):
        tokens = {s: _tokens(model, s, x, s in live) for s, x in features.items()}
    # What the adapters keep stays while the LLM is run, which needs no second run of them.
    given = {s: replace(q, tokens=q.tokens.detach()) for s, q in tokens.items()}
    for sense in live:
        given[sense].tokens.requires_grad_()
    stacks = _stacks(model.backbone.llm)

    def peak(*longer: _Stack) -> int:
        alive.peak = alive.now
        with _shortened(stacks, longer):
            with _autocast(config):
                prompt = _prompt(model, config, given, work)
                answers = [[0] * work.answer] * config.train.batch_size
                loss = model.backbone(prompt, answers).loss
            loss.backward()
        for moved in (*model.fusion.parameters(), *(q.tokens for q in given.values())):
            moved.grad = None  # the next run makes its own
        return alive.peak

    step = short = peak()
    for length in {stack.length for stack in stacks if stack.length > _FEW}:
        step += (peak(*(s for s in stacks if s.length == length)) - short) * (length - _FEW)
    alive.peak = alive.now
    for sense in live:
        made = tokens[sense].tokens
        made.backward(torch.empty_like(made))
    return max(step, alive.peak)


def _autocast(config: Config) -> AbstractContextManager[Any]:
    if config.train.precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


def _features(sense: str, config: Config, work: Workload) -> Tensor:
    """``[B, S, K, W]``, as the store has them."""
    kind = modality.get(sense)
    encoder = work_of(kind, config.model.encoders)
    width = width_for(kind, config.model.encoders)
    size = (config.train.batch_size, work.segments(sense), encoder.tokens, width)
    return torch.empty(size, dtype=torch.bfloat16)


def _tokens(model: Crema, sense: str, x: Tensor, live: bool) -> QueryTokens:
    """Those of senses that are not live are there, and how they were made is forgotten."""
    adapter, queries = model.adapter(sense), model.config.qformer.queries
    if live:
        memory = adapter.memory(x.flatten(0, 1))
        made = adapter.projection(adapter.read(model.qformer, memory, None))
        made = made.unflatten(0, x.shape[:2])
    else:
        made = torch.empty(*x.shape[:2], queries, model.backbone.width)
    segments = torch.ones(x.shape[:2], dtype=torch.bool)
    return QueryTokens(made, segments, torch.empty(*x.shape[:2], 2, dtype=torch.float64))


def _prompt(
    model: Crema, config: Config, tokens: dict[str, QueryTokens], work: Workload
) -> Prompt:
    """Blocks and text in one sequence, packed as :func:`open_crema.model.prompt.pack` does."""
    first, *others = model.senses
    blocks = [tokens[first].tokens]
    if model.fusion.kind is None:
        blocks += [tokens[sense].tokens for sense in others]
    elif others:
        fused = model.fusion.merge(tokens[first], {sense: tokens[sense] for sense in others})
        append = config.model.fusion.placement == "append"
        blocks = [*blocks, fused] if append else [blocks[0] + fused]
    rows = [block.flatten(1, 2) for block in blocks]
    length = prompt_tokens(config.model, work)
    words = length - sum(row.shape[1] for row in rows)
    kind = model.backbone.llm.get_input_embeddings().weight.dtype
    text = torch.empty(len(rows[0]), words, model.backbone.width, dtype=kind)
    embeds = torch.cat([*(row.to(kind) for row in rows), text], dim=1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    order = torch.argsort(mask, dim=1)[:, :, None].expand(-1, -1, embeds.shape[2])
    return Prompt(embeds.gather(1, order) * mask[:, :, None].to(kind), mask)

"""Memory of a training step beyond the loaded model, and disk for cached features.

The step is run on tensors without storage: one of torch's FakeTensorMode has a shape, a type and a
device, and each operation on it makes the next such tensor. What they would take is added up while
they live, so that all that autograd keeps, and for how long, is what the model's own forward and
backward pass make it, for any size and any LLM. Of an LLM's equal layers two and three are run, and
their difference stands for each of the others.

Not counted: Python and its libraries, what an operation needs inside itself, and what an allocator
keeps ready. ``benchmarks/memory.py`` compares with measurements.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from open_crema.backbones.base import Prompt
from open_crema.config import Config
from open_crema.cost.operations import Tokens, keys_of, prompt_tokens, segments_of
from open_crema.cost.parameters import skeleton
from open_crema.encoders import registry
from open_crema.modality import get
from open_crema.model.crema import Crema
from open_crema.model.fusion import Inner, QueryTokens
from open_crema.training.strategy import keeps_graphs

_FEW, _MORE = 2, 3  # layers that are run
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_QUANTISED = {"int8": 1.0, "nf4": 0.5}  # bytes of a parameter


@dataclass(frozen=True)
class Memory:
    """Bytes. weights: of the LLM, Q-Former, adapters and fusion as they are loaded (encoders are
    not needed where features are cached). step: the peak of a micro-batch's forward and backward
    pass, its features and gradients included. moments: what the optimizer keeps between steps."""

    weights: int
    step: int
    moments: int

    @property
    def training(self) -> int:
        """Peak above the loaded model."""
        return self.step + self.moments


def training_memory(config: Config, tokens: Tokens | None = None) -> Memory:
    """Of one optimizer step of a run, all samples of a micro-batch as long as the tokens say. In
    sequential training the peak is that of the sense with the most features, beside the others'
    graphs where they are kept (:func:`~open_crema.training.strategy.keeps_graphs`).

    Raises what :func:`~open_crema.cost.skeleton` does.
    """
    model = deepcopy(skeleton(config.model))  # its LLM is shared by all skeletons
    model.backbone.to(_DTYPES[config.model.loading.dtype])
    model.qformer.requires_grad_(config.train.qformer != "frozen")
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    if getattr(model.backbone.llm.config, "decoder_start_token_id", None) is None:
        model.backbone.llm.config.decoder_start_token_id = 0  # any: nothing is read
    moments = {"adamw": 2, "sgd": 0}[config.train.optimizer]
    with FakeTensorMode(), _Alive() as alive:
        _without_storage(model)
        _without_masks(model.backbone.llm)
        alive.forget()
        step = _step(model, config, tokens or Tokens(), alive)
    return Memory(_weights(model, config), step, moments * trained)


def _weights(model: Crema, config: Config) -> int:
    rest = {id(p): p.numel() * p.element_size() for p in model.parameters()}
    quantised = _QUANTISED.get(config.model.loading.quantised)
    if quantised is None:
        return sum(rest.values())
    linear = {
        id(m.weight): m.weight.numel() for m in model.backbone.modules() if isinstance(m, nn.Linear)
    }
    head = model.backbone.llm.get_output_embeddings().weight  # bitsandbytes leaves it as it is
    linear.pop(id(head), None)
    whole = sum(size for key, size in rest.items() if key not in linear)
    return whole + int(quantised * sum(linear.values()))


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
                empty = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                made[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad)
            setattr(module, name, made[id(old)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))
    for sense in model.senses:
        # The code of places is kept for all models of a process: it must not be made here.
        model.adapter(sense).grid = False


def _without_masks(llm: Any) -> None:
    """Samples of one length need no mask, which transformers sees of tensors with values only."""
    forward = llm.forward

    def unmasked(
        *args: Any, attention_mask: Any = None, decoder_attention_mask: Any = None, **given: Any
    ) -> Any:
        return forward(*args, **given)

    llm.forward = unmasked


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
    key: int = x.untyped_storage()._cdata
    return key


def _step(model: Crema, config: Config, tokens: Tokens, alive: _Alive) -> int:
    """Peak of one sub-step: the features, forward and backward pass."""
    batch = config.train.batch_size
    model.train()
    features = {sense: _features(sense, model, batch, tokens) for sense in model.senses}
    live = model.senses
    if config.train.strategy == "sequential":
        live = [max(features, key=lambda sense: features[sense].numel())]
    with _autocast(config):
        kept = model.senses if keeps_graphs(config.model, config.train.accumulate) else live
        made = {s: _query(model, s, x, s in kept) for s, x in features.items()}
    # What the adapters keep stays while the LLM is run, which needs no second run of them.
    given = {s: _detached(q) for s, q in made.items()}
    for sense in live:
        _read(model, sense, given).requires_grad_()
    stacks = _stacks(model.backbone.llm)

    def peak(*longer: _Stack) -> int:
        alive.peak = alive.now
        with _shortened(stacks, longer):
            with _autocast(config):
                prompt = _prompt(model, given, tokens)
                loss = model.backbone(prompt, [[0] * tokens.answer] * batch).loss
            loss.backward()
        for moved in (*model.fusion.parameters(), *(_read(model, s, given) for s in given)):
            moved.grad = None  # the next run makes its own
        return alive.peak

    whole = short = peak()
    for length in {stack.length for stack in stacks if stack.length > _FEW}:
        alike = [stack for stack in stacks if stack.length == length]
        whole += (peak(*alike) - short) * (length - _FEW)
    alive.peak = alive.now
    for sense in live:
        found = _read(model, sense, made)
        found.backward(torch.empty_like(found))  # type: ignore[no-untyped-call]
    return max(whole, alive.peak)


def _autocast(config: Config) -> AbstractContextManager[Any]:
    if config.train.precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


def _features(sense: str, model: Crema, batch: int, tokens: Tokens) -> Tensor:
    """``[B, S, K, W]``, in the store's precision."""
    keys, width = keys_of(sense, model.config, tokens), model.adapter(sense).encoder_width
    return torch.empty(batch, segments_of(sense, tokens), keys, width, dtype=torch.bfloat16)


def _query(model: Crema, sense: str, x: Tensor, live: bool) -> QueryTokens:
    """Those of senses that are not live are there, and how they were made is forgotten."""
    adapter, shape = model.adapter(sense), model.config.qformer
    if live:
        states = adapter.states(model.qformer, x.flatten(0, 1), None)
    else:
        states = torch.empty(x.shape[:2].numel(), shape.queries, shape.width)
    with torch.set_grad_enabled(live):
        tokens: Tensor = adapter.projection(states)
    inner = None
    if model.fusion.inside:
        weight, bias = adapter.projection.weight, adapter.projection.bias
        kept = (weight, bias) if live else (weight.detach(), bias.detach())
        inner = Inner(states.view(*x.shape[:2], *states.shape[1:]), *kept)
    segments = torch.ones(x.shape[:2], dtype=torch.bool)
    times = torch.empty(*x.shape[:2], 2, dtype=torch.float64)
    return QueryTokens(tokens.view(*x.shape[:2], *tokens.shape[1:]), segments, times, inner)


def _detached(q: QueryTokens) -> QueryTokens:
    """But for the projection, which a fusion that merges states runs anew: its gradient is made."""
    inner = q.inner and replace(q.inner, states=q.inner.states.detach())
    return replace(q, tokens=q.tokens.detach(), inner=inner)


def _read(model: Crema, sense: str, made: Mapping[str, QueryTokens]) -> Tensor:
    """What the rest of the pass reads of a sense."""
    q = made[sense]
    return q.tokens if q.inner is None or sense == model.senses[0] else q.inner.states


def _prompt(model: Crema, made: Mapping[str, QueryTokens], tokens: Tokens) -> Prompt:
    """Blocks and text in one sequence, packed as :func:`open_crema.model.prompt.pack` does."""
    first, *others = model.senses
    blocks = [made[first].tokens]
    if model.fusion.kind is None:
        blocks += [made[sense].tokens for sense in others]
    elif others:
        fused = model.fusion.merge(made[first], {sense: made[sense] for sense in others})
        append = model.config.fusion.placement == "append"
        blocks = [*blocks, fused] if append else [blocks[0] + fused]
    rows = [block.flatten(1, 2) for block in blocks]
    words = prompt_tokens(model.config, tokens) - sum(row.shape[1] for row in rows)
    kind = model.backbone.llm.get_input_embeddings().weight.dtype
    text = torch.empty(len(rows[0]), max(words, 0), model.backbone.width, dtype=kind)
    embeds = torch.cat([*(row.to(kind) for row in rows), text], dim=1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    order = torch.argsort(mask, dim=1)[:, :, None].expand(-1, -1, embeds.shape[2])
    return Prompt(embeds.gather(1, order) * mask[:, :, None].to(kind), mask)


def store_bytes(config: Config, tokens: Tokens | None = None) -> dict[str, int]:
    """Of one clip's features in the store (bf16), by sense; frames are data.store_frames."""
    given = tokens or Tokens()
    found = {}
    for sense in config.model.senses:
        width = registry.width_for(get(sense), config.model.encoders)
        segments = segments_of(sense, given)
        if segments == given.frames and sense not in ("audio", "point"):
            segments = config.data.store_frames
        found[sense] = segments * keys_of(sense, config.model, given) * width * 2
    return found

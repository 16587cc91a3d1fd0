"""The published training loop: joint or sequential, with the released early exit.

Constant learning rate, no gradient clipping, no accumulation. The record has the fields of the
trace golden files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reference.plain import PlainCrema, Tensors, base_name

TICKER_ORDER = ("rgb", "pc", "norm", "depth", "audio", "flow")


@dataclass(frozen=True)
class Schedule:
    """How a trace is trained."""

    epochs: int
    optimizer: str
    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    es_temperature: float = 1.0
    lazy_epoch: int = 5


@dataclass
class Record:
    """What a run leaves: an entry a step, an entry an epoch, the trainables after each epoch."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    epoch_records: list[dict[str, Any]] = field(default_factory=list)
    after_epoch: list[Tensors] = field(default_factory=list)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether AdamW decays a parameter."""
    return parameter.ndim >= 2 and not any(part in name for part in ("bias", "ln", "bn"))


def make_optimizer(model: PlainCrema, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD without momentum or decay, or AdamW that decays matrices and queries only."""
    trained = model.trainable
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(trained.values(), lr=schedule.lr)
    groups = [
        {
            "params": [p for name, p in trained.items() if decays(name, p) is decayed],
            "weight_decay": schedule.weight_decay if decayed else 0.0,
        }
        for decayed in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas, eps=schedule.eps)


def unfreeze_only(model: PlainCrema, modality: str) -> None:
    """A sub-step trains one modality's parameters and all of the fusion layer."""
    for name, parameter in model.trainable.items():
        parameter.requires_grad_(f"_{base_name(modality)}" in name or "fusion" in name)


def lora_norm(model: PlainCrema, name: str) -> float:
    """L2 norm over the gradients of one modality's LoRA matrices; nothing else counts.

    0.0 for a modality whose LoRA is bypassed.
    """
    grads = [
        parameter.grad.abs().flatten()
        for key, parameter in model.trainable.items()
        if "attention" in key and f"_{name}" in key and parameter.grad is not None
    ]
    return torch.cat(grads).norm().item() if grads else 0.0


class ExitRule:
    """Early exit as released: a modality leaves when its norm grows above tau * past mean."""

    def __init__(self, names: Sequence[str], temperature: float, lazy_epoch: int) -> None:
        self.temperature, self.lazy_epoch = temperature, lazy_epoch
        self.history: dict[str, list[float]] = {m: [] for m in TICKER_ORDER if m in names}
        self.exited = dict.fromkeys(names, False)
        self.exit_epoch = dict.fromkeys(TICKER_ORDER, -1)
        self.margin = math.inf  # the smallest |norm / threshold - 1| that decided anything

    def close_epoch(self, epoch: int, norms: dict[str, float]) -> None:
        """Judge the epoch's norms by the history of the epochs before it, then append them."""
        for name, past in self.history.items():
            if epoch >= self.lazy_epoch and not self.exited[name]:
                threshold = sum(past) / len(past) * self.temperature
                self.margin = min(self.margin, abs(norms[name] / threshold - 1.0))
                if threshold < norms[name]:
                    self.exited[name], self.exit_epoch[name] = True, epoch
            past.append(norms[name])


class Loop:
    """One run; `model` is trained in place, on the same mini-batches every epoch."""

    def __init__(self, model: PlainCrema, tokens: Tensors, schedule: Schedule) -> None:
        self.model, self.tokens, self.schedule = model, tokens, schedule
        self.sequential = "seq" in model.task
        self.gradsel = "gradsel-es" in model.task
        self.optimizer = make_optimizer(model, schedule)
        watched = model.names if self.gradsel else []
        self.rule = ExitRule(watched, schedule.es_temperature, schedule.lazy_epoch)
        self.record = Record()

    def run(self, batches: Sequence[Tensors]) -> Record:
        for epoch in range(self.schedule.epochs):
            meters = {"lr": [0.0, 0], "loss": [0.0, 0]}
            meters |= {f"{name}_grad_scale": [0.0, 0] for name in self.rule.exited}
            for i, batch in enumerate(batches):
                iteration = self._sequential if self.sequential else self._joint
                entries = iteration(batch, meters)
                self.record.steps += [{"epoch": epoch, "iter": i, **e} for e in entries]
                add(meters["lr"], self.schedule.lr)
                add(meters["loss"], sum(e["loss"] for e in entries))
            means = {n: mean(meters[f"{n}_grad_scale"]) for n in self.rule.exited}
            self.rule.close_epoch(epoch, means)
            self._close_epoch(epoch, meters)
        return self.record

    def _sequential(self, batch: Tensors, meters: dict[str, list]) -> list[dict[str, Any]]:
        entries = []
        for name in self.model.names:
            if self.rule.exited.get(name, False):
                continue
            unfreeze_only(self.model, name)
            entries.append(self.step(batch, name, [name]))
            if self.gradsel:  # the meter is made anew every time: only the last norm survives
                meters[f"{name}_grad_scale"] = [entries[-1]["gradsel_norm"][0], 1]
        return entries

    def _joint(self, batch: Tensors, meters: dict[str, list]) -> list[dict[str, Any]]:
        entry = self.step(batch, "joint", self.model.names)
        if self.gradsel:  # exits are computed from these means, and never consulted
            for name, norm in zip(self.model.names, entry["gradsel_norm"], strict=True):
                add(meters[f"{name}_grad_scale"], norm)
        return [entry]

    def step(self, batch: Tensors, label: str, names: Sequence[str]) -> dict[str, Any]:
        """One forward, backward and optimizer step; the loss is the one before the step."""
        loss = self.model.forward(batch, self.tokens)["loss"]
        loss.backward()
        fusion = (p for name, p in self.model.trainable.items() if "fusion" in name)
        entry: dict[str, Any] = {
            "modality": label,
            "loss": loss.item(),
            "fusion_trainable": any(p.requires_grad for p in fusion),
        }
        if self.gradsel:
            entry["gradsel_norm"] = [lora_norm(self.model, name) for name in names]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return entry

    def _close_epoch(self, epoch: int, meters: dict[str, list]) -> None:
        model = self.model
        active = [n for n in model.names if model.weights[f"query_tokens_{n}"].requires_grad]
        self.record.epoch_records.append(
            {
                "epoch": epoch,
                "es_ticker": dict(self.rule.exited),
                "post_es_ticker": dict(self.rule.exit_epoch),
                "history": {name: list(past) for name, past in self.rule.history.items()},
                "requires_grad_after": sorted(active),
                "meters": meters,
            }
        )
        self.record.after_epoch.append(
            {name: value.detach().clone() for name, value in model.trainable.items()}
        )


def add(meter: list, value: float) -> None:
    """Meters are [sum, count]."""
    meter[0] += value
    meter[1] += 1


def mean(meter: list) -> float:
    """Mean of a meter; an empty one counts as 0."""
    return meter[0] / meter[1] if meter[1] else 0.0

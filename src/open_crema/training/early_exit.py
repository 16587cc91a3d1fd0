"""Modality-adaptive early exit: a sense whose gradient grows again has been learnt (paper 3.3)."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch

from open_crema.config import ExitConfig
from open_crema.model.adapter import Adapter


class EarlyExit:
    """Watches one gradient figure a sense and decides, after each epoch, which senses exit.

    After epoch j (from 0) a sense exits when ``g[j] > temperature * mean(g[:j])``: the paper's
    indicator ``g[j+1] / (tau * average(g[:j])) >= 1``. Exited senses never come back; they stay in
    the input, they are only not trained any more.
    """

    def __init__(self, config: ExitConfig) -> None:
        self.config = config
        self.history: dict[str, list[float]] = {}
        self.exited: dict[str, int] = {}  # sense -> the epoch after which it left
        self._epochs: dict[str, list[int]] = {}  # the epochs that the history's figures are of
        self._epoch: dict[str, list[float]] = {}

    def observe(self, sense: str, adapter: Adapter) -> float:
        """Records the gradient of one optimizer step; call between backward and step."""
        value = gradient_figure(adapter, self.config.metric)
        self._epoch.setdefault(sense, []).append(value)
        return value

    def end_epoch(self, epoch: int) -> list[str]:
        """Closes an epoch; returns the senses that exit now."""
        leaving = []
        for sense, values in self._epoch.items():
            last = self.config.history == "last-step"
            now = values[-1] if last else sum(values) / len(values)
            past = self.history.setdefault(sense, [])
            epochs = self._epochs.setdefault(sense, [])
            start = 0 if self.config.warmup == "counted" else self.config.first_epoch
            compared = [g for e, g in zip(epochs, past, strict=True) if e >= start]
            due = self.config.enabled and epoch >= self.config.first_epoch and bool(compared)
            grows = due and now > self.config.temperature * sum(compared) / len(compared)
            if grows and sense not in self.exited:
                self.exited[sense] = epoch
                leaving.append(sense)
            past.append(now)
            epochs.append(epoch)
        self._epoch.clear()
        return leaving

    def live(self, senses: Iterable[str]) -> list[str]:
        """Those still in training, order kept."""
        return [s for s in senses if s not in self.exited]

    def state(self) -> dict[str, Any]:
        """JSON-able; :meth:`restore` continues from it exactly, also inside an epoch."""
        live = {
            "history": self.history,
            "epochs": self._epochs,
            "exited": self.exited,
            "epoch": self._epoch,
        }
        return deepcopy(live)

    def restore(self, state: dict[str, Any]) -> None:
        state = deepcopy(state)
        self.history, self._epochs = state["history"], state["epochs"]
        self.exited, self._epoch = state["exited"], state["epoch"]


def gradient_figure(adapter: Adapter, metric: str) -> float:
    """The scalar that early exit follows; 0 for an adapter without gradients.

    "mmqa-mean-abs": mean absolute gradient over the whole adapter. "lora-l2": L2 norm over its
    low-rank matrices.
    """
    parameters = adapter.lora_matrices() if metric == "lora-l2" else list(adapter.parameters())
    gradients = [p.grad.detach().float() for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    if metric == "lora-l2":
        return float(torch.stack([g.norm() for g in gradients]).norm())
    total = torch.stack([g.abs().sum() for g in gradients]).sum()
    return float(total) / sum(g.numel() for g in gradients)

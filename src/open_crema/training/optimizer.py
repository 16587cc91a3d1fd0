"""Optimizer groups and learning-rate schedules, the published ones and a per-step cosine."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from open_crema.config import TrainConfig

WARMUP_START = 1e-8  # the released code's first learning rate


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Over the trainable parameters; matrices decay, biases and norms (fewer than two dimensions)
    do not. Parameters without a gradient are neither moved nor decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8)


def schedule(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """``learning_rate(step)``, step counted from 0 over mini-batches.

    "cosine": linear warm-up, then one cosine to min_lr over the rest of the run.
    "epoch-cosine" (released code): warm-up inside epoch 0 only, cut off by its end; from epoch 1
    on a cosine that is constant within each epoch. "constant": lr.
    """
    lr, low, warm = config.lr, config.min_lr, config.warmup_steps

    def cosine(share: float) -> float:
        return low + (lr - low) / 2 * (1 + math.cos(math.pi * share))

    def rate(step: int) -> float:
        if config.schedule == "constant":
            return lr
        epoch = step // max(steps_per_epoch, 1)
        rising = step < warm and (config.schedule == "cosine" or epoch == 0)
        if rising:
            return WARMUP_START + (lr - WARMUP_START) * step / warm
        if config.schedule == "epoch-cosine":
            return lr if epoch == 0 else cosine(epoch / config.epochs)
        total = config.epochs * steps_per_epoch
        return cosine(min((step - warm) / max(total - warm, 1), 1.0))

    return rate


def set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate

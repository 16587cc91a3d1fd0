"""A full-size configuration made small: fewer and narrower layers, a tiny LLM, the same code."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

import tiny
from open_crema.config import Config
from open_crema.model.crema import Crema
from open_crema.modality import canonical
from open_crema.training.early_exit import EarlyExit
from open_crema.training.optimizer import build_optimizer
from open_crema.training.strategy import joint, sequential


def shrink(config: Config) -> Config:
    """Two layers of 16 in the place of twelve of 768, three queries of 32, rank 2 or more (4 where
    128 is, 1 where 32 is). All that is no size stays: fusion, prompt, dropout, training."""
    shape = replace(
        config.model.qformer, layers=2, width=16, heads=2, ffn=32, queries=3, encoder_width=12
    )
    lora = replace(config.model.lora, rank=config.model.lora.rank // 32)
    return replace(config, model=replace(config.model, qformer=shape, lora=lora))


def build(config: Config) -> Crema:
    """The model of a shrunk configuration, with random weights."""
    torch.manual_seed(config.seed)
    llm = tiny.backbone("encoder-decoder", dropout=config.model.llm_dropout)
    return Crema(config.model, llm, {sense: tiny.WIDTHS[sense] for sense in config.model.senses})


def train_one_step(model: Crema, config: Config) -> list[str]:
    """One optimizer step a sub-step, over as many micro-batches of two samples as configured; the
    senses of the sub-steps ("all" in joint training). Early exit observes each."""
    senses = canonical(config.model.senses)
    frames = config.data.frames
    counts = {s: {"audio": 2, "point": 1}.get(s, frames) for s in senses}
    groups = [
        tiny.batch(*(tiny.item(2 * i + j, answer="a red dog", **counts) for j in range(2)))
        for i in range(config.train.accumulate)
    ]
    optimizer = build_optimizer(model, config.train)
    exits = EarlyExit(config.train.exit)
    if config.train.strategy == "joint":
        subs = joint(model, groups)
    else:
        subs = sequential(model, groups, config.model.senses)
    turns = []
    while True:
        with _precision(config):
            sub = next(subs, None)
        if sub is None:
            return turns
        assert torch.isfinite(sub.loss)
        sub.loss.backward()
        if sub.last:
            turns.append(sub.sense or "all")
            for sense in [sub.sense] if sub.sense else senses:
                assert exits.observe(sense, model.adapter(sense)) > 0
            optimizer.step()
            optimizer.zero_grad()


def _precision(config: Config) -> Any:
    if config.train.precision == "fp32":
        return nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)

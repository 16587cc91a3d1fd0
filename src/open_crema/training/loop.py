"""The training loop: steps, schedule, validation, log, checkpoints and resumption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from open_crema import progress
from open_crema.config import Config, to_dict
from open_crema.data.dataset import FeatureDataset
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError
from open_crema.model.crema import Crema
from open_crema.model.files import save_pretrained
from open_crema.training import checkpoint
from open_crema.training.align import align
from open_crema.training.early_exit import EarlyExit
from open_crema.training.optimizer import build_optimizer, schedule, set_rate
from open_crema.training.strategy import SubStep, joint, sequential

Validate = Callable[[Crema], Mapping[str, float]]
# What may differ between a run and its resumption.
_FREE = ("epochs", "validate_every", "threads")


class Trainer:
    """Trains a model's adapters and fusion; files go to ``out``.

        log.jsonl         one line a sub-step and an epoch
        checkpoints/      the newest checkpoint; a run that was cut off continues from it
        model/            the result: the best epoch by validation accuracy, else the last

    validate: gives at least "accuracy"; None trains without validation.
    Every random draw is a function of the seed and the step, so a resumed run is the same run.
    """

    def __init__(
        self,
        model: Crema,
        config: Config,
        train: FeatureDataset,
        out: str | Path,
        *,
        validate: Validate | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.data = train
        self.out = Path(out)
        self.validate = validate
        self.model.qformer.requires_grad_(config.train.qformer == "always")
        self.optimizer = build_optimizer(model, config.train)
        batches = math.ceil(len(train) / config.train.batch_size)
        self.steps_per_epoch = math.ceil(batches / config.train.accumulate)
        self.rate = schedule(config.train, self.steps_per_epoch)
        self.exits = EarlyExit(config.train.exit)
        self.order = list(config.train.order or config.model.senses)
        if sorted(self.order) != sorted(config.model.senses):
            raise ConfigError(
                f"train.order names {', '.join(self.order)}; it must hold each of model.senses "
                f"({', '.join(config.model.senses)}) once"
            )
        self.step = 0
        self.best: float | None = None

    def run(self, *, fresh: bool = False) -> Path:
        """Trains (or continues) to the end and returns the folder of the saved model.

        Raises ConfigError where ``out`` holds a run of another configuration; ``fresh`` discards
        whatever is there.
        """
        train = self.config.train
        if train.threads:
            torch.set_num_threads(train.threads)
        self.out.mkdir(parents=True, exist_ok=True)
        last = None if fresh else checkpoint.latest(self.out / "checkpoints")
        if last is None:
            (self.out / "log.jsonl").unlink(missing_ok=True)
            self._align()
            self._checkpoint()
        else:
            self._resume(last)
        with progress.bar() as bar:
            total = train.epochs * self.steps_per_epoch
            task = bar.add_task("training", total=total, completed=self.step, note="")
            while self.step < total:
                epoch = self.step // self.steps_per_epoch
                self._train_epoch(epoch, lambda note: bar.update(task, advance=1, note=note))
                self._end_epoch(epoch)
        if self.best is None:
            save_pretrained(self.model, self.out / "model", run=self.config)
        return self.out / "model"

    def _train_epoch(self, epoch: int, advance: Callable[[str], None]) -> None:
        for group in self._groups(epoch, skip=self.step % self.steps_per_epoch):
            start = time.perf_counter()
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            rate = self.rate(self.step)
            set_rate(self.optimizer, rate)
            losses: dict[str, float] = {}
            gradients: dict[str, float] = {}
            for sub in self._sub_steps(group):
                sub.loss.backward()  # type: ignore[no-untyped-call]
                name = sub.sense or "all"
                losses[name] = losses.get(name, 0.0) + sub.loss.item()
                if sub.last:
                    gradients |= self._observe(sub, group)
                    self._clip()
                    self.optimizer.step()
                    self.optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - start
            for name, loss in losses.items():
                self._log(
                    kind="step",
                    step=self.step,
                    epoch=epoch,
                    sense=name,
                    loss=loss,
                    lr=rate,
                    gradient=gradients if name == "all" else gradients[name],
                    seconds=seconds / len(losses),
                )
            self.step += 1
            mean = sum(losses.values()) / max(len(losses), 1)
            advance(f"loss {mean:.3f}" if losses else "all senses have exited")

    def _groups(self, epoch: int, skip: int) -> Iterator[list[Batch]]:
        """Micro-batches of one optimizer step each."""
        train = self.config.train
        batches = self.data.batches(
            train.batch_size,
            training=True,
            epoch=epoch,
            seed=self.config.seed,
            skip=skip * train.accumulate,
        )
        group: list[Batch] = []
        for batch in batches:
            group.append(batch.to(self.model.backbone.device))
            if len(group) == train.accumulate:
                yield group
                group = []
        if group:
            yield group

    def _sub_steps(self, group: list[Batch]) -> Iterator[SubStep]:
        """The strategy's sub-steps; forward passes, and only they, run in the given precision."""
        if self.config.train.strategy == "sequential":
            subs = sequential(self.model, group, self.exits.live(self.order))
        else:
            apply = self.config.train.exit.joint == "freeze"
            subs = joint(self.model, group, frozen=self.exits.exited if apply else ())
        while True:
            with self._autocast():
                sub = next(subs, None)
            if sub is None:
                return
            yield sub

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.train.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.model.backbone.device.type, dtype=torch.bfloat16)

    def _observe(self, sub: SubStep, group: list[Batch]) -> dict[str, float]:
        if sub.sense is not None:
            return {sub.sense: self.exits.observe(sub.sense, self.model.adapter(sub.sense))}
        there = [s for s in self.model.senses if any(s in batch.senses for batch in group)]
        apply = self.config.train.exit.joint == "freeze"
        watched = self.exits.live(there) if apply else there
        return {s: self.exits.observe(s, self.model.adapter(s)) for s in watched}

    def _clip(self) -> None:
        if self.config.train.clip > 0:
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, self.config.train.clip)

    def _end_epoch(self, epoch: int) -> None:
        self.exits.end_epoch(epoch)
        line: dict[str, Any] = {"kind": "epoch", "epoch": epoch, "exited": self.exits.exited}
        due = (epoch + 1) % self.config.train.validate_every == 0
        if self.validate is not None and (due or epoch + 1 == self.config.train.epochs):
            self.model.eval()
            result = dict(self.validate(self.model))
            line["validation"] = result
            if self.best is None or result["accuracy"] > self.best:
                self.best = result["accuracy"]
                save_pretrained(self.model, self.out / "model", run=self.config)
        self._log(**line)
        self._checkpoint()

    def _align(self) -> None:
        stage = self.config.train.alignment
        if not stage.epochs:
            return
        batches = math.ceil(len(self.data) / stage.batch_size)
        self.model.qformer.requires_grad_(self.config.train.qformer != "frozen")
        with progress.bar() as bar:
            task = bar.add_task("aligning", total=stage.epochs * batches, note="")

            def log(epoch: int, step: int, loss: float) -> None:
                self._log(kind="align", epoch=epoch, step=step, loss=loss)
                bar.update(task, advance=1, note=f"loss {loss:.3f}")

            align(
                self.model,
                self.data.samples,
                lambda epoch: (
                    batch.to(self.model.backbone.device)
                    for batch in self.data.batches(
                        stage.batch_size, training=True, epoch=epoch, seed=self.config.seed
                    )
                ),
                stage,
                seed=self.config.seed * 1_000_003,
                log=log,
            )
        self.model.qformer.requires_grad_(self.config.train.qformer == "always")

    def _checkpoint(self) -> None:
        state = {
            "exits": self.exits.state(),
            "best": self.best,
            "config": to_dict(self.config),
            "log_bytes": _size(self.out / "log.jsonl"),
        }
        checkpoint.save(self.out / "checkpoints", self.step, self.model, self.optimizer, state)

    def _resume(self, place: Path) -> None:
        state = checkpoint.restore(place, self.model, self.optimizer)
        differ = _differences(state["config"], to_dict(self.config))
        if differ:
            raise ConfigError(
                f"{self.out}: holds a run whose {', '.join(differ)} differ from this "
                "configuration's; choose another `out` or start again with --fresh"
            )
        self.step, self.best = state["step"], state["best"]
        self.exits.restore(state["exits"])
        log = self.out / "log.jsonl"
        if log.exists():  # lines written after the checkpoint are of steps that are run again
            with log.open("r+b") as file:
                file.truncate(state["log_bytes"])

    def _log(self, **line: Any) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of the model, training and seed in which two runs differ."""
    keys = [("seed",), *((part, key) for part in ("model", "train") for key in new[part])]
    free = [("train", key) for key in _FREE]

    def value(data: Mapping[str, Any], path: tuple[str, ...]) -> Any:
        for part in path:
            data = data.get(part)  # type: ignore[assignment]
        return data

    return [".".join(k) for k in keys if k not in free and value(old, k) != value(new, k)]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

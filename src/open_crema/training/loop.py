"""The training loop: steps, schedule, validation, log, checkpoints and resumption."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from open_crema import progress
from open_crema.config import Config, to_dict
from open_crema.data.dataset import FeatureDataset
from open_crema.data.sample import Batch
from open_crema.data.sampler import shuffled
from open_crema.data.sense_dropout import withhold
from open_crema.errors import ConfigError, CremaError, DataError, WeightsError
from open_crema.model.crema import Crema
from open_crema.model.files import check_replaceable, save_pretrained
from open_crema.training import checkpoint
from open_crema.training.align import align
from open_crema.training.early_exit import EarlyExit
from open_crema.training.optimizer import build_optimizer, schedule, set_rate
from open_crema.training.scope import freeze_published
from open_crema.training.strategy import SubStep, joint, sequential

Validate = Callable[[Crema], Mapping[str, float]]
# The sections that a run and its resumption share, and the keys of them that may differ.
_SECTIONS = ("model", "train")
_FREE = tuple(("train", key) for key in ("epochs", "validate_every", "checkpoint_every", "threads"))
_DATA = (("data", "frames"), ("data", "store_frames"))


class Trainer:
    """Trains a model's adapters and fusion; files go to ``out``.

        log.jsonl         one line a sub-step and an epoch
        checkpoints/      the newest checkpoint; a run that was cut off continues from it
        model/            the result: the best epoch by validation accuracy, else the last

    validate: gives at least "accuracy"; None trains without validation.
    Every random draw is a function of the seed and the step, so a resumed run is the same run.
    Raises ConfigError where the configuration contradicts itself, DataError without questions.
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
        if config.train.qformer == "always" and config.train.strategy != "joint":
            raise ConfigError("train.qformer=always needs train.strategy=joint")
        if not len(train):
            raise DataError("there is no question to train on")
        self.model = model
        self.config = config
        self.data = train
        self.out = Path(out)
        self.validate = validate
        self.model.qformer.requires_grad_(config.train.qformer == "always")
        own = config.train.scope == "own"
        self.order = freeze_published(model) if own else list(config.model.senses)
        self.optimizer = build_optimizer(model, config.train)
        batches = math.ceil(len(train) / config.train.batch_size)
        self.steps_per_epoch = math.ceil(batches / config.train.accumulate)
        self.rate = schedule(config.train, self.steps_per_epoch)
        self.exits = EarlyExit(config.train.exit)
        self.step = 0
        self.best: float | None = None

    def run(self, *, fresh: bool = False) -> Path:
        """Trains (or continues) to the end and returns the folder of the saved model. The end is
        the last epoch, or the one after which all senses have exited.

        Raises ConfigError where ``out`` holds a run of another configuration or other questions;
        where another process trains into it; ``fresh`` discards whatever run is there. Raises
        CremaError where a loss is not finite.
        """
        with _alone(self.out), _threads(self.config.train.threads):
            self._start(fresh)
            with progress.bar() as bar:
                total = self.config.train.epochs * self.steps_per_epoch
                task = bar.add_task("training", total=total, completed=self.step, note="")
                while self.step < total and not self._all_exited():
                    epoch = self.step // self.steps_per_epoch
                    self._train_epoch(epoch, lambda note: bar.update(task, advance=1, note=note))
                    self._end_epoch(epoch)
            if self.best is None:
                save_pretrained(self.model, self.out / "model", run=self.config)
            elif not (self.out / "model").exists():
                raise WeightsError(
                    f"{self.out / 'model'}: its best epoch was saved there and is gone; start "
                    "again with --fresh"
                )
        return self.out / "model"

    def _start(self, fresh: bool) -> None:
        checkpoints = self.out / "checkpoints"
        if fresh:  # first of all, so that no later run can continue what was discarded
            checkpoint.discard(checkpoints)
            shutil.rmtree(self.out / "model", ignore_errors=True)
        last = checkpoint.latest(checkpoints)
        if last is not None:
            self._resume(last)
            return
        (self.out / "log.jsonl").unlink(missing_ok=True)
        for sample, error in self.data.skipped.items():
            self._log(kind="skipped", sample=sample, error=error)
        for (sample, sense), error in self.data.masked.items():
            self._log(kind="masked", sample=sample, sense=sense, error=error)
        self._align()
        self._checkpoint()

    def _all_exited(self) -> bool:
        """Whether there is nothing left to train."""
        if self.config.train.strategy == "joint" and self.config.train.exit.joint == "observe":
            return False
        return not self.exits.live(self.order)

    def _train_epoch(self, epoch: int, advance: Callable[[str], None]) -> None:
        done = self.step % self.steps_per_epoch
        for group in self._groups(epoch, skip=done):
            start = time.perf_counter()
            group = self._withhold(group, epoch, self.step)
            torch.manual_seed(self.config.seed * 1_000_003 + self.step)
            rate = self.rate(self.step)
            set_rate(self.optimizer, rate)
            losses: dict[str, float] = {}
            gradients: dict[str, float] = {}
            for sub in self._sub_steps(group):
                name = sub.sense or "all"
                losses[name] = losses.get(name, 0.0) + self._finite(sub)
                sub.loss.backward()  # type: ignore[no-untyped-call]
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
            advance(f"loss {mean:.3f}" if losses else "no sense to train")
            every, inside = self.config.train.checkpoint_every, self.step % self.steps_per_epoch
            if every and self.step % every == 0 and inside:  # at its end the epoch writes its own
                self._checkpoint()

    def _finite(self, sub: SubStep) -> float:
        loss = sub.loss.item()
        if not math.isfinite(loss):
            who = sub.sense or "all senses"
            raise CremaError(
                f"{self.out}: the loss of step {self.step} ({who}) is {loss}: lower "
                "train.lr or set train.clip, and start again with --fresh"
            )
        return loss

    def _groups(self, epoch: int, skip: int) -> Iterator[list[Batch]]:
        """Micro-batches of one optimizer step each, without the epoch's first ``skip`` steps."""
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

    def _withhold(self, group: list[Batch], epoch: int, step: int) -> list[Batch]:
        dropout, seed = self.config.train.sense_dropout, self.config.seed
        return withhold(group, dropout, self.model.senses, seed=seed, epoch=epoch, step=step)

    def _sub_steps(self, group: list[Batch]) -> Iterator[SubStep]:
        """The strategy's sub-steps; forward passes, and only they, run in the given precision."""
        if self.config.train.strategy == "sequential":
            live = self.exits.live(self.order)
            if self.config.train.order == "shuffled":
                live = shuffled(live, self.config.seed, self.step)
            subs = sequential(self.model, group, live)
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
        device = self.model.backbone.device.type
        # A cast made without a gradient (another sense's tokens) must not serve a pass with one.
        return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)

    def _observe(self, sub: SubStep, group: list[Batch]) -> dict[str, float]:
        if sub.sense is not None:
            return {sub.sense: self.exits.observe(sub.sense, self.model.adapter(sub.sense))}
        trained = [s for s in self.model.senses if s in self.order]
        there = [s for s in trained if any(s in batch.senses for batch in group)]
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
        train = self.config.train
        due = (epoch + 1) % train.validate_every == 0
        last = epoch + 1 == train.epochs or self._all_exited()
        if self.validate is not None and (due or last):
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

            def batches_of(epoch: int) -> Iterator[Batch]:
                found = self.data.batches(
                    stage.batch_size, training=True, epoch=epoch, seed=self.config.seed
                )
                for step, batch in enumerate(found):
                    yield from self._withhold([batch.to(self.model.backbone.device)], epoch, step)

            align(
                self.model,
                self.data.samples,
                batches_of,
                stage,
                seed=self.config.seed * 1_000_003,
                log=log,
            )
        self.model.qformer.requires_grad_(self.config.train.qformer == "always")

    def _checkpoint(self) -> None:
        state = {
            "exits": self.exits.state(),
            "best": self.best,
            "trained": self.order,
            "config": to_dict(self.config),
            "questions": _digest(self.data),
            "log_bytes": _size(self.out / "log.jsonl"),
        }
        checkpoint.save(self.out / "checkpoints", self.step, self.model, self.optimizer, state)

    def _resume(self, place: Path) -> None:
        state = checkpoint.read_state(place)
        missing = {
            "step",
            "exits",
            "best",
            "trained",
            "config",
            "questions",
            "log_bytes",
        } - state.keys()
        if missing:
            raise WeightsError(
                f"{place / checkpoint.STATE}: has no {', '.join(sorted(missing))}; start again "
                "with --fresh, or choose another `out`"
            )
        differ = _differences(state["config"], to_dict(self.config))
        if state["questions"] != _digest(self.data):
            differ.append("training questions")
        if state["trained"] != self.order:  # the model of train.init has been replaced
            differ.append("senses to train")
        if differ:
            raise ConfigError(
                f"{self.out}: holds a run whose {', '.join(differ)} differ from this "
                "configuration's; choose another `out` or start again with --fresh"
            )
        checkpoint.restore(place, self.model, self.optimizer)
        self.step, self.best = state["step"], state["best"]
        self.exits.restore(state["exits"])
        log = self.out / "log.jsonl"
        if _size(log) > state["log_bytes"]:  # lines of steps that are run again
            with log.open("r+b") as file:
                file.truncate(state["log_bytes"])

    def _log(self, **line: Any) -> None:
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def check_out(out: str | Path) -> None:
    """Raises ConfigError where the folder of a run cannot be written, WeightsError where other
    things than a model are in the place of its model. Writes nothing."""
    out = Path(out).absolute()
    there = next(place for place in (out, *out.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ConfigError(f"{out}: cannot be written, {there} is no folder; choose another `out`")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{out}: cannot be written, {there} is closed; choose another `out`")
    check_replaceable(out / "model")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch with so many threads (0: as many as it has), and afterwards as before."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys that decide a run's course and in which two runs differ."""
    keys = [("seed",), *_DATA, *((part, key) for part in _SECTIONS for key in new[part])]

    def value(data: Any, path: tuple[str, ...]) -> Any:
        for part in path:
            data = data.get(part) if isinstance(data, Mapping) else None
        return data

    return [".".join(k) for k in keys if k not in _FREE and value(old, k) != value(new, k)]


def _digest(data: FeatureDataset) -> str:
    """What the run is trained on, by all but the places of the media files."""
    digest = hashlib.sha256()
    for s in data.samples:
        digest.update(json.dumps([s.id, s.question, s.answers, sorted(s.media)]).encode())
    for masked in sorted(data.masked):
        digest.update(json.dumps(masked).encode())
    return digest.hexdigest()[:16]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Refuses to train into a folder that another process is training into."""
    check_out(out)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{out}: another process is training into it; wait for it or choose another `out`"
        ) from None
    try:
        yield
    finally:
        lock.release()

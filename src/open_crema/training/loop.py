"""The training loop: steps, schedule, validation, log, checkpoints and resumption."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from open_crema import processes, progress, termination
from open_crema.config import Config, to_dict
from open_crema.data.dataset import FeatureDataset
from open_crema.data.sample import Batch
from open_crema.data.sampler import shuffled
from open_crema.errors import ConfigError, CremaError, DataError, WeightsError
from open_crema.model.crema import Crema
from open_crema.model.files import save_pretrained
from open_crema.model.fusion import QueryTokens
from open_crema.termination import Stopped
from open_crema.training import align, checkpoint, identity
from open_crema.training.checkpoint import Checkpoint
from open_crema.training.early_exit import EarlyExit
from open_crema.training.folder import RunFolder
from open_crema.training.micro_batches import MicroBatches
from open_crema.training.optimizer import build_optimizer, schedule, set_rate
from open_crema.training.scope import freeze_published
from open_crema.training.strategy import Also, SubStep, joint, sequential

Validate = Callable[[Crema], Mapping[str, float]]

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model's adapters and fusion; files go to ``out``.

        log.jsonl         one line a sub-step and an epoch
        timing.jsonl      the seconds of each step
        checkpoints/      the last two; a run that was cut off continues from the newest
        model/            the result: the best epoch by validation accuracy, else the last

    validate: gives at least "accuracy"; None trains without validation.

    Inside :func:`~open_crema.processes.joined` the processes train one model together, each on its
    own micro-batches of ``batch_size``; the first of them writes all files.

    Every random draw is a function of the seed and the step, so a resumed run is the same run: on
    the CPU in fp32, with the same torch and number of threads, bit for bit.
    Raises ConfigError where train.scope=own finds nothing to train, DataError without questions.
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
        if not len(train):
            raise DataError("there is no question to train on")
        self.model = model
        self.config = config
        self.data = train
        self.folder = RunFolder(out)
        self.validate = validate
        self.model.qformer.requires_grad_(config.train.qformer == "always")
        own = config.train.scope == "own"
        self.order = freeze_published(model) if own else list(config.model.senses)
        self.optimizer = build_optimizer(model, config.train)
        self.batches = MicroBatches(train, config, model.senses, model.backbone.device)
        self.steps_per_epoch = self.batches.steps
        self.rate = schedule(config.train, self.steps_per_epoch)
        self.exits = EarlyExit(config.train.exit)
        self._also = self._words_kept()
        self.step = 0
        self.epochs = 0  # those that are over, with their validation
        self.best: float | None = None
        self.best_step: int | None = None
        self._asked_to_stop: Callable[[], bool] = lambda: False

    def run(self, *, fresh: bool = False) -> Path:
        """Trains (or continues) to the end and returns the folder of the saved model. The end is
        the last epoch, or the one after which all senses have exited.

        Raises ConfigError where ``out`` holds a run of another configuration or other questions;
        where another process trains into it; ``fresh`` discards whatever run is there. Raises
        CremaError where a loss is not finite, WeightsError where the disk is full.

        On SIGTERM, where this is the main thread, the current step is finished and saved, and
        :class:`~open_crema.termination.Stopped` raised; the next call continues.
        """
        with (
            self.folder.alone(),
            _threads(self.config.train.threads),
            termination.deferred() as asked,
        ):
            self._asked_to_stop = lambda: any(processes.any_of([asked()]))
            if fresh:  # first of all, so that no later run can continue what was discarded
                self.folder.discard()
            processes.wait()  # for the first to have put the folder in order
            last = checkpoint.latest(self.folder.checkpoints)
            self._check_alike(last)
            processes.same(self._trained())
            if last is None:
                self._begin()
            else:
                self._continue(last)
            if last is None or last.stage == "align":
                self._align(last)
            self._train()
            if self.best is None:
                self._save_model()
            processes.wait()  # for the first to have saved it
            if not self.folder.model.exists():
                raise WeightsError(
                    f"{self.folder.model}: its best epoch was saved there and is gone; start "
                    "again with --fresh"
                )
        return self.folder.model

    def _check_alike(self, last: Checkpoint | None) -> None:
        """Raises ConfigError in every process where they are not about to do the same run, as when
        one could not read a file, or sees another machine's folder: they would wait for ever, or
        train on what nobody asked for."""
        config = to_dict(self.config)
        own = {
            "configuration": [config["seed"], config["model"], config["train"]],
            "training questions": identity.digest(self.data),
            "senses to train": self.order,
            "checkpoint to go on from": last and (last.stage, last.step),
        }
        differ = [name for name, value in own.items() if not processes.agree(str(value))]
        if differ:
            raise ConfigError(
                f"{self.folder.out}: the processes of this run differ in their "
                f"{', '.join(differ)}; all need the same files, the same command and one `out`"
            )

    def _begin(self) -> None:
        self.folder.begin()
        for sample, error in self.data.skipped.items():
            self.folder.log(kind="skipped", sample=sample, error=error)
        for (sample, sense), error in self.data.masked.items():
            self.folder.log(kind="masked", sample=sample, sense=sense, error=error)

    def _train(self) -> None:
        total = self.config.train.epochs
        with progress.bar() as bar:
            steps = total * self.steps_per_epoch
            task = bar.add_task("training", total=steps, completed=self.step, note="")
            while self.epochs < total and not self._all_exited():
                epoch = self.epochs
                self._train_epoch(epoch, lambda note: bar.update(task, advance=1, note=note))
                self._end_epoch(epoch)

    def _all_exited(self) -> bool:
        """Whether there is nothing left to train."""
        if self.config.train.strategy == "joint" and self.config.train.exit.joint == "observe":
            return False
        return not self.exits.live(self.order)

    def _train_epoch(self, epoch: int, advance: Callable[[str], None]) -> None:
        done = self.step - epoch * self.steps_per_epoch
        for group, idle in self.batches.groups(epoch, skip=done):
            start = time.perf_counter()
            processes.seed(self.config.seed * 1_000_003 + self.step)
            rate = self.rate(self.step)
            set_rate(self.optimizer, rate)
            losses: dict[str, float] = {}
            gradients: dict[str, float] = {}
            for sub in self._sub_steps(group, idle):
                name = sub.sense or "all"
                losses.setdefault(name, 0.0)
                if not idle:  # a gradient of zero would be one: for weight decay and momentum
                    losses[name] += self._finite(sub)
                    sub.loss.backward()  # type: ignore[no-untyped-call]
                if sub.last:
                    processes.sum_gradients(self._trained())
                    gradients |= self._observe(sub, group, idle)
                    self._clip()
                    self.optimizer.step()
                    self.optimizer.zero_grad(set_to_none=True)
            self.folder.time(step=self.step, seconds=time.perf_counter() - start)
            losses = dict(zip(losses, processes.total(list(losses.values())), strict=True))
            for name, loss in losses.items():
                self.folder.log(
                    kind="step",
                    step=self.step,
                    epoch=epoch,
                    sense=name,
                    loss=loss,
                    lr=rate,
                    gradient=gradients if name == "all" else gradients[name],
                )
            self.step += 1
            mean = sum(losses.values()) / max(len(losses), 1)
            advance(f"loss {mean:.3f}" if losses else "no sense to train")
            inside = self.step % self.steps_per_epoch  # at its end the epoch writes its own
            if self._asked_to_stop() or (inside and self._due(self.step)):
                self._checkpoint("step", self.step, self.optimizer)

    def _finite(self, sub: SubStep) -> float:
        loss = sub.loss.item()
        if not math.isfinite(loss):
            who = sub.sense or "all senses"
            raise CremaError(
                f"{self.folder.out}: the loss of step {self.step} ({who}) is {loss}: lower "
                "train.lr or set train.clip, and start again with --fresh"
            )
        return loss

    def _sub_steps(self, group: list[Batch], idle: bool) -> Iterator[SubStep]:
        """The strategy's sub-steps; forward passes, and only they, run in the given precision."""
        if self.config.train.strategy == "sequential":
            live = self.exits.live(self.order)
            if self.config.train.order == "shuffled":
                live = shuffled(live, self.config.seed, self.step)
            most = self.config.train.accumulate
            subs = sequential(self.model, group, live, most=most, idle=idle, also=self._also)
        else:
            apply = self.config.train.exit.joint == "freeze"
            frozen = self.exits.exited if apply else ()
            subs = joint(self.model, group, frozen=frozen, idle=idle, also=self._also)
        while True:
            with self._autocast():
                sub = next(subs, None)
            if sub is None:
                return
            yield sub

    def _words_kept(self) -> Also | None:
        stage = self.config.train.alignment
        if not stage.keep:
            return None
        captions = align.captions_of(self.model.backbone, self.data.samples)
        if captions is None:
            raise ConfigError(
                f"train.alignment.keep={stage.keep}: no training question has captions; give it 0"
            )

        def loss(tokens: Mapping[str, QueryTokens], batch: Batch) -> Tensor:
            return stage.keep * align.caption_loss(self.model, tokens, batch, captions, stage).loss

        return loss

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.train.precision == "fp32":
            return nullcontext()
        device = self.model.backbone.device.type
        # A cast made without a gradient (another sense's tokens) must not serve a pass with one.
        return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)

    def _observe(self, sub: SubStep, group: list[Batch], idle: bool) -> dict[str, float]:
        if sub.sense is not None:
            return {sub.sense: self.exits.observe(sub.sense, self.model.adapter(sub.sense))}
        trained = [s for s in self.model.senses if s in self.order]
        met = [not idle and any(s in batch.senses for batch in group) for s in trained]
        there = list(itertools.compress(trained, processes.any_of(met)))
        apply = self.config.train.exit.joint == "freeze"
        watched = self.exits.live(there) if apply else there
        return {s: self.exits.observe(s, self.model.adapter(s)) for s in watched}

    def _clip(self) -> None:
        if self.config.train.clip > 0:
            torch.nn.utils.clip_grad_norm_(self._trained(), self.config.train.clip)

    def _trained(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _end_epoch(self, epoch: int) -> None:
        if self.validate is not None and processes.count() > 1:
            # Asked to stop while they wait for each other's part, they could not save any more.
            self._checkpoint("step", self.step, self.optimizer)
        before = self.exits.state()
        self.exits.end_epoch(epoch)
        line: dict[str, Any] = {"kind": "epoch", "epoch": epoch, "exited": self.exits.exited}
        train = self.config.train
        due = (epoch + 1) % train.validate_every == 0
        last = epoch + 1 == train.epochs or self._all_exited()
        if self.validate is not None and (due or last):
            self.model.eval()
            try:
                with termination.at_once():  # it may take long, and nothing is lost by its end
                    result = dict(self.validate(self.model))
            except Stopped:
                self.exits.restore(before)
                self._asked_to_stop = lambda: True
                self._checkpoint("step", self.step, self.optimizer)
            line["validation"] = result
            if self.best is None or result["accuracy"] > self.best:
                self.best, self.best_step = result["accuracy"], self.step
        self.folder.log(**line)
        self.epochs = epoch + 1
        self._checkpoint("step", self.step, self.optimizer)

    def _align(self, last: Checkpoint | None) -> None:
        """The alignment stage, from its checkpoint where there is one, up to training's first."""
        stage = self.config.train.alignment
        if stage.epochs:
            self.model.qformer.requires_grad_(self.config.train.qformer != "frozen")
            optimizer = align.build_optimizer(self.model, stage)
            start = 0 if last is None else last.step
            if last is not None:
                self._restore(last, optimizer)
            steps = align.align(
                self.model,
                self.data.samples,
                self.batches.of_alignment,
                stage,
                optimizer,
                seed=self.config.seed * 1_000_003,
                steps_per_epoch=self.batches.alignment_steps,
                start=start,
                autocast=self._autocast,
            )
            total = stage.epochs * self.batches.alignment_steps
            with progress.bar() as bar:
                task = bar.add_task("aligning", total=total, completed=start, note="")
                for epoch, step, loss in steps:
                    self.folder.log(kind="align", epoch=epoch, step=step, loss=loss)
                    bar.update(task, advance=1, note=f"loss {loss:.3f}")
                    if self._asked_to_stop() or self._due(step + 1):
                        self._checkpoint("align", step + 1, optimizer)
            self.model.qformer.requires_grad_(self.config.train.qformer == "always")
        self._checkpoint("step", 0, self.optimizer)

    def _due(self, step: int) -> bool:
        every = self.config.train.checkpoint_every
        return every > 0 and step % every == 0

    def _checkpoint(self, stage: str, step: int, optimizer: Optimizer) -> None:
        """Saves where the run is; here it ends if it has been asked to."""
        if self.folder.writes:
            self._write_checkpoint(stage, step, optimizer)
        if self._asked_to_stop():
            raise Stopped(
                f"{self.folder.out}: stopped by SIGTERM and saved ({stage} {step}); run the same "
                "command again to continue"
            )

    def _write_checkpoint(self, stage: str, step: int, optimizer: Optimizer) -> None:
        state = {
            "exits": self.exits.state(),
            "epochs": self.epochs,
            "best": self.best,
            "trained": self.order,
            "best_step": self.best_step,
            "config": to_dict(self.config),
            "questions": identity.digest(self.data),
            "log_bytes": self.folder.log_bytes(),
            "computed_by": identity.computed_by(),
            "processes": processes.count(),
        }
        checkpoint.save(self.folder.checkpoints, stage, step, self.model, optimizer, state)
        if stage == "step" and step == self.best_step:
            self._save_model()

    def _save_model(self) -> None:
        if not self.folder.writes:
            return
        dtype = torch.bfloat16 if self.config.train.saved == "bf16" else None
        save_pretrained(self.model, self.folder.model, run=self.config, dtype=dtype)

    def _continue(self, last: Checkpoint) -> None:
        state = last.state
        differ = identity.differences(state["config"], to_dict(self.config))
        if state["questions"] != identity.digest(self.data):
            differ.append("training questions")
        if state["trained"] != self.order:  # the model of train.init has been replaced
            differ.append("senses to train")
        if state.get("processes", 1) != processes.count():
            differ.append("number of processes")
        if differ:
            raise ConfigError(
                f"{self.folder.out}: holds a run whose {', '.join(differ)} differ from this "
                "configuration's; choose another `out` or start again with --fresh"
            )
        if state["computed_by"] != identity.computed_by():
            logger.warning(
                "%s: was computed by %s, now by %s; it goes on, but not bit for bit as it would "
                "have",
                last.place,
                state["computed_by"],
                identity.computed_by(),
            )
        self.folder.rewind(state["log_bytes"])
        if last.stage == "align":
            return
        self._restore(last, self.optimizer)
        self.step, self.epochs = last.step, state["epochs"]
        self.best, self.best_step = state["best"], state["best_step"]
        self.exits.restore(state["exits"])
        if self.best_step == self.step:  # killed before it was saved, perhaps
            self._save_model()

    def _restore(self, last: Checkpoint, optimizer: Optimizer) -> None:
        checkpoint.restore(last, self.model, optimizer)
        processes.wait()  # for all to have read what the first replaces
        if self.folder.writes:
            checkpoint.discard_newer(last)


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

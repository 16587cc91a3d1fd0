"""Which micro-batches a process reads of an epoch, and which of them make a step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch

from open_crema import processes
from open_crema.config import Config
from open_crema.data.dataset import FeatureDataset
from open_crema.data.sample import Batch
from open_crema.data.sense_dropout import withhold


class MicroBatches:
    """The epochs of a run. Of as many micro-batches as there are processes each reads one, so that
    together they read what a single process would with ``train.accumulate`` times as many.

    steps: optimizer steps of an epoch. alignment_steps: of one of the alignment stage.
    """

    def __init__(
        self, data: FeatureDataset, config: Config, senses: Sequence[str], device: torch.device
    ) -> None:
        self._data, self._config = data, config
        self._senses, self._device = senses, device
        train = config.train
        rows = len(data.rows(train.questions))
        batches = math.ceil(rows / train.batch_size)
        self.steps = math.ceil(batches / (train.accumulate * processes.count()))
        if train.epoch_steps:
            self.steps = min(self.steps, train.epoch_steps)
        # A caption is of the media, whichever of the questions about them stands for it.
        size = train.alignment.batch_size
        self.alignment_steps = math.ceil(math.ceil(rows / size) / processes.count())

    def groups(self, epoch: int, skip: int) -> Iterator[tuple[list[Batch], bool]]:
        """Those of one optimizer step each, without the epoch's first ``skip`` steps; and whether
        this process has none in this step, and another stands for it."""
        train = self._config.train
        batches = self._own(train.batch_size, epoch, skip * train.accumulate)
        for step in range(skip, self.steps):
            group = list(itertools.islice(batches, train.accumulate))
            idle = not group
            if idle:
                group = [next(self._own(train.batch_size, epoch, 0, first=0))]
            yield self._withhold(group, epoch, epoch * self.steps + step), idle

    def of_alignment(self, epoch: int, skip: int) -> Iterator[Batch | None]:
        """One a step of the alignment stage; None where only other processes have one."""
        found = self._own(self._config.train.alignment.batch_size, epoch, skip)
        for step in range(skip, self.alignment_steps):
            batch = next(found, None)
            yield None if batch is None else self._withhold([batch], epoch, step)[0]

    def _own(
        self, size: int, epoch: int, skip: int, *, first: int | None = None
    ) -> Iterator[Batch]:
        """Of each round of the processes the first'th, by default that of this one's number;
        without as many rounds as ``skip``."""
        first, every = processes.rank() if first is None else first, processes.count()
        batches = self._data.batches(
            size,
            training=True,
            epoch=epoch,
            seed=self._config.seed,
            skip=skip * every + first,
            every=every,
            questions=self._config.train.questions,
        )
        for batch in batches:
            yield batch.to(self._device)

    def _withhold(self, group: list[Batch], epoch: int, step: int) -> list[Batch]:
        dropout, seed = self._config.train.sense_dropout, self._config.seed
        return withhold(group, dropout, self._senses, seed=seed, epoch=epoch, step=step)

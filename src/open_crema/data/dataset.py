"""Samples with their features, as batches in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from open_crema.data import sampler
from open_crema.data.extract import Extractor, Source
from open_crema.data.sample import Batch, Sample, collate
from open_crema.errors import SenseAbsent
from open_crema.features import Features

_MEMORY = 2 * 2**30


class FeatureDataset:
    """Questions joined to the features of their media.

    frames: segments of each visual sense that a sample uses, of those the extractor keeps.
    memory_bytes: features stay in memory from their first use until this much is held; the rest
        is read from the store each time.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        extractor: Extractor,
        *,
        frames: int,
        memory_bytes: int = _MEMORY,
    ) -> None:
        self.samples = list(samples)
        self.extractor = extractor
        self.frames = frames
        self._memory_left = memory_bytes
        self._memory: dict[tuple[Source, str], Features | SenseAbsent] = {}
        self._absent: dict[tuple[int, str], str] = {}

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def absent(self) -> dict[str, Counter[str]]:
        """sense -> reason -> number of samples batched so far that do not have it."""
        counts: dict[str, Counter[str]] = {sense: Counter() for sense in self.extractor.senses}
        for (_, sense), reason in self._absent.items():
            counts[sense][reason] += 1
        return counts

    def batch(
        self,
        indices: Sequence[int],
        *,
        training: bool = False,
        epoch: int = 0,
        seed: int = 0,
        senses: Collection[str] | None = None,
    ) -> Batch:
        """The samples at these places. What a sample gets does not depend on the others.

        senses: those that are read, by default all of the extractor's.

        Raises MediaError where a file is missing or broken.
        """
        wanted = self.extractor.senses if senses is None else senses
        return collate(
            [(self.samples[i], self._features(i, training, epoch, seed, wanted)) for i in indices]
        )

    def batches(
        self,
        batch_size: int,
        *,
        training: bool = False,
        epoch: int = 0,
        seed: int = 0,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """One epoch: shuffled for training, else in order; the last batch may be smaller.

        skip: batches at the start that are left out without being read, to resume an epoch.
        """
        places = sampler.order(seed, epoch, len(self)) if training else list(range(len(self)))
        for start in range(skip * batch_size, len(self), batch_size):
            chosen = places[start : start + batch_size]
            yield self.batch(chosen, training=training, epoch=epoch, seed=seed)

    def _features(
        self, index: int, training: bool, epoch: int, seed: int, senses: Collection[str]
    ) -> Mapping[str, Features]:
        sample = self.samples[index]
        found = {}
        for sense, modality in self.extractor.modalities.items():
            if sense not in senses:
                continue
            features = self._read(sample, sense)
            if isinstance(features, SenseAbsent):
                self._absent[index, sense] = features.reason
                continue
            if modality.alignment == "frames":
                chosen = sampler.choose_frames(
                    len(features.tokens),
                    self.frames,
                    training=training,
                    seed=seed,
                    epoch=epoch,
                    sample_id=sample.id,
                )
                features = sampler.select(features, chosen)
            found[sense] = features
        return found

    def _read(self, sample: Sample, sense: str) -> Features | SenseAbsent:
        source = self.extractor.source(sample, sense)
        if isinstance(source, SenseAbsent):
            return source
        if (source, sense) in self._memory:
            return self._memory[source, sense]
        found = self.extractor.features(sample, sense)
        size = 0
        if isinstance(found, Features):
            size = sum(t.nbytes for t in (found.tokens, found.mask, found.times))
        if size <= self._memory_left:
            self._memory_left -= size
            self._memory[source, sense] = found
        return found

"""Samples with their features, as batches in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from open_crema.data import sampler
from open_crema.data.extract import Extractor, Source
from open_crema.data.report import Policy
from open_crema.data.sample import Batch, Sample, collate
from open_crema.encoders.points import even
from open_crema.errors import SenseAbsent
from open_crema.features import Features

# How the reason of a sense begins that is absent because its file cannot be used.
UNUSABLE = "unusable media"

_MEMORY = 2 * 2**30


@dataclass
class _Memory:
    """Features that are held, and how many bytes more may be; all views of a data set share it."""

    left: int
    held: dict[tuple[Source, str], Features | SenseAbsent] = field(default_factory=dict)


class FeatureDataset:
    """Questions joined to the features of their media.

    frames: segments of each visual sense that a sample uses, of those the extractor keeps. How many
        points of a cloud it uses, and which, its encoders' configuration says.
    memory_bytes: features stay in memory from their first use until this much is held; the rest
        is read from the store each time.
    failed: sense -> id of a sample -> what is wrong with its file, as a report of
        :func:`~open_crema.data.extraction.extract_all` has it. on_error: "skip" leaves these
        samples out, "mask" the senses out of the samples, "error" treats them as all others.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        extractor: Extractor,
        *,
        frames: int,
        memory_bytes: int = _MEMORY,
        failed: Mapping[str, Mapping[str, str]] | None = None,
        on_error: Policy = "error",
    ) -> None:
        pairs = [(s, of, e) for s, ids in (failed or {}).items() for of, e in ids.items()]
        self.skipped = {of: f"{s}: {e}" for s, of, e in pairs} if on_error == "skip" else {}
        self.masked = {(of, s): e for s, of, e in pairs} if on_error == "mask" else {}
        self.samples = [sample for sample in samples if sample.id not in self.skipped]
        self.extractor = extractor
        self.frames = frames
        self._memory = _Memory(memory_bytes)
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

    def masking(self) -> FeatureDataset:
        """The same data and memory, with masks of its own: its ``masked`` may be added to."""
        view = copy(self)
        view.masked = dict(self.masked)
        return view

    def shared(self, first: int, every: int) -> FeatureDataset:
        """Of the same data each so many-th sample, where several processes share them."""
        view = copy(self)
        view.samples, view._absent = self.samples[first::every], {}
        return view

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
        every: int = 1,
        questions: int = 1,
    ) -> Iterator[Batch]:
        """One epoch: shuffled for training, else in order; the last batch may be smaller.

        skip: batches at the start that are left out without being read, to resume an epoch.
        every: of the rest only each so many-th is read, where several processes share an epoch.
        questions: above 1, a batch has ``batch_size`` media, each once an epoch, with no more than
        so many of the questions about them, which each epoch draws anew.
        """
        rows = self.rows(questions)
        order = sampler.order(seed, epoch, len(rows)) if training else list(range(len(rows)))
        for start in range(skip * batch_size, len(rows), every * batch_size):
            chosen = [rows[i] for i in order[start : start + batch_size]]
            if questions > 1:
                chosen = [
                    sampler.some(own, questions, seed, epoch, self.samples[own[0]].id)
                    for own in chosen
                ]
            batch = self.batch(
                [own[0] for own in chosen], training=training, epoch=epoch, seed=seed
            )
            others = [tuple(self.samples[i] for i in own[1:]) for own in chosen]
            yield replace(batch, others=tuple(others)) if any(others) else batch

    def rows(self, questions: int) -> list[list[int]]:
        """What batches are made of: places of samples, by media where several questions about the
        same ones are asked together."""
        if questions == 1:
            return [[i] for i in range(len(self))]
        media: dict[Hashable, list[int]] = {}
        for i, sample in enumerate(self.samples):
            same = frozenset(sample.media.items()), frozenset(sample.timing.items())
            media.setdefault(same, []).append(i)
        return list(media.values())

    def features(self, index: int, sense: str) -> Features | SenseAbsent:
        """All of one sample's features of a sense, or why it has none; MediaError as in batch."""
        sample = self.samples[index]
        if (error := self.masked.get((sample.id, sense))) is not None:
            return SenseAbsent(sense, f"{UNUSABLE}: {error}")
        source = self.extractor.source(sample, sense)
        if isinstance(source, SenseAbsent):
            return source
        if (source, sense) in self._memory.held:
            return self._memory.held[source, sense]
        found = self.extractor.features(sample, sense)
        size = 0
        if isinstance(found, Features):
            size = sum(t.nbytes for t in (found.tokens, found.mask, found.times))
        if size <= self._memory.left:
            self._memory.left -= size
            self._memory.held[source, sense] = found
        return found

    def _features(
        self, index: int, training: bool, epoch: int, seed: int, senses: Collection[str]
    ) -> Mapping[str, Features]:
        sample = self.samples[index]
        found = {}
        for sense, modality in self.extractor.modalities.items():
            if sense not in senses:
                continue
            features = self.features(index, sense)
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
            elif modality.encoder == "point":
                features = self._points(features, training, epoch, seed, sample.id)
            found[sense] = features
        return found

    def _points(
        self, features: Features, training: bool, epoch: int, seed: int, sample_id: str
    ) -> Features:
        """Of a cloud that has more points than a sample uses, those that this one does."""
        config = self.extractor.encoders_config
        real = features.mask[0].nonzero()[:, 0]
        if len(features.tokens) > 1 or len(real) <= config.max_points:
            return features
        drawn = config.point_choice == "reference" or (config.point_choice == "drawn" and training)
        kept = (
            sampler.choose_points(len(real), config.max_points, seed, epoch, sample_id)
            if drawn
            else even(len(real), config.max_points)
        )
        chosen = real[kept]
        return Features(features.tokens[:, chosen], features.mask[:, chosen], features.times)

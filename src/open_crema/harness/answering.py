"""Questions as the harness puts them, answered the way evaluation answers its own."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from open_crema import experiment, weights
from open_crema.config import Config, EvalConfig
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Extractor
from open_crema.data.sample import Batch, Sample
from open_crema.data.store import FeatureStore
from open_crema.errors import ConfigError
from open_crema.evaluation.answer import answer
from open_crema.evaluation.metrics import choose
from open_crema.harness.visuals import media_of
from open_crema.media import Limits
from open_crema.model import hub
from open_crema.model.files import from_pretrained, run_of


@dataclass(frozen=True)
class Asked:
    """name: for errors. text: the whole prompt, as the LLM is to read it. visuals: gives what the
    question is about; called when its turn comes, as it may hold a decoded video. options: texts to
    be scored as answers."""

    name: str
    text: str
    visuals: Callable[[], Any]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class OptionLoss:
    """mean: negative log-likelihood per token, end token included. greedy: whether a greedy search
    would say exactly that."""

    mean: float
    greedy: bool


class Answering:
    """A saved model that answers whole prompts about media.

    source: model folder, or user/name on the hub; None is what ``crema ask`` takes. senses: of the
    model's, those that it is given; None is all. batch_size: questions at once; None is that of the
    model's own configuration. device: of the LLM and the encoders; None is the configuration's.
    store: folder in which features are kept for the next run; None is the cache of this user.

    Raises WeightsError where there is no such model or it has no such sense.
    """

    def __init__(
        self,
        source: str | None = None,
        *,
        senses: Sequence[str] | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        store: str | None = None,
    ) -> None:
        folder = hub.local(source or experiment.default_model())
        run = run_of(folder)
        held = run if device is None else _on(run, device)
        self.model = from_pretrained(folder, senses=senses, held=held.model)
        self.config = run.eval
        self.batch_size = batch_size or run.eval.batch_size
        self.asked = 0
        self.blind = 0
        self.absent: dict[str, Counter[str]] = defaultdict(Counter)
        self._frames = run.data.frames
        self._extractor = Extractor(
            self.model.senses,
            self.model.config.encoders,
            frames=run.data.store_frames,
            limits=Limits.from_config(run.data.limits),
            store=FeatureStore(store or weights.home() / "features"),
        )

    def generate(
        self, questions: Sequence[Asked], config: EvalConfig, *, done: Callable[[int], None]
    ) -> list[str]:
        """An answer to each, in their order. config: how it is searched. done: told the number of
        questions answered since. Raises MediaError, naming the question, for unusable media."""
        texts = []
        for batch in self._batches(questions):
            texts += [said.text for said in answer(self.model, batch, config)]
            done(len(batch))
        return texts

    def losses(
        self, questions: Sequence[Asked], *, done: Callable[[int], None]
    ) -> list[list[OptionLoss]]:
        """Of each question's options, which it must have. Raises as :meth:`generate`, and
        CremaError where likelihoods are not numbers."""
        found = []
        for batch in self._batches(questions):
            scores = self.model.score(batch)
            choose(scores)  # refuses what is not a number
            rows = zip(batch.samples, scores.mean.tolist(), scores.greedy.tolist(), strict=True)
            for sample, means, greedy in rows:
                pairs = list(zip(means, greedy, strict=True))[: len(sample.options)]
                found.append([OptionLoss(-mean, own) for mean, own in pairs])
            done(len(batch))
        return found

    def _batches(self, questions: Sequence[Asked]) -> Iterator[Batch]:
        for start in range(0, len(questions), self.batch_size):
            with tempfile.TemporaryDirectory(prefix="crema-") as folder:
                samples = [
                    _sample(question, Path(folder, str(i)))
                    for i, question in enumerate(questions[start : start + self.batch_size])
                ]
                data = FeatureDataset(samples, self._extractor, frames=self._frames)
                batch = data.batch(range(len(samples))).to(self.model.backbone.device)
            self._count(data, batch)
            yield batch

    def _count(self, data: FeatureDataset, batch: Batch) -> None:
        """Notes who had media and not all senses of them: nobody else will tell."""
        there = self.model.senses_in(batch)
        for i, sample in enumerate(data.samples):
            given = any(bool(batch.senses[sense].present[i]) for sense in there)
            self.blind += bool(sample.media) and not given
        self.asked += len(data)
        for sense, reasons in data.absent.items():
            self.absent[sense].update(reasons)


def _sample(question: Asked, folder: Path) -> Sample:
    shown = media_of(question.visuals(), folder)
    return Sample(
        id=question.name,
        question=question.text,
        media=shown.media,
        options=question.options,
        timing=shown.timing,
    )


def _on(run: Config, device: str) -> Config:
    """The same, with the LLM and the encoders on that device."""
    if not device.strip():
        raise ConfigError("device: is empty; give a device, as cuda or cuda:1")
    loading = replace(run.model.loading, device_map=None if device == "cpu" else device)
    encoders = replace(run.model.encoders, device=device)
    return replace(run, model=replace(run.model, loading=loading, encoders=encoders))

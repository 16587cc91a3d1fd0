"""Questions about one's own media: ``set_media()`` once, ``ask()`` many times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import torch

from open_crema import modality
from open_crema.config import DataConfig, EvalConfig
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Extractor, Source
from open_crema.data.sample import Batch, Sample
from open_crema.data.store import FeatureStore
from open_crema.errors import ConfigError, CremaError, MediaError, SenseAbsent
from open_crema.evaluation.answer import answer
from open_crema.features import Features
from open_crema.media import Limits
from open_crema.model.crema import UNTRAINED, Crema
from open_crema.sense_costs import cheapest_first, cost_key, measured_here
from open_crema.tasks.jsonl import multiple_choice, open_ended

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class OptionProbability:
    """An option and its share of the likelihood of all of them."""

    option: str
    probability: float


@dataclass(frozen=True)
class UsedSense:
    """gate: an assisting sense's share of the fused tokens, in [0, 1]; None for the primary sense,
    which reaches the LLM unfused, and for models that fuse nothing. segments: frames, sound
    windows."""

    gate: float | None
    segments: int


@dataclass(frozen=True)
class Confidence:
    """Early exit at inference.

    probability: of the answer, among the options or, for an open question, of all its tokens.
    threshold: what it had to pass. rounds: answers made, each with one sense more. spared: the
    senses that have not been needed, by an earlier question about these media neither, with the
    seconds that each would have been expected to take: as measured here before, or guessed from
    its modality's relative cost and those that were.
    """

    probability: float
    threshold: float
    rounds: int
    spared: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """options: in the order in which they were given; None for an open question. absent: the
    senses that the model knows and did not get, with the reason. seconds: of reading and encoding
    each sense ("read+encode", once for all questions) and of this answer ("answer"). confidence:
    None where none was asked for."""

    answer: str
    options: tuple[OptionProbability, ...] | None
    senses: Mapping[str, UsedSense]
    absent: Mapping[str, str]
    seconds: Mapping[str, Any]
    confidence: Confidence | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; options and confidence only where they were asked for."""
        plain: dict[str, Any] = {"answer": self.answer}
        if self.options is not None:
            plain["options"] = [asdict(option) for option in self.options]
        plain["senses"] = {name: asdict(sense) for name, sense in self.senses.items()}
        if self.confidence is not None:
            plain["confidence"] = asdict(self.confidence)
        return {**plain, "absent": dict(self.absent), "seconds": dict(self.seconds)}


@dataclass
class _Media:
    """The media at hand. order: senses in the order in which they are read; keys: what each one's
    measured seconds are kept by; batch: what has been read; absent: what is not there after all."""

    dataset: FeatureDataset
    order: list[str]
    keys: Mapping[str, str]
    batch: Batch
    absent: dict[str, str]


class Predictor:
    """Answers questions about media, the way evaluation does.

    data: its frames, store_frames and limits are used, which should be those of training. eval:
    how open questions are answered. store: where features are kept between runs; None keeps none.
    confidence: None reads every sense at once. Below 1, senses are read one by one, the cheapest
    first (as measured on this machine), until an answer's probability is above it; what an earlier
    question has read is not used before its turn. Train with ``train.sense_dropout``, or the model
    has never answered with so few. At 1 every sense is used, as with None.
    The model is put into evaluation mode. Raises ConfigError for a confidence outside (0, 1].
    """

    def __init__(
        self,
        model: Crema,
        *,
        data: DataConfig | None = None,
        eval: EvalConfig | None = None,
        store: FeatureStore | None = None,
        confidence: float | None = None,
    ) -> None:
        if confidence is not None and not 0 < confidence <= 1:
            raise ConfigError(f"confidence {confidence:g}: give a probability above 0, at most 1")
        data = data or DataConfig()
        self.model = model.eval()
        self.config = eval or EvalConfig()
        self.frames = data.frames
        self.confidence = confidence
        self._costs = measured_here()
        self._extractor = _TimedExtractor(
            model.senses,
            model.config.encoders,
            frames=data.store_frames,
            limits=Limits.from_config(data.limits),
            store=store,
        )
        self._media: _Media | None = None

    def set_media(
        self, video: PathLike | None = None, senses: Mapping[str, PathLike] | None = None
    ) -> None:
        """What the next questions are about; forgets what was there before. Reads and encodes every
        sense or, with a confidence, the first one that there is.

        video: also serves the senses that can be made from it. senses: name -> its own file or
        folder.

        Raises ConfigError for a sense that is unknown or that the model has no adapter for,
        MediaError for a file that is missing or unusable, or where no sense is left.
        """
        self._media = None
        paths = dict(senses or {})
        if video is not None:
            if "video" in paths:
                raise ConfigError("the video is given twice: as the video and among the senses")
            paths["video"] = video
        self._check(paths)
        media = {sense: os.fspath(path) for sense, path in paths.items()}
        name = Path(next(iter(media.values()))).name
        self._extractor.seconds.clear()
        sample = Sample(id=name, question="", media=media)
        found = self._open(sample)
        self._read(found, found.order if self._patient else [])
        for sense in found.order:
            if found.batch.senses:
                break
            self._read(found, [sense])
        if not found.batch.senses:
            reasons = "; ".join(f"{sense}: {reason}" for sense, reason in found.absent.items())
            raise MediaError(f"{name}: nothing to look at or listen to ({reasons})")
        self._media = found

    @property
    def _patient(self) -> bool:
        """Whether every sense is used, however sure the answer is without."""
        return self.confidence is None or self.confidence >= 1

    def ask(self, question: str, options: Sequence[str] | None = None) -> Answer:
        """The answer to a question: one of the options where there are some, else free text.

        Raises CremaError for an empty question, for options that are not 2 to 26 different texts,
        and before any media were given; with a confidence also MediaError, as :meth:`set_media`.
        """
        if self._media is None:
            raise CremaError("no media to ask about: call set_media() first")
        media = self._media
        sample = _sample(question, options)
        start, before = time.perf_counter(), sum(self._extractor.seconds.values())
        rounds, threshold = 0, self.confidence
        for used in self._rounds(media):
            batch = replace(media.batch.only(used), samples=(sample,))
            (said,) = answer(self.model, batch, self.config, confident=threshold is not None)
            rounds += 1
            if threshold is not None and (said.confidence or 0) > threshold:
                break
        reading = dict(self._extractor.seconds)
        answering = time.perf_counter() - start - (sum(reading.values()) - before)
        sure = None
        if threshold is not None and said.confidence is not None:
            expected = self._costs.expected(media.keys)  # now that more has been measured
            read = {*media.batch.senses, *media.absent}
            spared = {s: t for s, t in expected.items() if s not in read}
            sure = Confidence(said.confidence, threshold, rounds, spared)
        took = {"read+encode": reading, "answer": answering}
        shares = None
        if sample.options:
            pairs = zip(sample.options, said.probabilities, strict=True)
            shares = tuple(OptionProbability(option, p) for option, p in pairs)
        return Answer(said.text, shares, self._used(batch), dict(media.absent), took, sure)

    def _rounds(self, media: _Media) -> Iterator[list[str]]:
        """The senses that an answer is made from: one more each time, or all of them at once."""
        used: list[str] = []
        for sense in media.order:
            self._read(media, [sense])
            if sense not in media.absent:
                used.append(sense)
                if not self._patient:
                    yield used
        if self._patient:
            yield used

    def _open(self, sample: Sample) -> _Media:
        """The sample's senses in the order in which they are read; nothing is read yet."""
        absent: dict[str, str] = dict.fromkeys(self.model.untrained, UNTRAINED)
        keys: dict[str, str] = {}
        for sense in self.model.senses:
            source = self._extractor.source(sample, sense)
            if isinstance(source, SenseAbsent):
                absent.setdefault(sense, source.reason)
            elif sense not in absent:
                keys[sense] = cost_key(sense, source.maker)
        order = list(keys)
        if not self._patient:
            order = cheapest_first(keys, self._costs.expected(keys))
        dataset = FeatureDataset([sample], self._extractor, frames=self.frames)
        return _Media(dataset, order, keys, Batch((sample,)), absent)

    def _read(self, media: _Media, senses: Sequence[str]) -> None:
        """Reads what has not been read; notes what each took, or that it is not there."""
        new = [s for s in senses if s not in media.batch.senses and s not in media.absent]
        if not new:
            return
        sample = media.dataset.samples[0]
        batch = media.dataset.batch([0], senses=new).to(self.model.backbone.device)
        media.batch = replace(media.batch, senses={**media.batch.senses, **batch.senses})
        for sense in new:
            if sense not in batch.senses:
                media.absent[sense] = next(iter(media.dataset.absent[sense]))
            source = self._extractor.source(sample, sense)
            if self._extractor.store is None and isinstance(source, Source):
                self._costs.note(cost_key(sense, source.maker), self._extractor.seconds[sense])
        self._costs.save()

    def _check(self, paths: Mapping[str, PathLike]) -> None:
        known = ", ".join(self.model.senses)
        if not paths:
            raise MediaError(f"nothing to look at or listen to: give a video, or files of {known}")
        for sense, path in paths.items():
            modality.get(sense)
            # A video may be there only for the senses that are made from it.
            if sense != "video" and sense not in self.model.senses:
                raise ConfigError(f"the model has no adapter for {sense!r}; it has {known}")
            if not os.path.exists(path):
                raise MediaError(f"{path}: no such file or folder (given as {sense})")

    @torch.no_grad()
    def _used(self, batch: Batch) -> dict[str, UsedSense]:
        tokens = self.model.query_all(batch)
        shares = self.model.fusion.shares(tokens)
        primary = next(iter(tokens), None)  # canonical order: the first one present
        used = {}
        for sense, x in batch.senses.items():
            fused = self.model.fusion.merges and sense != primary
            gate = float(shares[sense]) if sense in shares else 0.0
            used[sense] = UsedSense(gate if fused else None, int(x.segments.sum()))
        return used


class _TimedExtractor(Extractor):
    """Notes how long each sense took, loading of its encoder included."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seconds: dict[str, float] = {}

    def features(self, sample: Sample, sense: str) -> Features | SenseAbsent:
        start = time.perf_counter()
        try:
            return super().features(sample, sense)
        finally:
            self.seconds[sense] = time.perf_counter() - start


def _sample(question: str, options: Sequence[str] | None) -> Sample:
    text = _text(question, "the question")
    if options is None:
        return Sample(id="", question=open_ended(text), media={})
    given = tuple(_text(option, f"option {i}") for i, option in enumerate(options, start=1))
    if not 2 <= len(given) <= len(ascii_uppercase):
        raise CremaError(
            f"{len(given)} options: give 2 to {len(ascii_uppercase)}, or none for an open question"
        )
    if len(set(given)) < len(given):
        raise CremaError(f"an option is given twice: {', '.join(given)}")
    return Sample(id="", question=multiple_choice(text, given), media={}, options=given)


def _text(value: str, what: str) -> str:
    text = value.strip()
    if not text:
        raise CremaError(f"{what} is empty; write some text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CremaError(f"{what} is not valid text: it holds half of a UTF-16 pair") from None
    return text

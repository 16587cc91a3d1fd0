"""Questions about one's own media: ``set_media()`` once, ``ask()`` many times."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import torch

from open_crema import modality
from open_crema.config import DataConfig, EvalConfig
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Extractor
from open_crema.data.sample import Batch, Sample
from open_crema.data.store import FeatureStore
from open_crema.errors import ConfigError, CremaError, MediaError, SenseAbsent
from open_crema.evaluation.metrics import choose
from open_crema.features import Features
from open_crema.media import Limits
from open_crema.model.crema import UNTRAINED, Crema
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
    which reaches the LLM unfused, and for models without a gate. segments: frames, sound
    windows."""

    gate: float | None
    segments: int


@dataclass(frozen=True)
class Answer:
    """options: in the order in which they were given; None for an open question. absent: the
    senses that the model knows and did not get, with the reason. seconds: of reading and encoding
    each sense ("read+encode", once for all questions) and of this answer ("answer")."""

    answer: str
    options: tuple[OptionProbability, ...] | None
    senses: Mapping[str, UsedSense]
    absent: Mapping[str, str]
    seconds: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: answer, options (only where some were given), senses, absent, seconds."""
        plain: dict[str, Any] = {"answer": self.answer}
        if self.options is not None:
            plain["options"] = [asdict(option) for option in self.options]
        plain["senses"] = {name: asdict(sense) for name, sense in self.senses.items()}
        return {**plain, "absent": dict(self.absent), "seconds": dict(self.seconds)}


@dataclass(frozen=True)
class _Media:
    batch: Batch
    senses: Mapping[str, UsedSense]
    absent: Mapping[str, str]
    seconds: Mapping[str, float]


class Predictor:
    """Answers questions about media, the way evaluation does.

    data: its frames, store_frames and limits are used, which should be those of training. eval:
    how open questions are answered. store: where features are kept between runs; None keeps none.
    The model is put into evaluation mode.
    """

    def __init__(
        self,
        model: Crema,
        *,
        data: DataConfig | None = None,
        eval: EvalConfig | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        data = data or DataConfig()
        self.model = model.eval()
        self.config = eval or EvalConfig()
        self.frames = data.frames
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
        """Reads and encodes what the next questions are about; forgets what was there before.

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
        dataset = FeatureDataset([sample], self._extractor, frames=self.frames, memory_bytes=0)
        batch = dataset.batch([0])
        absent = {sense: next(iter(why)) for sense, why in dataset.absent.items() if why}
        if not batch.senses:
            reasons = "; ".join(f"{sense}: {reason}" for sense, reason in absent.items())
            raise MediaError(f"{name}: nothing to look at or listen to ({reasons})")
        for sense in self.model.untrained:
            absent.setdefault(sense, UNTRAINED)
        batch = batch.only(s for s in batch.senses if s not in absent)
        batch = batch.to(self.model.backbone.device)
        self._media = _Media(batch, self._used(batch), absent, dict(self._extractor.seconds))

    def ask(self, question: str, options: Sequence[str] | None = None) -> Answer:
        """The answer to a question: one of the options where there are some, else free text.

        Raises CremaError for an empty question, for options that are not 2 to 26 different texts,
        and before any media were given.
        """
        if self._media is None:
            raise CremaError("no media to ask about: call set_media() first")
        sample = _sample(question, options)
        batch = replace(self._media.batch, samples=(sample,))
        start = time.perf_counter()
        shares = None
        if sample.options:
            scores = self.model.score(batch)
            text = sample.options[choose(scores)[0]]
            pairs = zip(sample.options, scores.probabilities()[0].tolist(), strict=True)
            shares = tuple(OptionProbability(option, p) for option, p in pairs)
        else:
            config = self.config
            found = self.model.generate(
                batch,
                max_new_tokens=config.max_new_tokens,
                beams=config.beams,
                length_penalty=config.length_penalty,
            )
            text = found.texts[0]
        took = {"read+encode": self._media.seconds, "answer": time.perf_counter() - start}
        return Answer(text, shares, self._media.senses, self._media.absent, took)

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
            gated = self.model.fusion.gated and sense != primary
            gate = float(shares[sense]) if sense in shares else 0.0
            used[sense] = UsedSense(gate if gated else None, int(x.segments.sum()))
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

"""From a sample's media to the features of each sense, through the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from open_crema import progress, weights
from open_crema.config import Config, EncodersConfig
from open_crema.data.entry import About
from open_crema.data.sample import UNTIMED, Sample, Timing
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.encoders.registry import Encoder, encoder_for
from open_crema.errors import MediaError, SenseAbsent
from open_crema.features import Features
from open_crema.media import Clip, Limits, TimeLine, read_time_line
from open_crema.modality import Target, canonical, get, resolve

# Part of every key. Raise it when a built-in reader, expert or encoder gives something else than
# before for reasons that no fingerprint tells.
RECIPE = 3


@dataclass
class SenseCount:
    """How many samples have a sense, and why the others do not."""

    present: int = 0
    absent: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Source:
    """Where a sample's sense comes from: a file, what reads it or makes another sense from it, and
    the video that it is aligned to (None: it has a time line of its own)."""

    path: str
    maker: Target
    timing: Timing = UNTIMED
    video: str | None = None
    video_timing: Timing = UNTIMED


class Extractor:
    """Features of the given senses for any sample, made once and kept in the store.

    senses: in any order. frames: pictures of a clip that are kept. store: None makes features
    anew each time, the same ones. Encoders are built when first needed.
    """

    def __init__(
        self,
        senses: Sequence[str],
        encoders: EncodersConfig,
        *,
        frames: int,
        limits: Limits,
        store: FeatureStore | None,
    ) -> None:
        self.senses = canonical(senses)
        self.modalities = {sense: get(sense) for sense in self.senses}
        self.encoders_config = encoders
        self.frames = frames
        self.limits = limits
        self.store = store
        self._encoders: dict[Target, Encoder] = {}

    @classmethod
    def from_config(cls, config: Config) -> Extractor:
        data = config.data
        return cls(
            config.model.senses,
            config.model.encoders,
            frames=data.store_frames,
            limits=Limits.from_config(data.limits),
            store=FeatureStore(data.store or weights.home() / "features"),
        )

    def source(self, sample: Sample, sense: str) -> Source | SenseAbsent:
        """The sense's own file, else another sense's where an expert can make it from that."""
        modality = self.modalities[sense]
        given, maker = sense, modality.reader
        if sense not in sample.media:
            if modality.expert is None:
                return SenseAbsent(sense, "no file given, and no expert makes it from video")
            maker = modality.expert
            found = next((other for other in modality.expert_from if other in sample.media), None)
            if found is None:
                others = " or ".join(modality.expert_from)
                return SenseAbsent(sense, f"no file given, and no {others} to make it from")
            given = found
        aligned = given != "video" and modality.alignment == "frames"
        return Source(
            sample.media[given],
            maker,
            sample.timing.get(given, UNTIMED),
            sample.media.get("video") if aligned else None,
            sample.timing.get("video", UNTIMED) if aligned else UNTIMED,
        )

    def features(self, sample: Sample, sense: str) -> Features | SenseAbsent:
        """The sense's features (tokens bfloat16), or why the sample has none.

        Raises MediaError naming the sample where its file is missing, broken or too large.
        """
        source = self.source(sample, sense)
        if isinstance(source, SenseAbsent):
            return source
        try:
            if self.store is None:
                return self._make(source, sense)
            key, about = self._key(source, sense, self.store)
            return self.store.get_or_make(key, lambda: self._make(source, sense), about=about)
        except MediaError as error:
            raise MediaError(f"sample {sample.id!r}, {sense}: {error}") from error

    def extract_all(self, samples: Sequence[Sample]) -> dict[str, SenseCount]:
        """Fills the store, each distinct file and sense once, with progress on stderr.

        Returns for each sense how many SAMPLES have it, and how many do not, by reason. Raises
        MediaError as :meth:`features` does.
        """
        counts = {sense: SenseCount() for sense in self.senses}
        done: dict[tuple[Source, str], str | None] = {}  # why it is absent, None if it is present
        with progress.bar() as bar:
            total = len(samples) * len(self.senses)
            task = bar.add_task("features", total=total, note="")
            for sample in samples:
                for sense in self.senses:
                    source = self.source(sample, sense)
                    if isinstance(source, SenseAbsent):
                        reason: str | None = source.reason
                    elif (source, sense) in done:
                        reason = done[source, sense]
                    else:
                        found = self.features(sample, sense)
                        reason = found.reason if isinstance(found, SenseAbsent) else None
                        done[source, sense] = reason
                    if reason is None:
                        counts[sense].present += 1
                    else:
                        counts[sense].absent[reason] += 1
                    bar.advance(task)
        return counts

    def _key(self, source: Source, sense: str, store: FeatureStore) -> tuple[str, About]:
        check = self.limits.check_bytes
        encoder = self._encoder(sense).fingerprint
        sources: list[tuple[str, str]] = []
        parts: dict[str, str | float] = {}
        for name, path, timing in (
            ("source", source.path, source.timing),
            ("video", source.video, source.video_timing),
        ):
            if path is None:
                continue
            parts[name] = store.source_digest(path, check=check)
            sources.append((str(Path(path).absolute()), str(parts[name])))
            parts[f"{name} suffix"] = Path(path).suffix.lower()  # readers go by it
            if timing != UNTIMED:
                parts[f"{name} timing"] = f"{timing.rate}/{timing.start}"
        key = feature_key(
            **parts,
            sense=sense,
            maker=_name(source.maker),
            encoder=encoder,
            frames=self.frames,
            recipe=RECIPE,
        )
        return key, About(sense, encoder, RECIPE, tuple(sources))

    def _make(self, source: Source, sense: str) -> Features | SenseAbsent:
        try:
            clip = Clip(self.frames, self.limits, source.timing.rate, source.timing.start)
            if source.video is not None:
                clip = replace(clip, video=self._time_line(source.video, source.video_timing))
            made = self._encoder(sense)(resolve(source.maker)(source.path, clip))
        except SenseAbsent as absent:
            # Results belong to content, and counts to reasons: neither to one file's path.
            return SenseAbsent(sense, absent.reason.replace(source.path, "the file"))
        if not bool(made.tokens.isfinite().all()):
            raise MediaError(f"{source.path}: its features are not finite numbers")
        return as_stored(made)

    def _time_line(self, video: str, timing: Timing) -> TimeLine | None:
        """The video's; None where the file holds no moving pictures."""
        try:
            return read_time_line(video, Clip(self.frames, self.limits, timing.rate, timing.start))
        except SenseAbsent:
            return None

    def _encoder(self, sense: str) -> Encoder:
        modality = self.modalities[sense]
        if modality.encoder not in self._encoders:
            self._encoders[modality.encoder] = encoder_for(modality, self.encoders_config)
        return self._encoders[modality.encoder]


def _name(maker: Target) -> str:
    if isinstance(maker, str):
        return maker
    return f"{maker.__module__}:{getattr(maker, '__qualname__', type(maker).__qualname__)}"

"""From a sample's media to the features of each sense, through the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from open_crema import weights
from open_crema.config import Config, EncodersConfig
from open_crema.data.entry import About
from open_crema.data.sample import UNTIMED, Sample, Timing
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.encoders.registry import Encoder, encoder_for
from open_crema.errors import CremaError, MediaError, SenseAbsent
from open_crema.features import Features
from open_crema.media import Clip, Frames, Limits, Precomputed, TimeLine, read_time_line
from open_crema.modality import BUILT_INS, Modality, Target, canonical, get, resolve

# Part of every key. Raise it when a built-in reader, expert or encoder gives something else than
# before for reasons that no fingerprint tells.
RECIPE = 5


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
    anew each time, the same ones. Encoders are built when first needed. Several threads may use one
    extractor.
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
        self._encoders: dict[Target, _Shared] = {}
        self._building = threading.Lock()

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
            return self.obtain(source, sense)
        except MediaError as error:
            raise MediaError(f"sample {sample.id!r}, {sense}: {error}") from error

    def obtain(
        self, source: Source, sense: str, *, making: Callable[[], None] = lambda: None
    ) -> Features | SenseAbsent:
        """The features of a source, or why it does not hold the sense.

        making: called before they are made, where the store does not have them. Raises MediaError
        where a file is missing, broken or too large.
        """

        def make() -> Features | SenseAbsent:
            making()
            return self._make(source, sense)

        if self.store is None:
            return make()
        key, about = self._key(source, sense, self.store)
        return self.store.get_or_make(key, make, about=about)

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
            made = self._encode(self._read(source, sense, clip), source, sense, clip)
        except SenseAbsent as absent:
            # Results belong to content, and counts to reasons: neither to one file's path.
            return SenseAbsent(sense, absent.reason.replace(source.path, "the file"))
        if not bool(made.tokens.isfinite().all()):
            raise MediaError(
                f"{source.path}: its features are not finite numbers: the file holds such values, "
                f"or its encoder makes them; repair it, or leave the sense out"
            )
        return as_stored(made)

    def _encode(self, media: Any, source: Source, sense: str, clip: Clip) -> Features:
        encoder = self._encoder(sense)
        if isinstance(media, Precomputed):
            return media.of(encoder.name, encoder.fingerprint, encoder.width)
        if isinstance(media, Frames) and self.modalities[sense].registered:
            clip.check_view(source.path, *media.images.shape[2:0:-1])
        try:
            return encoder(media)
        except MediaError as error:  # encoders do not know of which file it was
            if source.path in str(error):
                raise
            raise MediaError(f"{source.path}: {error}") from error
        except (CremaError, SenseAbsent, MemoryError):
            raise
        except Exception as error:
            if not _is_of_a_package(self.modalities[sense]):
                raise
            raise MediaError(
                f"{source.path}: the encoder of {sense!r} fails on it ({type(error).__name__}: "
                f"{error}); repair or replace it, or have that sense's package check its files"
            ) from error

    def _read(self, source: Source, sense: str, clip: Clip) -> Any:
        """What the reader or expert gives. Their own errors about a file are those of a broken
        one; of a reader that is not ours, all errors are."""
        theirs = _is_of_a_package(self.modalities[sense])
        faults = (Exception,) if theirs else (OSError, EOFError, ValueError)
        try:
            return resolve(source.maker)(source.path, clip)
        except (CremaError, SenseAbsent, MemoryError):
            raise
        except faults as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            kind = type(error).__name__
            raise MediaError(
                f"{source.path}: cannot be read ({kind}: {reason}); repair or replace it"
            ) from error

    def _time_line(self, video: str, timing: Timing) -> TimeLine | None:
        """The video's; None where the file holds no moving pictures."""
        try:
            return read_time_line(video, Clip(self.frames, self.limits, timing.rate, timing.start))
        except SenseAbsent:
            return None

    def _encoder(self, sense: str) -> _Shared:
        modality = self.modalities[sense]
        with self._building:
            if modality.encoder not in self._encoders:
                encoder = encoder_for(modality, self.encoders_config)
                self._encoders[modality.encoder] = _Shared(encoder)
            return self._encoders[modality.encoder]


class _Shared:
    """An encoder for several threads: it loads its weights in its first call, which goes alone."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._first = threading.Lock()
        self._loaded = False

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def width(self) -> int:
        return self._encoder.width

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def __call__(self, media: Any) -> Features:
        if self._loaded:
            return self._encoder(media)
        with self._first:
            features = self._encoder(media)
            self._loaded = True
            return features


def _is_of_a_package(modality: Modality) -> bool:
    """Whether the sense is somebody else's: what fails there must not end the work on the rest."""
    return modality not in BUILT_INS


def _name(maker: Target) -> str:
    if isinstance(maker, str):
        return maker
    return f"{maker.__module__}:{getattr(maker, '__qualname__', type(maker).__qualname__)}"

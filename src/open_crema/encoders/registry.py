"""The frozen encoders by name: what each costs without loading it, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from open_crema import weights
from open_crema.config import EncodersConfig
from open_crema.errors import ConfigError, did_you_mean
from open_crema.features import Features
from open_crema.modality import Modality, resolve

Kind = Literal["vision", "audio", "point"]


class Encoder(Protocol):
    """A frozen encoder: what a sense's reader gives, to features.

    name, width: as in :data:`SPECS`; the last axis of the features is ``width``.
    fingerprint: changes with whatever changes its features (weights, resolution, windows); known
        without loading the weights, which wait for the first call.
    """

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, media: Any, /) -> Features: ...


@dataclass(frozen=True)
class EncoderSpec:
    """What is known of an encoder without its weights.

    width: of its features. parameters: frozen ones, for cost accounting. factory: builds it;
    None where its weights come from the hub, which this version cannot load. uses_vision: whether
    it runs the configured vision encoder, too.
    """

    name: str
    kind: Kind
    width: int
    parameters: int
    factory: Callable[[EncodersConfig], Encoder] | None = None
    uses_vision: bool = False


def _dinov2(config: EncodersConfig) -> Encoder:
    from open_crema.encoders.dinov2 import DinoV2

    return DinoV2(
        resolution=config.resolution, dtype=weights.dtype_of(config.dtype), device=config.device
    )


def _in_folder(name: str) -> EncoderSpec:
    from open_crema.encoders import beats, vision

    folder = Path(name)
    if vision.read_json(folder / "config.json").get("model_type") == "beats":
        return EncoderSpec(name, "audio", *beats.size_of(folder), partial(_beats, name))
    return EncoderSpec(name, "vision", *vision.size_of(folder), partial(_vision, name))


def _beats(name: str, config: EncodersConfig) -> Encoder:
    from open_crema.encoders.beats import Beats

    return Beats(
        Path(name),
        window=config.audio_window,
        max_windows=config.audio_max_windows,
        windows=config.audio_windows,
    )


def _vision(name: str, config: EncodersConfig) -> Encoder:
    from open_crema.encoders.vision import VisionFolder

    return VisionFolder(
        Path(name),
        resolution=config.resolution,
        dtype=weights.dtype_of(config.dtype),
        device=config.device,
    )


def _eva(config: EncodersConfig) -> Encoder:
    from open_crema.encoders.vision import EvaVitG

    return EvaVitG(
        resolution=config.resolution, dtype=weights.dtype_of(config.dtype), device=config.device
    )


def _yamnet(config: EncodersConfig) -> Encoder:
    from open_crema.encoders.yamnet import Yamnet

    return Yamnet(window=config.audio_window, max_windows=config.audio_max_windows)


def _points(config: EncodersConfig) -> Encoder:
    from open_crema.encoders.points import PointFeatures
    from open_crema.encoders.scene import ScenePoints

    vision: Any = build(config.vision, config)
    points = PointFeatures.from_config(vision.width, config)
    return ScenePoints(vision, voxel=config.voxel, views=config.cloud_views, points=points)


def _points_3dllm(config: EncodersConfig) -> Encoder:
    from open_crema.encoders.points import PointFeatures

    return PointFeatures.from_config(1408, config)


SPECS: dict[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            "dinov2-small", "vision", 384, weights.lookup("dinov2-small-focus").parameters, _dinov2
        ),
        EncoderSpec("yamnet", "audio", 1024, weights.lookup("yamnet-w8a8").parameters, _yamnet),
        # Patch features of the vision encoder averaged per voxel.
        EncoderSpec("points", "point", 384, 0, _points, uses_vision=True),
        # 3D-LLM's (EVA ViT-g), precomputed.
        EncoderSpec("points-3dllm", "point", 1408, 0, _points_3dllm),
        # The paper's.
        EncoderSpec("eva-vit-g", "vision", 1408, 985_894_528, _eva),
        EncoderSpec("beats-iter3", "audio", 768, 90_311_792),
    )
}


def spec(name: str) -> EncoderSpec:
    """The encoder of that name, or of a folder: a vision model's of transformers, or BEATs as
    ``crema convert`` writes it.

    Raises ConfigError that names the nearest known one, or the folder and what is wrong with it.
    """
    if name not in SPECS and Path(name).is_dir():
        return _in_folder(name)
    if name not in SPECS:
        hint = did_you_mean(name, SPECS)
        raise ConfigError(f"unknown encoder {name!r}: {hint}known: {', '.join(SPECS)}")
    return SPECS[name]


def build(name: str, config: EncodersConfig) -> Encoder:
    """The encoder of that name. Raises ConfigError where it is unknown or cannot be loaded."""
    found = spec(name)
    if found.factory is None:
        others = [s.name for s in SPECS.values() if s.kind == found.kind and s.factory]
        raise ConfigError(
            f"encoder {name!r}: known for cost accounting; its weights come with `crema convert`, "
            f"which says what to name instead. Use that folder, or {', '.join(others)}"
        )
    try:
        return found.factory(config)
    except ValueError as error:
        raise ConfigError(f"model.encoders does not fit encoder {name!r}: {error}") from None


def encoder_for(modality: Modality, config: EncodersConfig) -> Encoder:
    """The encoder that the configuration (or the modality's own factory) gives a sense."""
    named = _configured(modality, config)
    if named is not None:
        return build(named.name, config)
    encoder: Encoder = resolve(modality.encoder)()
    return encoder


def width_for(modality: Modality, config: EncodersConfig) -> int:
    """Width of a sense's features, without loading weights.

    A third party's factory says it as its attribute ``width``. Raises ConfigError where it does
    not.
    """
    named = _configured(modality, config)
    if named is not None:
        return named.width
    width = getattr(resolve(modality.encoder), "width", None)
    if not isinstance(width, int) or width < 1:
        raise ConfigError(
            f"sense {modality.name!r}: its encoder needs an integer class attribute 'width', the "
            "width of its features"
        )
    return width


def identity(modality: Modality, config: EncodersConfig) -> tuple[str, str | None]:
    """Name and fingerprint of the encoder that serves a sense, without loading its weights.

    The fingerprint is that of full precision, as an adapter reads rounded features too; None where
    this version cannot build the encoder. Raises ConfigError where a
    third party's does not say it.
    """
    named = _configured(modality, config)
    if named is not None:
        exact = replace(config, dtype="fp32", device="cpu")
        built = build(named.name, exact).fingerprint if named.factory else None
        return named.name, built
    try:
        factory = resolve(modality.encoder)
        made: Any = factory if isinstance(getattr(factory, "fingerprint", None), str) else factory()
        return str(getattr(made, "name", modality.name)), str(made.fingerprint)
    except Exception as error:  # whatever somebody else's encoder does when it is built
        raise ConfigError(
            f"sense {modality.name!r}: its encoder does not say its fingerprint "
            f"({type(error).__name__}: {error})"
        ) from error


def _configured(modality: Modality, config: EncodersConfig) -> EncoderSpec | None:
    """The encoder that serves the modality's kind; None for a third party's own factory."""
    kinds: dict[str, str] = {"vision": config.vision, "audio": config.audio, "point": config.point}
    kind = modality.encoder
    if not isinstance(kind, str) or ":" in kind:
        return None
    if kind not in kinds:
        raise ConfigError(
            f"sense {modality.name!r}: encoder {kind!r} is neither one of the kinds "
            f"{', '.join(kinds)} nor a factory or 'module:factory'"
        )
    found = spec(kinds[kind])
    if found.kind != kind:
        raise ConfigError(
            f"model.encoders.{kind} is {found.name!r}, which is an encoder of the kind "
            f"{found.kind!r}"
        )
    return found

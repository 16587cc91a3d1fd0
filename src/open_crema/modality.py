"""What a modality (a sense) IS, as data: the eight built-ins and the registry for everyone else's.

A modality names how its own file is read, how an expert makes it from the video when no file is
given, which kind of frozen encoder turns it into features, and how its segments line up with the
primary sense's. Nothing here opens a file or loads a model.

Third parties add one from their own package, with no edit here, by decorator::

    @modality(name="imu", label="Motion Sensor", reader=read_imu, alignment="overlap")
    class ImuEncoder: ...

or by an entry point of the group ``open_crema.modalities`` that names a :class:`Modality`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points, packages_distributions, version
from typing import Any, Literal, TypeVar

from open_crema.errors import ConfigError, did_you_mean

Alignment = Literal["frames", "overlap", "mean", "repeat"]
Target = str | Callable[..., Any]
T = TypeVar("T", bound=Callable[..., Any])

ENTRY_POINT_GROUP = "open_crema.modalities"


@dataclass(frozen=True)
class Modality:
    """One sense.

    name: key in configurations, data files and adapter folders.
    label: what the prompt calls it; segments are numbered ("Depth Map 2: ", paper, footnote 4).
    encoder: the kind of frozen encoder ("vision", "audio", "point", resolved by the
        configuration), or a factory that takes no argument.
    reader: ``(path, clip: open_crema.media.Clip) -> media`` for the sense's own file; a callable
        or "module:function".
    expert: the same signature, applied to another sense's file when the sense has none of its own;
        None when it cannot be made from others.
    expert_from: the senses whose file the expert takes, the first one given.
    alignment: how its S segments meet the T segments of the primary sense: "frames" (same T),
        "overlap" (weighted by overlap in time), "mean" (all segments averaged), "repeat" (S = 1).
    norm: whether a LayerNorm stands before the Q-Former; the published point path has none.
    registered: whether its maps show the video's own view, pixel for pixel, so that a map of
        another shape than the video's is a mistake.
    cost: relative cost of obtaining its features; orders the senses for early exit at inference.
    """

    name: str
    label: str
    encoder: Target
    reader: Target
    expert: Target | None = None
    expert_from: tuple[str, ...] = ("video",)
    alignment: Alignment = "frames"
    norm: bool = True
    registered: bool = False
    cost: float = 1.0

    def numbered(self) -> bool:
        """Whether the prompt numbers its segments; a static thing (a point cloud) has only one."""
        return self.alignment != "repeat"


_READERS = "open_crema.experts.senses"
_RGBD = "open_crema.experts.rgbd"

BUILT_INS: tuple[Modality, ...] = (
    Modality("video", "Frame", "vision", f"{_READERS}:read_pictures", f"{_READERS}:read_pictures"),
    Modality(
        "audio",
        "Audio",
        "audio",
        f"{_READERS}:read_sound",
        f"{_READERS}:sound_of_video",
        alignment="overlap",
        cost=0.5,
    ),
    Modality(
        "flow",
        "Optical Flow",
        "vision",
        f"{_READERS}:read_flow_pictures",
        f"{_READERS}:flow_of_video",
        registered=True,
        cost=3.0,
    ),
    Modality(
        "depth",
        "Depth Map",
        "vision",
        f"{_READERS}:read_depth_pictures",
        f"{_RGBD}:depth_of_rgbd",
        registered=True,
        cost=2.0,
    ),
    Modality(
        "normal",
        "Surface Normal",
        "vision",
        f"{_READERS}:read_normal_pictures",
        f"{_RGBD}:normals_of_depth",
        ("depth", "video"),
        registered=True,
        cost=2.0,
    ),
    Modality(
        "point",
        "3D Model",
        "point",
        f"{_READERS}:read_points",
        f"{_RGBD}:points_of_rgbd",
        ("depth", "video"),
        alignment="repeat",
        norm=False,
        cost=4.0,
    ),
    Modality("touch", "Touch Map", "vision", f"{_READERS}:read_touch_pictures"),
    Modality("thermal", "Thermal Heatmap", "vision", f"{_READERS}:read_thermal_pictures"),
)

_registry: dict[str, Modality] = {m.name: m for m in BUILT_INS}
_built_in_order = {m.name: i for i, m in enumerate(BUILT_INS)}
_entry_points_read = False


def register(new: Modality) -> Modality:
    """Adds a modality. Raises ConfigError where the name is taken by a different one."""
    if _registry.get(new.name, new) != new:
        raise ConfigError(f"modality {new.name!r} is already registered; choose another name")
    if not new.name.replace("_", "").isalnum() or not new.name.isascii():
        raise ConfigError(f"modality name {new.name!r}: use ASCII letters, digits and '_'")
    _registry[new.name] = new
    return new


def modality(**fields: Any) -> Callable[[T], T]:
    """Decorator form of :func:`register`: the decorated class or function is the encoder."""

    def add(encoder: T) -> T:
        register(Modality(encoder=encoder, **fields))
        return encoder

    return add


def _read_entry_points() -> None:
    """Raises ConfigError naming the entry point that cannot be used, each time until it can."""
    global _entry_points_read
    if _entry_points_read:
        return
    for point in entry_points(group=ENTRY_POINT_GROUP):
        before = dict(_registry)
        try:
            loaded = point.load()
            if isinstance(loaded, Modality):
                register(loaded)
        except Exception as error:  # whatever somebody else's module does when it is imported
            _registry.clear()  # what it registered before it failed would be "taken" next time
            _registry.update(before)
            raise ConfigError(
                f"entry point {point.name!r} ({point.value}) of {ENTRY_POINT_GROUP} cannot be "
                f"used: {type(error).__name__}: {error}; repair or uninstall its package"
            ) from error
        # A module whose decorators register on import is fine.
        if not isinstance(loaded, Modality) and point.name not in _registry:
            raise ConfigError(
                f"entry point {point.name!r} ({point.value}) of {ENTRY_POINT_GROUP} gives a "
                f"{type(loaded).__name__}, not an open_crema.modality.Modality"
            )
    _entry_points_read = True


def get(name: str) -> Modality:
    """The modality of that name. Raises ConfigError that names the nearest known one."""
    if name not in _registry:
        _read_entry_points()
    if name not in _registry:
        hint = did_you_mean(name, _registry)
        raise ConfigError(f"unknown sense {name!r}: {hint}known: {', '.join(names())}")
    return _registry[name]


def package_of(modality: Modality) -> str | None:
    """``"name==version"`` of the installed package that a third party's modality comes from; None
    for a built-in one, and for one that no package holds."""
    for target in (modality.encoder, modality.reader):
        module = target if isinstance(target, str) else f"{target.__module__}:"
        top = module.partition(":")[0].partition(".")[0]
        if ":" in module and top != "open_crema":  # without ":" it is a kind of encoder
            for package in _distributions().get(top, []):
                return f"{package}=={version(package)}"
    return None


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def names() -> list[str]:
    """Every registered modality in canonical order."""
    _read_entry_points()
    return canonical(_registry)


def canonical(senses: Iterable[str]) -> list[str]:
    """Built-ins in their order above, then all others by name.

    Everything that sums, concatenates or draws random numbers over senses uses this order, so
    that the order in which somebody lists them never changes a result.
    """
    return sorted(set(senses), key=lambda s: (_built_in_order.get(s, len(_built_in_order)), s))


def resolve(target: Target) -> Callable[..., Any]:
    """The callable behind a "module:attribute" reference (or the callable itself).

    Raises ConfigError where there is none.
    """
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{target!r} cannot be imported ({type(error).__name__}: {error}); "
            "a reference is written module:attribute, and its package must be installed"
        ) from error
    if not callable(found):
        raise ConfigError(f"{target!r} is a {type(found).__name__}, not a function or class")
    return found

"""The types of questions, frozen: a change of any is a new :data:`VERSION`."""

from __future__ import annotations

from collections.abc import Mapping

from open_crema.errors import ConfigError, did_you_mean
from open_crema.senseqa.types import (
    audio,
    depth,
    flow,
    normal,
    point,
    thermal,
    touch,
    two_senses,
    video,
)
from open_crema.senseqa.types.base import Asked, QuestionType, Variant

__all__ = ["IN_TIME", "TYPES", "VERSION", "Asked", "QuestionType", "Variant", "find", "needing"]

VERSION = 1

TYPES: Mapping[str, QuestionType] = {
    one.name: one
    for module in (video, audio, flow, depth, normal, point, touch, thermal, two_senses)
    for one in module.TYPES
}

# Asked from frame to frame: one key frame does not answer them, as it does the others.
IN_TIME = (*(name for name in TYPES if name.startswith("touch")), "audio_which", "two_rough_warm")


def needing(sense: str, *others: str) -> tuple[str, ...]:
    """The types that need a sense, and none but it and these others."""
    return tuple(n for n, k in TYPES.items() if sense in k.needs and {sense, *others} >= {*k.needs})


def find(name: str) -> QuestionType:
    """The type of that name. Raises ConfigError that names the nearest one."""
    if name not in TYPES:
        hint = did_you_mean(name, TYPES)
        raise ConfigError(f"unknown type {name!r} of SenseQA: {hint}known: {', '.join(TYPES)}")
    return TYPES[name]

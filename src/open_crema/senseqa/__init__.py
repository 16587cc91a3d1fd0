"""SenseQA: generated clips of eight exact senses, and questions that each need some of them.

The code reads in this order: ``draw`` (random numbers), ``scene`` (what there is in a room),
``stage`` (rooms before anything is asked), ``types`` (what is asked), ``sets`` (which questions a
split and seed mean), ``solids``, ``tracing`` and ``render`` (pictures and maps), ``cloud``,
``touch`` and ``sounds`` (the other senses), ``clips`` (all senses of a question's worlds),
``files`` and ``layouts`` (as files), ``dataset`` (in memory), ``audit`` (what it measures). See
docs/senseqa.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from open_crema.senseqa.clips import SENSES as SENSES
    from open_crema.senseqa.clips import Clip as Clip
    from open_crema.senseqa.dataset import SenseQA as SenseQA
    from open_crema.senseqa.sets import SPLITS as SPLITS
    from open_crema.senseqa.sets import Question as Question
    from open_crema.senseqa.sets import Spec as Spec
    from open_crema.senseqa.types import TYPES as TYPES
    from open_crema.senseqa.types import VERSION as VERSION

_HOME = {
    "SENSES": "clips",
    "SPLITS": "sets",
    "TYPES": "types",
    "VERSION": "types",
    "Clip": "clips",
    "Question": "sets",
    "SenseQA": "dataset",
    "Spec": "sets",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'open_crema.senseqa' has no attribute {name!r}")
    return getattr(import_module(f"open_crema.senseqa.{_HOME[name]}"), name)

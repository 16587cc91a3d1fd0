"""Furniture made of simple bodies; each kind has an outline of its own, also as a few points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from open_crema.senseqa.scene import Fixture, Pattern, Rgb, Solid, Vector

_Part = tuple[str, Vector, Vector]  # kind, centre, half sizes; the front looks along -y


def _table() -> list[_Part]:
    legs: list[_Part] = [
        ("cube", (x, y, 0.35), (0.04, 0.04, 0.35)) for x in (-0.55, 0.55) for y in (-0.35, 0.35)
    ]
    return [("cube", (0, 0, 0.73), (0.65, 0.45, 0.03)), *legs]


def _chair() -> list[_Part]:
    legs: list[_Part] = [
        ("cube", (x, y, 0.22), (0.03, 0.03, 0.22)) for x in (-0.2, 0.2) for y in (-0.2, 0.2)
    ]
    seat: _Part = ("cube", (0, 0, 0.46), (0.24, 0.24, 0.03))
    return [seat, ("cube", (0, 0.22, 0.78), (0.24, 0.03, 0.3)), *legs]


def _bed() -> list[_Part]:
    return [
        ("cube", (0, 0, 0.22), (0.5, 0.85, 0.22)),
        ("cube", (0, 0.88, 0.45), (0.5, 0.04, 0.45)),
        ("cube", (0, 0.6, 0.5), (0.35, 0.18, 0.06)),
    ]


def _shelf() -> list[_Part]:
    boards: list[_Part] = [
        ("cube", (0, 0, z), (0.45, 0.16, 0.025)) for z in (0.05, 0.55, 1.05, 1.55, 1.95)
    ]
    return [*boards, *(("cube", (x, 0, 1.0), (0.025, 0.16, 1.0)) for x in (-0.45, 0.45))]


def _lamp() -> list[_Part]:
    return [
        ("cylinder", (0, 0, 0.03), (0.2, 0.2, 0.03)),
        ("cylinder", (0, 0, 0.75), (0.035, 0.035, 0.75)),
        ("ball", (0, 0, 1.65), (0.28, 0.28, 0.28)),
    ]


def _sofa() -> list[_Part]:
    arms: list[_Part] = [("cube", (x, 0, 0.3), (0.1, 0.4, 0.3)) for x in (-0.75, 0.75)]
    seat: _Part = ("cube", (0, -0.05, 0.2), (0.65, 0.35, 0.2))
    return [seat, ("cube", (0, 0.35, 0.42), (0.85, 0.1, 0.42)), *arms]


_KINDS: dict[str, Callable[[], list[_Part]]] = {
    "table": _table,
    "chair": _chair,
    "bed": _bed,
    "shelf": _shelf,
    "lamp": _lamp,
    "sofa": _sofa,
}
_REACH = {"table": 0.5, "chair": 0.3, "bed": 0.95, "shelf": 0.2, "lamp": 0.3, "sofa": 0.5}


def reach(kind: str) -> float:
    """Metres from a piece's middle to its back, for which there must be room before a wall."""
    return _REACH[kind]


def furnish(
    kind: str, place: str, at: tuple[float, float], facing: float, colour: str, rgb: Rgb, seed: int
) -> Fixture:
    """A piece whose middle stands at ``at`` and whose front looks along -y, turned by ``facing``
    radians to the left."""
    c, s = np.cos(facing), np.sin(facing)
    grain = Pattern("mottled", 0.08, 2.0, seed)
    solids = []
    for body, (x, y, z), half in _KINDS[kind]():
        centre = (float(at[0] + c * x - s * y), float(at[1] + s * x + c * y), float(z))
        solids.append(Solid(body, centre, half, facing, rgb, grain))
    return Fixture(kind, tuple(solids), colour, place)

"""Brightness of surfaces that are not plain."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import Pattern
from open_crema.senseqa.solids import Floats

KINDS = ("plain", "stripes", "checks", "spots", "mottled")


def brightness(pattern: Pattern, points: Floats) -> Floats:
    """Factors [n], about 1, for points [n, 3]. Raises ValueError for an unknown kind."""
    if pattern.kind == "plain":
        return np.ones(len(points))
    waves, phases = _waves(pattern.seed)
    at = points @ waves.T * pattern.scale + phases
    if pattern.kind == "stripes":
        found = np.sign(np.sin(at[:, 0]))
    elif pattern.kind == "checks":
        found = np.sign(np.prod(np.sin(points * pattern.scale + phases[:3] + 0.01), axis=1))
    elif pattern.kind == "spots":
        found = np.where(np.sin(at[:, 0]) * np.sin(at[:, 1]) > 0.45, 1.0, -0.3)
    elif pattern.kind == "mottled":
        found = np.sin(at).sum(axis=1) / 3
    else:
        raise ValueError(f"unknown pattern {pattern.kind!r}; known: {', '.join(KINDS)}")
    return 1.0 + pattern.strength * found


@lru_cache(maxsize=256)
def _waves(seed: int) -> tuple[Floats, Floats]:
    """Directions [6, 3], longer ones later, and phases [6]."""
    draw = Draw("pattern", seed)
    waves = draw.normals(6, 3)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    return waves * np.linspace(1.0, 2.5, 6)[:, None], draw.uniforms(6) * 2 * np.pi

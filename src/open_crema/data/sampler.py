"""Order, choice of frames and points: pure functions of seed, epoch and sample, not of the batch.

Every random number is a digest of what it depends on, so a resumed, re-ordered or distributed run
draws what the first run drew, on every platform and library version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from open_crema.features import Features

BITS = 64


def draw(*parts: str | int) -> int:
    """A uniform integer below ``2**BITS`` that depends on the parts alone."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[: BITS // 8], "big")


def order(seed: int, epoch: int, n: int) -> list[int]:
    """A permutation of ``range(n)`` for one epoch."""
    return sorted(range(n), key=lambda i: (draw("order", seed, epoch, i), i))


def some(places: Sequence[int], count: int, seed: int, epoch: int, name: str) -> list[int]:
    """So many of them, drawn anew for each epoch; name: of what they belong to."""
    keys = {i: draw("some", seed, epoch, name, k) for k, i in enumerate(places)}
    return sorted(places, key=keys.__getitem__)[:count]


def shuffled(senses: Sequence[str], seed: int, step: int) -> list[str]:
    """A permutation of the senses for one optimizer step, however they are listed. Which of two
    comes first does not hang on what others there are, so an exit changes no order."""
    return sorted(senses, key=lambda s: (draw("senses", seed, step, s), s))


def choose_points(count: int, most: int, seed: int, epoch: int, sample_id: str) -> Tensor:
    """``min(count, most)`` of ``range(count)``, increasing: any as likely as any other."""
    stream = json.dumps(("points", seed, epoch, sample_id)).encode()
    drawn = hashlib.shake_256(stream).digest(count * BITS // 8)
    order = np.argsort(np.frombuffer(drawn, dtype=">u8"), kind="stable")
    return torch.from_numpy(np.sort(order[:most]))


def choose_frames(
    stored: int, count: int, *, training: bool, seed: int, epoch: int, sample_id: str
) -> list[int]:
    """Which of a clip's stored segments a sample uses: ``min(count, stored)`` increasing indices.

    The segments are cut into ``count`` intervals at the whole parts of ``linspace(0, stored,
    count + 1)``. Training draws one segment from each interval, evaluation takes its midpoint
    (the published scheme). A clip with fewer segments gives each of them once.

    The draw is a relative position in the interval, so senses of one sample with equally many
    segments get the same indices, and others the nearest in time.
    """
    if stored < 1 or count < 1:
        raise ValueError(f"cannot choose {count} of {stored} segments")
    count = min(count, stored)
    chosen = []
    for t in range(count):
        low, high = t * stored // count, (t + 1) * stored // count
        if training:
            step = draw("frame", seed, epoch, sample_id, t) * (high - low) >> BITS
        else:
            step = (high - low) // 2
        chosen.append(low + step)
    return chosen


def select(features: Features, indices: Sequence[int]) -> Features:
    """The chosen segments, with times spread evenly so that they tile the clip without gaps.

    A chosen frame stands for its whole interval; with its own short time it would overlap too
    few of the audio windows that are aligned to it. Where all segments are chosen, nothing
    changes. Times: ``[len(indices), 2]`` seconds.
    """
    if list(indices) == list(range(len(features.tokens))):
        return features
    chosen = torch.as_tensor(indices)
    start, end = float(features.times[0, 0]), float(features.times[-1, 1])
    edges = torch.linspace(start, end, len(indices) + 1, dtype=torch.float64)
    times = torch.stack([edges[:-1], edges[1:]], dim=1)
    return Features(features.tokens[chosen], features.mask[chosen], times)

"""Which frames of a sequence to take. Times are seconds from the first frame."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Seconds. A frame that starts right at a midpoint is on the screen there, and the earlier of two
# equally near frames is the nearest, whichever way floating point rounds.
_ROUNDING = 1e-6


def even(starts: Floats, end: float, count: int) -> tuple[Indices, Floats]:
    """The frames on the screen at the midpoints of `count` equal intervals, and the intervals.

    Args: starts [n], increasing from 0: when each frame appears; end: when the last one goes.
    Returns: indices [S] and intervals [S, 2]; all n frames with their own intervals if n <= count.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if len(starts) <= count:
        ends = np.append(starts[1:], end)
        return np.arange(len(starts)), np.stack([starts, ends], axis=1)
    edges = np.linspace(0.0, end, count + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    indices = np.searchsorted(starts, middles + _ROUNDING, side="right") - 1
    return indices, np.stack([edges[:-1], edges[1:]], axis=1)


def pairs(starts: Floats, indices: Indices, gap: float) -> tuple[Indices, Indices]:
    """For each frame, itself and the frame nearest to `gap` seconds later, at least the next one.

    The last frame has none later: it is the second of its pair, after the frame nearest to `gap`
    seconds before it. Needs at least two frames.
    """
    if gap <= 0:
        raise ValueError(f"gap must be above 0 seconds, got {gap}")
    last = len(starts) - 1
    first, second = [], []
    for i in indices.tolist():
        if i < last:
            first.append(i)
            second.append(i + 1 + _nearest(starts[i + 1 :], starts[i] + gap))
        else:
            first.append(_nearest(starts[:last], starts[i] - gap))
            second.append(last)
    return np.array(first), np.array(second)


def _nearest(starts: Floats, time: float) -> int:
    distance = np.abs(starts - time)
    return int((distance <= distance.min() + _ROUNDING).argmax())


def regular(count: int, rate: float) -> tuple[Floats, float]:
    """Starts and end of `count` frames at `rate` frames a second."""
    if rate <= 0:
        raise ValueError(f"frames per second must be above 0, got {rate}")
    return np.arange(count) / rate, count / rate

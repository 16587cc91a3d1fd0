"""Random draws that are the same everywhere: what a seed means must not change with a library.

NumPy keeps the raw stream of its bit generators for ever, and may change what its distributions
make of it. So everything here is made of Philox's raw 64-bit numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


class Draw:
    """A stream of draws named by words and numbers; the same names give the same stream.

    Streams of different names do not depend on each other: what one part of a scene draws more of
    moves nothing elsewhere.
    """

    def __init__(self, *name: str | int) -> None:
        self.name = name
        digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
        key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
        self._bits = np.random.Philox(key=key)

    def sub(self, *name: str | int) -> Draw:
        """The stream of a part, which has draws of its own."""
        return Draw(*self.name, *name)

    def uniforms(self, *shape: int) -> Floats:
        """[shape] in [0, 1), of 53 bits."""
        count = int(np.prod(shape))
        raw = np.asarray(self._bits.random_raw(count), dtype=np.uint64)
        found: Floats = (raw >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53
        return found

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(self.uniforms(1)[0])

    def normals(self, *shape: int) -> Floats:
        """[shape] standard normal, by Box and Muller."""
        count = int(np.prod(shape))
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log(1.0 - self.uniforms(half)))
        angle = 2.0 * np.pi * self.uniforms(half)
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return both[:count].reshape(shape)

    def integer(self, below: int) -> int:
        """0 to below - 1."""
        return int(self.uniforms(1)[0] * below)

    def chance(self, probability: float) -> bool:
        return bool(self.uniforms(1)[0] < probability)

    def choice(self, items: Sequence[T]) -> T:
        return items[self.integer(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """That many different items, in an order that is drawn, too."""
        if count > len(items):
            raise ValueError(f"cannot draw {count} of {len(items)}")
        order = np.argsort(self.uniforms(len(items)), kind="stable")
        return [items[i] for i in order[:count]]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return self.sample(items, len(items))

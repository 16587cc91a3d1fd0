"""Sense dropout: senses withheld in training, so that every subset of them answers.

Like all of :mod:`~open_crema.data.sampler`, a pure function of seed, epoch, step and sample. It
works on finished batches, so that a sense withheld is not counted as absent from the data, and it
serves anybody's own loop: ``sequential(model, withhold([batch], ...), order)``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from open_crema.config import SenseDropoutConfig
from open_crema.data.sample import Batch
from open_crema.data.sampler import BITS, draw
from open_crema.modality import canonical


def withhold(
    batches: Sequence[Batch],
    config: SenseDropoutConfig,
    senses: Collection[str],
    *,
    seed: int,
    epoch: int,
    step: int,
) -> list[Batch]:
    """The micro-batches of one optimizer step as training sees them.

    senses: the model's. "random" draws by seed, epoch, sample and sense, so a sample's fate does
    not hang on its batch, nor one sense's on which others there are. "structured" draws by seed,
    epoch and step. A sample that would be left without any of the model's senses keeps one of its
    own, each equally likely.
    """
    if config.kind == "none":
        return list(batches)
    subset = _subset(config, senses, seed, epoch, step) if config.kind == "structured" else None
    withheld = []
    for batch in batches:
        there = {s: x.present.tolist() for s, x in batch.senses.items() if s in senses}
        kept = []
        for place, sample in enumerate(batch.samples):
            own = [s for s in there if there[s][place]]
            draws = {s: draw("withhold", seed, epoch, sample.id, s) for s in own}
            if subset is not None:
                stay = [s for s in own if s in subset]
            else:
                bound = int(config.rate * 2**BITS)
                stay = [s for s in own if s in config.keep or draws[s] >= bound]
            # The largest draw: under any bound that all are below, it falls on each as often.
            kept.append(stay or sorted(own, key=draws.__getitem__)[-1:])
        withheld.append(batch.where(kept))
    return withheld


def _subset(
    config: SenseDropoutConfig, senses: Collection[str], seed: int, epoch: int, step: int
) -> Collection[str]:
    """What one step may use: with probability ``1 - rate`` all of it, else a subset."""
    free = [s for s in canonical(senses) if s not in config.keep]
    kept = [s for s in senses if s in config.keep]
    # Subset number n has the senses of its bits; the last has all, the first none, which is one
    # only beside a sense that is kept.
    first, last = (0 if kept else 1), 2 ** len(free) - 1
    whether = draw("subset?", seed, epoch, step)
    if whether >= int(config.rate * 2**BITS) or first >= last:
        return senses
    number = first + (draw("subset", seed, epoch, step) * (last - first) >> BITS)
    return [*kept, *(s for bit, s in enumerate(free) if number >> bit & 1)]

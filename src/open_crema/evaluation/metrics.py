"""What counts as right, how sure a rate is, and what it takes to be better than guessing.

Matching is strict here. The released code's lenient schemes, which make "o" right for "violin",
stand beside it (:mod:`open_crema.tasks.lenience`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from open_crema.backbones.base import OptionScores
from open_crema.data.sample import Sample, normalise
from open_crema.errors import CremaError
from open_crema.modality import canonical

_DRAWS = 1000
_Z95 = NormalDist().inv_cdf(0.975)


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction is one of the accepted answers, after :func:`normalise`.

    An empty prediction is always wrong.
    """
    said = normalise(prediction)
    return bool(said) and said in map(normalise, answers)


def is_correct(sample: Sample, prediction: str) -> bool:
    """For multiple choice whether the right option was chosen, else :func:`exact_match`."""
    if sample.options:
        return prediction in sample.answers
    return exact_match(prediction, sample.answers)


def choose(scores: OptionScores) -> list[int]:
    """For each sample the option of the highest mean log-likelihood per token.

    Raises CremaError where likelihoods are not numbers: then the weights are broken.
    """
    best, chosen = scores.mean.max(dim=1)
    if bool(scores.mean.isnan().any()) or not bool(best.isfinite().all()):
        raise CremaError(
            "the model gives likelihoods that are not finite numbers: its weights hold NaN or "
            "infinity; load an earlier checkpoint or train again with a lower train.lr"
        )
    indices: list[int] = chosen.tolist()
    return indices


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The Wilson score interval of a rate at 95 %; it stays inside [0, 1] at any rate.

    Raises ValueError unless ``0 <= correct <= total`` and ``total >= 1``.
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} of {total} is not a rate")
    rate, z2 = correct / total, _Z95**2
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    spread = rate * (1 - rate) / total + z2 / (4 * total**2)
    half = _Z95 * spread**0.5 / (1 + z2 / total)
    # At the ends the formula gives the rate itself, but for rounding.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return low, high


def bootstrap(
    right: Sequence[float], clips: Sequence[int], *, draws: int = _DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a mean when clips are drawn anew, as many as there are, each with all
    its questions: these are not independent of each other. Where all or none is right it is
    Wilson's, since drawing can show no other outcome.

    right: 0 or 1 (or any number) of each question. Raises ValueError where there is none.
    """
    if not right:
        raise ValueError("no question, no interval")
    values = np.asarray(right, dtype=np.float64)
    if values.min() == values.max() and values[0] in (0, 1):
        return wilson(int(values.sum()), len(values))
    _, place = np.unique(np.asarray(clips), return_inverse=True)
    sums, counts = np.bincount(place, values), np.bincount(place)
    random, n = np.random.default_rng(seed), len(sums)
    means = []
    at_once = max(1, 2**22 // n)
    for start in range(0, draws, at_once):
        drawn = random.integers(0, n, (min(at_once, draws - start), n))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def chance(samples: Sequence[Sample]) -> list[float]:
    """For each sample, how often a uniform guess is right.

    Multiple choice: one of its options. Open-ended: one of its candidates; where it states none,
    one of the distinct answers that occur among the open-ended samples of its type. A sample may
    accept several of them.
    """
    pools: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if not sample.options:
            pools[sample.type].update(map(normalise, sample.answers))
    rates = []
    for sample in samples:
        if sample.options:
            rates.append(1 / len(sample.options))
        else:
            pool = sample.left_open or pools[sample.type]
            rates.append(len(sample.accepted & pool) / len(pool))
    return rates


@dataclass(frozen=True)
class Paired:
    """The pairs of one sense.

    places: of the two questions of each pair that has both. incomplete: the number of pairs that
    have one scored question, or none.
    """

    places: tuple[tuple[int, int], ...]
    incomplete: int

    def both(self, right: Sequence[float]) -> float:
        """The number of pairs with both questions right; ``right`` is 0 or 1 for each question.

        Of probabilities that each is right it is the number expected where they are independent.
        """
        return math.fsum(right[one] * right[other] for one, other in self.places)


def pair_up(
    scored: Sequence[Mapping[str, str]], unscored: Sequence[Mapping[str, str]] = ()
) -> dict[str, Paired]:
    """sense -> its pairs, from the ``pairs`` of each question; senses in canonical order.

    Places are those in ``scored``; a pair with a question in ``unscored`` is incomplete.

    Raises ValueError for a pair of more than two.
    """
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, names in enumerate([*scored, *unscored]):
        for sense, name in names.items():
            places[sense][name].append(place)
    found = {}
    for sense in canonical(places):
        complete = []
        for name, members in places[sense].items():
            if len(members) > 2:
                raise ValueError(f"pair {name!r} of {sense} has {len(members)} questions")
            if len(members) == 2 and members[1] < len(scored):
                complete.append((members[0], members[1]))
        found[sense] = Paired(tuple(complete), len(places[sense]) - len(complete))
    return found


def majority(samples: Sequence[Sample], train: Sequence[Sample]) -> list[bool]:
    """For each sample, whether the most frequent training answer is right.

    The answers to the same question text are counted; for a question that training does not
    have, all answers. Multiple choice takes the most frequent of its options. Of equally frequent
    answers the first in the alphabet, or in the options, counts.
    """
    overall: Counter[str] = Counter()
    to_question: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in train:
        if sample.answers:
            overall[normalise(sample.answers[0])] += 1
            to_question[sample.question][normalise(sample.answers[0])] += 1
    guesses = []
    for sample in samples:
        counts = to_question.get(sample.question, overall)
        if sample.options:
            guess = max(sample.options, key=lambda option: counts[normalise(option)])
        else:
            guess = min(counts, key=lambda answer: (-counts[answer], answer), default="")
        guesses.append(is_correct(sample, guess))
    return guesses

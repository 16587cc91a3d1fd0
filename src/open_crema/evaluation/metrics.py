"""What counts as right, how sure a rate is, and what it takes to be better than guessing.

Matching is strict. Lenient schemes (a prediction inside the answer, an answer inside the
prediction) make "o" right for "violin"; none of them is used here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import NormalDist

from open_crema.backbones.base import OptionScores
from open_crema.data.sample import Sample
from open_crema.errors import CremaError

_Z95 = NormalDist().inv_cdf(0.975)
_TRAILING = " .,;:!?"


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation ``.,;:!?`` at the end; articles stay.

    A text of punctuation alone is kept, so that it never equals an empty one.
    """
    plain = " ".join(text.lower().split())
    return plain.rstrip(_TRAILING) or plain


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


def chance(samples: Sequence[Sample]) -> list[float]:
    """For each sample, how often a uniform guess is right.

    Multiple choice: one of its options. Open-ended: one of the distinct answers that occur among
    the open-ended samples of its type, of which a sample may accept several.
    """
    pools: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if not sample.options:
            pools[sample.type].update(map(normalise, sample.answers))
    return [
        1 / len(s.options)
        if s.options
        else len(set(map(normalise, s.answers))) / len(pools[s.type])
        for s in samples
    ]


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

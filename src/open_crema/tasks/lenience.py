"""The released code's ways to be right, which let more pass than an exact match does.

They are shown beside the strict score and never stand in for it. REFERENCE 4.9 to 4.11 describe
them; an empty prediction was "unanswerable" before it was scored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

CONTAINED = "released code: digits as words; a prediction that is part of the answer is right"
PART_OF = (
    "released code: first line, no commas, digits as words; the last word where the answer is one "
    "word; a prediction that is part of the answer is right, so is one of which nothing is left"
)
NONE = "none: as the strict score"
LETTER = (
    "released code: the option whose letter has the highest logit in the second generated token "
    "(the first, where only one was generated)"
)
_EMPTY = "unanswerable"
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = {str(i): word for i, word in enumerate(_WORDS) if i}
_SPECIAL = re.compile(r"</?s>|<pad>|<unk>")


def contained(prediction: str, answers: Sequence[str]) -> bool:
    """MUSIC-AVQA's: the prediction, digits as words, is a part of an answer ("o" of "violin")."""
    said = prediction.strip().lower() or _EMPTY
    said = _DIGITS.get(said, said)
    return any(said in answer.lower() for answer in answers)


def part_of(prediction: str, answers: Sequence[str]) -> bool:
    """SQA3D's: see :data:`PART_OF`."""
    said = _SPECIAL.sub("", prediction.strip() or _EMPTY).replace(",", "")
    said = (said.strip().splitlines() or [""])[0].strip().lower()
    for answer in answers:
        right, own = answer.lower(), said
        if len(right.split()) == 1 and own:
            own = own.split()[-1]
        if _DIGITS.get(own, own) in right:
            return True
    return False

"""The texts around a question (paper, Table 11), as the paper prints them or the released code has
them: ``wording`` "paper" or "released"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

WORDING = ("paper", "released")
_DELETED = re.compile(r'[.!"()*#:;~]')
_WORDS = 50


def processed(text: str) -> str:
    """As the released code has a text: lower case, without ``.!"()*#:;~``, its first 50 words."""
    plain = _DELETED.sub("", text.lower()).rstrip()
    return " ".join(plain.split(" ")[:_WORDS])


def open_ended(
    question: str, given: str, wording: str, *, situation: str = "", short: bool = True
) -> str:
    """given: what the answer is to be based on, as in "the frames and audio information". short:
    whether a single word or phrase is asked for."""
    phrase = "phrase"
    if wording == "released":
        # The typing error is the released code's; a model that learned it should be asked so.
        question, situation, phrase = processed(question), processed(situation), "phase"
    before = f"{situation.rstrip('. ')}. " if situation else ""
    how = f" using a single word or {phrase}" if short else ""
    return f"{before}Question: {question} Based on {given}, answer the question{how}."


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """The released code has options as they are, too."""
    listed = " ".join(
        f"{letter}: {text}" for letter, text in zip(letters(options), options, strict=True)
    )
    return (
        f"Question: {question} {listed} Considering the information presented in the frame, select "
        "the correct answer from the options."
    )


def letters(options: Sequence[str]) -> tuple[str, ...]:
    """``("Option A", "Option B", ...)``"""
    return tuple(f"Option {letter}" for letter in ascii_uppercase[: len(options)])

"""Words that query tokens stand for, as rows of the LLM's embedding matrix."""

from __future__ import annotations

from open_crema.backbones.base import Backbone

# Of its row. Seven fillers add up to about one word of the base's LLM; whole, to three and a half.
SOFT = 0.3


def token_of(backbone: Backbone, word: str) -> tuple[int, float]:
    """The first token that a word of a caption has in a text, and how much of its row is meant: a
    word in parentheses, as ``(quiet)``, is said softly."""
    soft = word.startswith("(") and word.endswith(")")
    return backbone.encode(f" {word[1:-1] if soft else word}")[0], SOFT if soft else 1.0

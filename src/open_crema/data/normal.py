"""How texts are compared. No other module is needed: exported tasks take this file along."""

_TRAILING = " .,;:!?"


def normalise(text: str) -> str:
    """Lower case, single spaces, no punctuation ``.,;:!?`` at the end; articles stay.

    A text of punctuation alone is kept, so that it never equals an empty one.
    """
    plain = " ".join(text.lower().split())
    return plain.rstrip(_TRAILING) or plain

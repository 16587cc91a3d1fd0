"""The one exception family that a user meets: what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'? "`` for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


class CremaError(Exception):
    """An error a user can act on. The command line prints it as one line and exits with code 2."""


class MediaError(CremaError):
    """A media file that cannot be used: missing, not media, empty, truncated, or too large."""


class WeightsError(CremaError):
    """Pretrained weights or a saved model that are missing, foreign or damaged."""


class ConfigError(CremaError):
    """A configuration that does not fit the schema; unknown keys name the nearest valid one."""


class DataError(CremaError):
    """A dataset file with a broken line or field; names the file, the line and the field."""


class SenseAbsent(Exception):  # noqa: N818 - a state of the input, not a failure
    """A sense that the input does not hold (no sound track, mute, not given), with the reason."""

    def __init__(self, sense: str, reason: str) -> None:
        super().__init__(f"{sense}: {reason}")
        self.sense = sense
        self.reason = reason

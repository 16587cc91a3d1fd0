"""What there is of each sense in a data set, what is not there and why, and which files are at
fault: every sample of every sense is present, absent or failed, by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from open_crema.errors import CremaError

Policy = Literal["error", "skip", "mask"]


@dataclass(frozen=True)
class Failure:
    """A file that cannot be used: for which senses of which samples, and what is wrong with it.

    senses and samples (ids) are empty for what belongs to no sample, such as a closed folder.
    """

    path: str
    error: str
    senses: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        error = " ".join(self.error.split())
        if not self.samples:
            return error
        count, first = len(self.samples), self.samples[0]
        whose = f"sample {first!r}" if count == 1 else f"{count} samples, the first is {first!r}"
        return f"{', '.join(self.senses)} of {whose}: {error}"


@dataclass
class Tally:
    """One sense. Samples: how many were expected and have it; the ids of those that do not hold it,
    by reason; the ids of those whose file failed, with the error. Results: how many were made now,
    and how many the store had before."""

    expected: int = 0
    present: int = 0
    absent: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    made: int = 0
    found: int = 0


@dataclass(frozen=True)
class Report:
    """The features of a data set. ``usable``: how many samples have some sense and are not skipped.

    Raises CremaError unless expected = present + absent + failed for every sense.
    """

    policy: Policy
    samples: int
    usable: int
    skipped: tuple[str, ...]
    senses: dict[str, Tally]
    failures: tuple[Failure, ...]

    def __post_init__(self) -> None:
        for sense, tally in self.senses.items():
            absent = sum(map(len, tally.absent.values()))
            if tally.expected != tally.present + absent + len(tally.failed):
                raise CremaError(
                    f"{sense}: {tally.expected} samples were expected, {tally.present} are "
                    f"present, {absent} absent and {len(tally.failed)} failed"
                )

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """sense -> id of a sample -> what is wrong with its file."""
        return {sense: tally.failed for sense, tally in self.senses.items() if tally.failed}

    @property
    def made(self) -> int:
        """Results that were made now, of all senses."""
        return sum(tally.made for tally in self.senses.values())

    @property
    def found(self) -> int:
        """Results that were in the store before."""
        return sum(tally.found for tally in self.senses.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

"""Naming what is damaged in a feature store."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from open_crema.data.entry import About, DamagedError, EarlierVersionError, read_label
from open_crema.data.shards import Packed, read_shard

_log = logging.getLogger(__name__)


def about_loose(path: Path) -> About | None:
    """What a damaged loose entry says it is about, as far as it can be read."""
    try:
        return read_label(path.read_bytes()).about
    except (DamagedError, EarlierVersionError, OSError):
        return None


def about_packed(place: Packed) -> About | None:
    """What the shard says that an entry is about, whatever became of the entry itself."""
    try:
        return read_shard(place.shard)[place].about
    except (DamagedError, OSError, KeyError):
        return None


def set_aside(path: Path, error: DamagedError) -> None:
    """Moves a damaged loose entry out of the way, with a warning that names it."""
    aside = path.with_suffix(".damaged")
    _log.warning(
        "%s: damaged (%s): %s; set aside as %s and made again",
        path,
        error,
        about_loose(path) or "unknown",
        aside.name,
    )
    with contextlib.suppress(OSError):  # another process was first, or it may only be read
        os.replace(path, aside)


def warn_of(place: Packed, error: DamagedError) -> None:
    """A warning that names a damaged entry of a shard."""
    _log.warning(
        "%s: entry %s is damaged (%s): %s; made again",
        place.shard,
        place.key,
        error,
        about_packed(place) or "unknown",
    )

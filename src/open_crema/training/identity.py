"""What makes a run the same run: its configuration, its questions, and what computes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from open_crema import __version__
from open_crema.config import Config, to_dict
from open_crema.data.dataset import FeatureDataset

# The sections that a run and its resumption share, and the keys of them that may differ.
_SECTIONS = ("model", "train")
_FREE = tuple(("train", key) for key in ("epochs", "validate_every", "checkpoint_every", "threads"))
_DATA = (("data", "frames"), ("data", "store_frames"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys that decide a run's course and in which two configurations differ. A key that one of
    them does not have yet, as it is of an earlier version, has its default there."""
    keys = [("seed",), *_DATA, *((part, key) for part in _SECTIONS for key in new[part])]

    def value(data: Any, path: tuple[str, ...]) -> Any:
        usual: Any = usually
        for part in path:
            usual = usual[part]
            data = data.get(part, usual) if isinstance(data, Mapping) else None
        return _filled(data, usual)

    usually = to_dict(Config())
    return [".".join(k) for k in keys if k not in _FREE and value(old, k) != value(new, k)]


def _filled(data: Any, usual: Any) -> Any:
    """With the defaults of what it does not have."""
    if not (isinstance(data, Mapping) and isinstance(usual, Mapping)):
        return data
    keys = dict.fromkeys((*usual, *data))
    return {key: _filled(data.get(key, usual.get(key)), usual.get(key)) for key in keys}


def digest(data: FeatureDataset) -> str:
    """What the run is trained on, by all but the places of the media files."""
    found = hashlib.sha256()
    for s in data.samples:
        said: list[Any] = [s.id, s.question, s.answers, sorted(s.media)]
        said += [[sense, s.captions[sense]] for sense in sorted(s.captions)]
        found.update(json.dumps(said).encode())
    for masked in sorted(data.masked):
        found.update(json.dumps(masked).encode())
    return found.hexdigest()[:16]


def computed_by() -> dict[str, Any]:
    """What two runs must share to be the same bit for bit, beside the machine."""
    threads = torch.get_num_threads()
    return {"open_crema": __version__, "torch": torch.__version__, "threads": threads}

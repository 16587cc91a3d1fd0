"""What a version promises: the same clips on every machine, pixels within one level.

``recorded.npz`` holds every second row and column of the first key frames of six clips as they were
when version 1 was frozen. It is written again, for a new VERSION only, by running this file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from open_crema.senseqa.clips import Clip, GroupClips
from open_crema.senseqa.sets import Group
from open_crema.senseqa.types import TYPES, VERSION

RECORDED = Path(__file__).with_name("recorded.npz")
NAMES = ("audio_which", "depth_nearer", "flow_what", "point_turned", "thermal_taken", "touch_which")


def clip(name: str) -> Clip:
    group = Group(TYPES[name], "test", 1, 0, 4, 2 ** len(TYPES[name].flips))
    return list(GroupClips(group))[-1]


def parts(name: str) -> dict[str, np.ndarray]:
    """Of each sense's arrays, enough to notice any change."""
    one, found = clip(name), {}
    for sense in ("video", "touch", "depth", "normal", "flow", "thermal"):
        (found[f"{name}/{sense}"],) = (maps[0, ::2, ::2] for maps in one[sense].values())
    found[f"{name}/point"] = one["point"]["xyz"][::37]
    found[f"{name}/colours"] = one["point"]["rgb"][::37]
    found[f"{name}/audio"] = one["audio"]["samples"][::19]
    return found


def tolerance(key: str) -> float:
    sense = key.partition("/")[2]
    return {
        "video": 1,
        "touch": 1,
        "colours": 1,
        "depth": 0.0011,  # it is in millimetres
        "normal": 0.001,
        "flow": 0.001,
        "thermal": 0.11,  # it is in steps of 0.1
        "point": 0.0001,
        "audio": 0.0001,
    }[sense]


@pytest.mark.parametrize("name", NAMES)
def test_clips_are_what_they_were(name: str) -> None:
    with np.load(RECORDED, allow_pickle=False) as recorded:
        assert int(recorded["version"]) == VERSION, "run this file to record the new version"
        for key, found in parts(name).items():
            before = recorded[key]
            assert found.shape == before.shape
            assert found.dtype == before.dtype
            off = np.abs(found.astype(float) - before.astype(float)).max()
            assert off <= tolerance(key), f"{key}: a change of what clips show raises VERSION"


def test_the_record_notices_a_change() -> None:
    with np.load(RECORDED, allow_pickle=False) as recorded:
        for key, found in parts("touch_which").items():
            for other in ("audio_which", "thermal_taken"):
                before = recorded[f"{other}/{key.partition('/')[2]}"]
                assert np.abs(found.astype(float) - before.astype(float)).max() > tolerance(key)


if __name__ == "__main__":
    arrays = {key: array for name in NAMES for key, array in parts(name).items()}
    np.savez_compressed(RECORDED, version=np.array(VERSION), **arrays)

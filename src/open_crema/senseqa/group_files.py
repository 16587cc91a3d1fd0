"""One group of questions as a folder of ordinary media files.

::

    video-0.mp4, video-1.mp4                      with its sound
    flow.npz depth.npz normal.npz touch.npz thermal.npz
                                                  the arrays of `Clip`, ``times`` [T, 2] in seconds
    point.ply
    mask.npz                                      which thing each pixel shows; no sense, but truth
    scene-0.json, scene-1.json                    each world's truth
    files.json                                    bytes and SHA-256 of the others

The numbers are the variant of a world in that sense alone. What all worlds of the group share has
none, and is there once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from open_crema.media import write_cloud, write_maps, write_video
from open_crema.senseqa import sounds
from open_crema.senseqa.clips import Clip, GroupClips
from open_crema.senseqa.scene import SECONDS
from open_crema.senseqa.sets import Group
from open_crema.senseqa.types import Variant

PART = ".part"  # how the names of what is not finished end
_RECORD = "files.json"
# Sense -> its file, and the senses whose difference makes it another one.
_FILES = {
    "video": ("video.mp4", ("video", "audio")),
    "flow": ("flow.npz", ("flow",)),
    "depth": ("depth.npz", ("depth",)),
    "normal": ("normal.npz", ("normal",)),
    "point": ("point.ply", ("point",)),
    "touch": ("touch.npz", ("touch",)),
    "thermal": ("thermal.npz", ("thermal",)),
}


def media_of(group: Group, variant: Variant) -> dict[str, str]:
    """Sense -> the name of its file. Sound is that of the video."""
    return {sense: _name(group, variant, *own) for sense, own in _FILES.items()}


def mp4_variant(group: Group, variant: Variant) -> Variant:
    """The first of the worlds that share this one's mp4."""
    flips = group.kind.flips
    return tuple(v if flips[i] in _FILES["video"][1] else 0 for i, v in enumerate(variant))


def write(group: Group, place: Path) -> int:
    """Makes the folder ``place``, unless it is there and whole; returns the bytes that it holds.

    All worlds of the group are in it, however many of its questions a set takes. Raises MediaError
    or OSError where it cannot be written.
    """
    size = _bytes_if_whole(place)
    if size is not None:
        return size
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex}{PART}")
    try:
        if place.exists():
            place.rename(part)
            shutil.rmtree(part)
        part.mkdir()
        _fill(replace(group, first=len(group.variants)), part)
        size = _record(part)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return size


def _fill(group: Group, folder: Path) -> None:
    edges = np.linspace(0.0, SECONDS, group.frames + 1)
    times = np.stack([edges[:-1], edges[1:]], axis=1)
    for clip in GroupClips(group):
        for sense, name in media_of(group, clip.variant).items():
            if not (folder / name).exists():
                _write_sense(clip, sense, folder / name, times)
        name = _name(group, clip.variant, "scene.json", group.kind.flips)
        _write_json(folder / name, asdict(clip.scene))
        if not (folder / "mask.npz").exists():
            write_maps(folder / "mask.npz", mask=clip.mask, times=times)


def _write_sense(clip: Clip, sense: str, path: Path, times: npt.NDArray[np.float64]) -> None:
    arrays = clip[sense]
    if sense == "video":
        sound = clip["audio"]["samples"]
        write_video(path, arrays["rgb"], SECONDS, sound, sounds.RATE)
    elif sense == "point":
        write_cloud(path, arrays["xyz"], arrays["rgb"])
    else:
        write_maps(path, **arrays, times=times)


def _name(group: Group, variant: Variant, name: str, senses: tuple[str, ...]) -> str:
    """The file's name with the variant in these senses, if the group differs in any of them."""
    rows = zip(group.kind.flips, variant, strict=True)
    number = "".join(str(v) for sense, v in rows if sense in senses)
    stem, _, ending = name.partition(".")
    return f"{stem}-{number}.{ending}" if number else name


def _record(folder: Path) -> int:
    """Writes down what the folder holds; returns the bytes, its own among them.

    Nothing waits until it is on the disk, which would take as long as all the rest: what a power
    loss has spoilt does not match this record, and is made again.
    """
    held = {file.name: _described(file) for file in sorted(folder.iterdir())}
    _write_json(folder / _RECORD, held)
    return _bytes(held, folder)


def _bytes_if_whole(folder: Path) -> int | None:
    """The bytes that it holds; None where it is not there, or a file is not as recorded."""
    try:
        held = json.loads((folder / _RECORD).read_bytes())
        if any(_described(folder / name) != said for name, said in held.items()):
            return None
        return _bytes(held, folder)
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # of a record that is none
        return None


def _described(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _bytes(held: dict[str, dict[str, Any]], folder: Path) -> int:
    size: int = sum(one["bytes"] for one in held.values())
    return size + (folder / _RECORD).stat().st_size


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, default=sorted) + "\n", encoding="utf-8")

"""What a task of lmms-eval shows a model ("visuals"), as the media of a sample.

Its tasks give paths of videos, sounds as arrays or decoders, and PIL images, in lists that may be
nested. Tasks that :mod:`open_crema.harness.export` writes also name the sense of a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from open_crema import modality
from open_crema.data.sample import Timing
from open_crema.errors import MediaError
from open_crema.media import write_image, write_sound
from open_crema.media.source import IMAGE_SUFFIXES, SOUND_SUFFIXES


@dataclass
class Shown:
    """media, timing: as of :class:`~open_crema.data.sample.Sample`."""

    media: dict[str, str] = field(default_factory=dict)
    timing: dict[str, Timing] = field(default_factory=dict)


def media_of(visuals: Any, folder: Path) -> Shown:
    """The media that a question is about; none where there are no visuals.

    A picture, or several as a sequence, are the video. folder: where arrays and pictures are
    written to, to be read from there as files are; it must not exist or be empty, and be kept as
    long as the media are used.

    Raises MediaError for what is no such thing, and for two videos, or two files of a sense: a
    model looks at one clip.
    """
    shown, pictures = Shown(), list[Any]()
    for visual in _flat(visuals):
        if isinstance(visual, Mapping) and "sense" in visual:
            _own_file(visual, shown)
        elif (samples := _sound(visual)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "sound.wav"
            write_sound(path, *samples)
            _add(shown, "audio", str(path))
        elif _is_picture(visual):
            pictures.append(visual)
        else:
            sense, path_given = _of_path(visual)
            if sense == "picture":
                pictures.append(path_given)
            else:
                _add(shown, sense, path_given)
    if pictures:
        _add(shown, "video", _pictures(pictures, folder / "pictures"))
    return shown


def _flat(visuals: Any) -> Iterator[Any]:
    if isinstance(visuals, (list, tuple)):
        for visual in visuals:
            yield from _flat(visual)
    elif visuals is not None:
        yield visuals


def _add(shown: Shown, sense: str, path: str) -> None:
    if sense in shown.media:
        raise MediaError(
            f"a question shows two files of {sense}, {shown.media[sense]} and {path}; the model "
            "takes one clip a question"
        )
    shown.media[sense] = path


def _own_file(visual: Mapping[str, Any], shown: Shown) -> None:
    """``{"sense": "thermal", "path": ..., "rate": 25.0, "start": 0.0}``; rate 0: not stated."""
    sense = modality.get(str(visual["sense"])).name
    _add(shown, sense, str(visual["path"]))
    rate, start = float(visual.get("rate") or 0), float(visual.get("start") or 0)
    if rate or start:
        shown.timing[sense] = Timing(rate or None, start)


def _sound(visual: Any) -> tuple[npt.NDArray[np.float32], int] | None:
    """Mono samples and their rate, of a dict with an array or of a decoder of torchcodec."""
    if isinstance(visual, Mapping) and "array" in visual:
        values, rate = visual["array"], visual.get("sampling_rate")
    elif hasattr(visual, "get_all_samples"):
        decoded = visual.get_all_samples()
        values, rate = decoded.data, decoded.sample_rate
    else:
        return None
    samples = np.asarray(values, dtype=np.float32)
    if not isinstance(rate, (int, float, np.number)) or rate < 1:
        raise MediaError(f"a sound with the sampling rate {rate!r}: it must be a number of hertz")
    if samples.ndim == 2:  # the shorter side is that of the channels
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise MediaError(
            f"a sound of shape {list(samples.shape)}: it must be finite samples, [n] or with "
            "channels, at least one"
        )
    return samples / max(1.0, float(np.abs(samples).max())), int(rate)


def _is_picture(visual: Any) -> bool:
    """Whether it is a PIL image."""
    return hasattr(visual, "convert") and hasattr(visual, "size")


def _of_path(visual: Any) -> tuple[str, str]:
    """Sense, or "picture", and path, of a path or of a dict with its ``type``."""
    kind = None
    if isinstance(visual, Mapping):
        cut = [name for name in ("video_start", "video_end") if visual.get(name) is not None]
        if cut:
            raise MediaError(f"a visual with {', '.join(cut)}: the model takes whole clips only")
        kind, visual = visual.get("type"), visual.get("path") or visual.get("url")
    if not isinstance(visual, (str, os.PathLike)):
        raise MediaError(
            f"a visual that is {type(visual).__name__}: give the path of a video, a sound as "
            '{"array": ..., "sampling_rate": ...}, or a PIL image'
        )
    path = os.fspath(visual)
    suffix = Path(path).suffix.lower()
    if kind == "audio" or suffix in SOUND_SUFFIXES:
        return "audio", path
    return "picture" if kind == "image" or suffix in IMAGE_SUFFIXES else "video", path


def _pictures(pictures: Sequence[Any], folder: Path) -> str:
    """One picture's own path, or a folder of several in their order."""
    paths = [p for p in pictures if isinstance(p, str)]
    if len(paths) == len(pictures) == 1:
        return paths[0]
    folder.mkdir(parents=True)
    if paths and len(paths) < len(pictures):
        raise MediaError("a question shows pictures as files and as images: give them as one kind")
    for number, picture in enumerate(pictures):
        if isinstance(picture, str):
            place = folder / f"{number:06d}{Path(picture).suffix.lower()}"
            place.symlink_to(Path(picture).absolute())
        else:
            image = np.asarray(picture.convert("RGB"), dtype=np.uint8)
            write_image(folder / f"{number:06d}.png", image)
    return str(folder) if len(pictures) > 1 else str(folder / "000000.png")

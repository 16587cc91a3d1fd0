"""Maps of numbers in NumPy files: depth, temperature, normals, flow, or pictures as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from open_crema.errors import MediaError
from open_crema.media import timeline
from open_crema.media.arrays import Array, load_npy, load_npz
from open_crema.media.clip import Clip
from open_crema.media.sequence import Files, list_files
from open_crema.media.source import IMAGE_SUFFIXES, Limits, PathLike, listed, locate
from open_crema.media.timeline import Floats, Indices, Line

_TIMING = ("times", "rate")  # arrays of an .npz that say when its maps appear


@dataclass(frozen=True)
class MapKind:
    """What a map may be: dtype, channels of its last axis (None: no such axis), what that is in
    words, and what to do with other numbers."""

    dtype: Literal["floating", "uint8"]
    channels: int | None
    what: str
    remedy: str = ""

    @property
    def shape(self) -> str:
        last = "" if self.channels is None else f", {self.channels}"
        return f"[H, W{last}] or [n, H, W{last}]"

    @property
    def axes(self) -> int:
        """Of one map."""
        return 2 if self.channels is None else 3

    def holds(self, array: Array) -> bool:
        wanted = np.floating if self.dtype == "floating" else np.uint8
        return np.issubdtype(array.dtype, wanted)

    def fits(self, array: Array) -> bool:
        return (
            self.holds(array)
            and array.ndim in (self.axes, self.axes + 1)
            and (self.channels is None or array.shape[-1] == self.channels)
            and array.size > 0
        )


PICTURES = MapKind("uint8", 3, "RGB pictures as uint8")


@dataclass(frozen=True)
class Maps:
    """values: [S, H, W] or [S, H, W, C], float32 (what is not finite is NaN) or uint8.

    times: float64 [S, 2] seconds. name: of the array in an .npz, else "". chosen: which of the maps
    of line they are, [S].
    """

    values: Array
    times: Floats
    name: str
    line: Line
    chosen: Indices


def holds_maps(path: PathLike, limits: Limits) -> bool:
    """Whether `read_maps` is to read it: an .npy or .npz file, or a folder of .npy files.

    A single .npy beside images (poses, intrinsics) is passed over. Raises MediaError when it cannot
    be opened, and for a folder of images and several arrays: it is not said which are meant.
    """
    path, kind = locate(path, limits)
    if kind != "folder":
        return kind == "array"
    found = [file.suffix.lower() for file in listed(path, limits)]
    arrays, images = found.count(".npy"), not IMAGE_SUFFIXES.isdisjoint(found)
    if images and arrays > 1:
        raise MediaError(
            f"{path}: the folder mixes images and .npy files: keep each sequence in a folder of "
            f"its own"
        )
    return arrays > 0 and not images


def read_maps(
    path: PathLike,
    clip: Clip,
    names: str | Sequence[str],
    kinds: Sequence[MapKind],
    *,
    between: bool = False,
) -> Maps:
    """At most ``clip.frames`` maps, aligned to the clip's video as `timeline` says.

    Args:
        path: an .npy; an .npz, whose array is one of `names` or its only one beside ``times`` [n]
            or [n, 2] seconds and ``rate`` (maps per second); or a folder of .npy files, one map
            each, with a timestamps.txt if there is one.
        kinds: what the maps may be.
        between: as in `timeline.place`.

    Raises MediaError: not NumPy files, pickles, another dtype or shape, no valid number in any map
    taken, over a limit, or not fitting the clip's video.
    """
    path, kind = locate(path, clip.limits)
    names = [names] if isinstance(names, str) else names
    name, rate, stamps = "", None, None
    if kind == "folder":
        files = list_files(path, clip.limits, [".npy"])
        count, stamps = len(files.paths), files.stamps
    elif kind == "array":
        if path.suffix.lower() == ".npz":
            arrays = load_npz(path, clip.limits)
            rate, stamps = _timing(path, arrays)
            name, array = _named(path, arrays, names)
        else:
            array = load_npy(path)
        of = _check(path, array, kinds, clip.limits)
        array = array[None] if array.ndim == of.axes else array
        count = len(array)
    else:
        raise MediaError(f"{path}: holds no maps of numbers: give .npy or .npz files")
    line = timeline.place(path, count, clip, stamps=stamps, rate=rate, between=between)
    timeline.say(path, line, clip)
    chosen, times = timeline.choose(path, line, clip)
    if kind == "folder":
        values = _load_files(files, chosen, kinds, clip.limits)
    else:
        values = np.asarray(array[chosen])
    if values.dtype != np.uint8:
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(np.float32)
        values = np.where(np.isfinite(values), values, np.float32(np.nan))
        if np.isnan(values).all():
            raise MediaError(
                f"{path}: none of the {len(values)} maps taken from it holds a finite number: "
                f"export it again, or leave the sense out"
            )
    return Maps(values, times, name, line, chosen)


def _load_files(files: Files, chosen: Indices, kinds: Sequence[MapKind], limits: Limits) -> Array:
    found: set[str] = set()

    def read(file: Path) -> Array:
        locate(file, limits)
        array = load_npy(file)
        of = _check(file, array, kinds, limits)
        if array.ndim != of.axes:
            raise MediaError(f"{file}: holds {len(array)} maps: in a folder every file is one map")
        found.add(of.what)
        if len(found) > 1:
            raise MediaError(
                f"{file}: the files of its folder are different things: {' and '.join(found)}"
            )
        return array

    return files.load(chosen, read)


def _check(path: Path, array: Array, kinds: Sequence[MapKind], limits: Limits) -> MapKind:
    for kind in kinds:
        if kind.fits(array):
            limits.check_pixels(path, *array.shape[array.ndim - kind.axes :][1::-1])
            return kind
    wanted = ", or ".join(f"{kind.what}, {kind.shape}" for kind in kinds)
    alike = any(kind.holds(array) for kind in kinds)
    remedy = "" if alike else "; ".join(kind.remedy for kind in kinds if kind.remedy)
    raise MediaError(
        f"{path}: expected {wanted}; found shape {array.shape} of {array.dtype}"
        f"{': ' + remedy if remedy else ''}"
    )


def _named(path: Path, arrays: dict[str, Array], names: Sequence[str]) -> tuple[str, Array]:
    for name in names:
        if name in arrays:
            return name, arrays[name]
    others = [name for name in arrays if name not in _TIMING]
    if len(others) != 1:
        raise MediaError(
            f"{path}: holds {', '.join(arrays) or 'no array'}: name the array of maps "
            f"{' or '.join(map(repr, names))}"
        )
    return others[0], arrays[others[0]]


def _timing(path: Path, arrays: dict[str, Array]) -> tuple[float | None, Floats | None]:
    """rate and time stamps that an .npz states of its maps, whose shape is yet to be checked."""
    for name in _TIMING:
        if name in arrays and arrays[name].dtype.kind not in "iuf":
            raise MediaError(
                f"{path}: {name!r} must be numbers, found {arrays[name].dtype}: give seconds "
                f"('times') or maps per second ('rate')"
            )
    rate = arrays.get("rate")
    if rate is not None and rate.size != 1:
        raise MediaError(f"{path}: 'rate' must be one number, found shape {rate.shape}")
    return None if rate is None else checked_rate(path, float(rate.reshape(()))), arrays.get(
        "times"
    )


def checked_rate(path: Path, rate: float) -> float:
    """A rate that a file states. Raises MediaError where it is none."""
    if not 0 < rate < np.inf:
        raise MediaError(f"{path}: 'rate' must be above 0 per second, found {rate:g}")
    return rate

"""What may be opened: the kinds of source, the limits on them, and how a source is refused."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from open_crema.config import LimitsConfig
from open_crema.errors import MediaError

PathLike = str | os.PathLike[str]
Kind = Literal["container", "image", "folder", "array", "flow", "cloud", "tensors"]

_NAMES: dict[Kind, str] = {
    "container": "3gp aac aif aiff avi flac flv gif m2ts m4a m4v mka mkv mov mp3 mp4 mpeg mpg mts "
    "oga ogg ogv opus ts wav webm wma wmv",
    "image": "bmp jpeg jpg pgm png ppm tif tiff webp",
    "array": "npy npz",
    "flow": "flo",
    "cloud": "ply xyz",
    "tensors": "safetensors",
}
_KINDS = {f".{name}": kind for kind, names in _NAMES.items() for name in names.split()}
KNOWN_SUFFIXES = frozenset(_KINDS)
IMAGE_SUFFIXES = frozenset(suffix for suffix, kind in _KINDS.items() if kind == "image")
CONTAINER_SUFFIXES = frozenset(suffix for suffix, kind in _KINDS.items() if kind == "container")
_SOUNDS = "aac aif aiff flac m4a mka mp3 oga ogg opus wav wma"
# Containers that by their name hold sound alone.
SOUND_SUFFIXES = frozenset(f".{name}" for name in _SOUNDS.split())
VIDEO_SUFFIXES = IMAGE_SUFFIXES | CONTAINER_SUFFIXES - SOUND_SUFFIXES


@dataclass(frozen=True)
class Limits:
    """Media larger than this is refused with a MediaError that names the limit.

    max_bytes: of one file; max_seconds: of a video or a sound; max_pixels: of one frame;
    max_points: of a point cloud; max_files: of a folder.
    """

    max_bytes: int = 4 * 2**30
    max_seconds: float = 3600.0
    max_pixels: int = 64_000_000
    max_points: int = 10_000_000
    max_files: int = 1_000_000

    @classmethod
    def from_config(cls, config: LimitsConfig) -> Self:
        return cls(config.bytes, config.seconds, config.pixels, config.points, config.files)

    def check_bytes(self, path: PathLike, size: int) -> None:
        if size > self.max_bytes:
            raise self._over(path, f"{size} bytes", f"{self.max_bytes} bytes", "bytes")

    def check_seconds(self, path: PathLike, seconds: float) -> None:
        if seconds > self.max_seconds + 1e-6:  # a duration is a sum of rounded ones
            raise self._over(path, "more than that", f"{self.max_seconds:g} seconds", "seconds")

    def check_pixels(self, path: PathLike, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            size = f"a frame of {width} x {height} pixels"
            raise self._over(path, size, f"{self.max_pixels} pixels", "pixels")

    def check_points(self, path: PathLike, count: int) -> None:
        if count > self.max_points:
            raise self._over(path, f"{count} points", f"{self.max_points} points", "points")

    def check_files(self, path: PathLike, count: int) -> None:
        if count > self.max_files:
            raise self._over(path, f"{count} files", f"{self.max_files} files", "files")

    @staticmethod
    def _over(path: PathLike, found: str, limit: str, name: str) -> MediaError:
        return MediaError(
            f"{path}: too large: the limit is {limit}, this is {found}. Cut or shrink it, or raise "
            f"the limit (Limits.max_{name}, data.limits.{name})"
        )


DEFAULT_LIMITS = Limits()


def locate(path: PathLike, limits: Limits) -> tuple[Path, Kind]:
    """The path and the kind of source it is; its content is judged by whoever reads it.

    Raises MediaError as `check_file`, and for an extension that is not known.
    """
    path = check_file(path, limits, lambda path: path.suffix.lower() in _KINDS)
    return path, "folder" if path.is_dir() else _KINDS[path.suffix.lower()]


def check_file(
    path: PathLike, limits: Limits, known: Callable[[Path], bool] = lambda path: True
) -> Path:
    """That it is a folder, or a file that may be opened.

    Raises MediaError: missing, empty, unreadable, not a regular file, too many bytes, or of an
    extension that is not `known`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return path
        size = path.stat().st_size
        if not path.is_file():
            raise MediaError(f"{path}: not a regular file: give a file or a folder")
        if not known(path):
            raise MediaError(
                f"{path}: unsupported extension {path.suffix!r}: give a video, sound, image or "
                f"depth file ({' '.join(sorted(_KINDS))}) or a folder of images"
            )
        if size == 0:
            raise MediaError(f"{path}: the file is empty (0 bytes): copy or download it again")
        limits.check_bytes(path, size)
        with path.open("rb"):
            return path
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file or folder: check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(
            f"{path}: cannot be opened: {reason}; check the path and its permissions"
        ) from None


def list_images(
    folder: Path, limits: Limits, suffixes: Iterable[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """The images of a folder in natural order of their names (frame2 before frame10).

    suffixes: of what else to list instead. Raises MediaError when there are none, too many, or when
    they are of several formats: then the folder mixes different things, such as colour and depth,
    and their common order means nothing.
    """
    suffixes = frozenset(suffixes)
    files = [file for file in listed(folder, limits) if file.suffix.lower() in suffixes]
    if not files:
        raise MediaError(f"{folder}: the folder holds no images ({' '.join(sorted(suffixes))})")
    found = {".jpg" if f.suffix.lower() == ".jpeg" else f.suffix.lower() for f in files}
    if len(found) > 1:
        raise MediaError(
            f"{folder}: the folder mixes images of several formats ({' '.join(sorted(found))}): "
            f"keep each sequence in a folder of its own"
        )
    return files


def listed(folder: Path, limits: Limits) -> list[Path]:
    """What a folder holds, in natural order; names that begin with a dot are passed over."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise MediaError(
            f"{folder}: the folder cannot be listed: {error.strerror}; check its permissions"
        ) from None
    limits.check_files(folder, len(entries))
    return sorted(entries, key=lambda entry: natural(entry.name))


def natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

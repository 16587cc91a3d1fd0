"""Sequences of maps: the files of a folder, or one file, with the time stamps that they bring."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from open_crema.errors import MediaError
from open_crema.media.images import Scalar, stack
from open_crema.media.source import IMAGE_SUFFIXES, Limits, PathLike, check_file, list_images
from open_crema.media.timeline import Floats, Indices

STAMPS = "timestamps.txt"


@dataclass(frozen=True)
class Files:
    """The files of a sequence in order, one a map; stamps: their time stamps [n], if any."""

    paths: tuple[Path, ...]
    stamps: Floats | None

    def load(
        self, chosen: Indices, read: Callable[[Path], np.ndarray[tuple[int, ...], np.dtype[Scalar]]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[Scalar]]:
        """The chosen maps as one array [S, ...]. Raises MediaError where their sizes differ."""
        files = [self.paths[i] for i in chosen.tolist()]
        return stack(files, (read(file) for file in files))


def list_files(path: Path, limits: Limits, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> Files:
    """The files of a folder by natural order of their names, or the one file itself.

    Raises MediaError as `list_images`, and where the folder's timestamps.txt does not fit.
    """
    if not path.is_dir():
        return Files((path,), None)
    files = list_images(path, limits, suffixes)
    return Files(tuple(files), read_stamps(path / STAMPS, files, limits))


def read_stamps(path: Path, files: list[Path], limits: Limits) -> Floats | None:
    """Seconds of each file, from lines of one number, in the order of the files, or of a file's
    name and a number; lines that begin with # are passed over."""
    if not path.exists():
        return None
    lines = [line.split() for line in read_text(path, limits).splitlines()]
    lines = [words for words in lines if words and not words[0].startswith("#")]
    named = bool(lines) and len(lines[0]) == 2
    if any(len(words) != 1 + named for words in lines):
        raise MediaError(f"{path}: expected a number a line, or a file's name and a number a line")
    if len(lines) != len(files):
        raise MediaError(
            f"{path}: {len(lines)} time stamps for {len(files)} files: write one a file, in seconds"
        )
    try:
        numbers = np.array([float(words[-1]) for words in lines])
    except ValueError as error:
        raise MediaError(f"{path}: expected seconds ({error})") from None
    if not named:
        return numbers
    by_name = dict(zip((words[0] for words in lines), numbers, strict=True))
    missing = [f.name for f in files if f.name not in by_name and f.stem not in by_name]
    if missing:
        raise MediaError(f"{path}: has no time stamp of {missing[0]}: write one a file")
    return np.array([by_name.get(f.name, by_name.get(f.stem)) for f in files], dtype=np.float64)


def read_text(path: PathLike, limits: Limits) -> str:
    """The whole of a text file. Raises MediaError: unusable, too large, or not text."""
    path = check_file(path, limits)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise MediaError(f"{path}: cannot be read: {reason}") from None

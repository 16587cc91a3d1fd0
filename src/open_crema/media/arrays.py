"""NumPy files: never a pickle, and nothing that unpacks to more than the limit."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media.source import Limits

Array = npt.NDArray[Any]


def load_npy(path: Path) -> Array:
    """The array, left on the disk until it is indexed. Raises MediaError when damaged."""
    with _readable(path):
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


def array_names(path: Path) -> set[str]:
    """The names of an archive's arrays, without reading them. Raises MediaError when damaged."""
    with _readable(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def load_npz(path: Path, limits: Limits) -> dict[str, Array]:
    """All arrays of the archive by name. Raises MediaError when damaged or over the limit."""
    with _readable(path):
        with zipfile.ZipFile(path) as archive:  # sizes first: a small file may unpack to a huge one
            limits.check_bytes(path, sum(entry.file_size for entry in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Exception as error:  # damage surfaces as almost any exception of zipfile, zlib, NumPy
        raise MediaError(
            f"{path}: not a readable NumPy file ({error}): save it again with numpy.save or savez"
        ) from None

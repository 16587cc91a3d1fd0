"""Point clouds: PLY, text and NumPy files, as metres and colours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media.arrays import Array, load_npy, load_npz
from open_crema.media.clip import Clip
from open_crema.media.ply import read_ply
from open_crema.media.sequence import read_text
from open_crema.media.source import Limits, PathLike, check_file

CLOUD_SUFFIXES = (".ply", ".xyz", ".txt", ".npy", ".npz")
_POINTS, _COLOURS = ("xyz", "points"), ("rgb", "colors")


@dataclass(frozen=True)
class Cloud:
    """xyz: float32 [N, 3] metres; rgb: uint8 [N, 3], None where the file holds no colour."""

    xyz: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8] | None = None


def read_cloud(path: PathLike, clip: Clip) -> Cloud:
    """All points of a .ply (ascii or binary: ``x y z``, ``red green blue``), .xyz or .txt (a point
    a line: x y z, or x y z r g b), .npy ([N, 3] or [N, 6]) or .npz (``xyz`` or ``points`` [N, 3],
    ``rgb`` or ``colors`` [N, 3]).

    Colours are whole numbers 0 to 255, or fractions 0 to 1. Raises MediaError: damaged, no point,
    more than ``clip.limits.max_points``, NaN or infinity (the first row is named), or colours of
    another range.
    """
    path = check_file(path, clip.limits)
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in CLOUD_SUFFIXES:
        raise MediaError(f"{path}: not a point cloud: give a {' '.join(CLOUD_SUFFIXES)} file")
    if suffix == ".ply":
        xyz, rgb = read_ply(path, clip.limits)
    elif suffix == ".npz":
        xyz, rgb = _of_archive(path, clip.limits)
    elif suffix == ".npy":
        xyz, rgb = _split(path, load_npy(path), clip.limits)
    else:
        xyz, rgb = _split(path, _of_text(path, clip.limits), clip.limits)
    points = _points(path, xyz, clip.limits)
    return Cloud(points, None if rgb is None else _colours(path, rgb, len(points)))


def _of_archive(path: Path, limits: Limits) -> tuple[Array, Array | None]:
    arrays = load_npz(path, limits)
    xyz, rgb = (
        next((arrays[n] for n in names if n in arrays), None) for names in (_POINTS, _COLOURS)
    )
    if xyz is None:
        raise MediaError(
            f"{path}: has no array 'xyz' or 'points', nor 'features' with 'voxels'; it holds "
            f"{', '.join(map(repr, arrays)) or 'nothing'}"
        )
    return xyz, rgb


def _of_text(path: Path, limits: Limits) -> Array:
    """Rows of numbers; lines that begin with # or // are passed over."""
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path, limits).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith(("#", "//")):
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError as error:
            raise MediaError(f"{path}: line {number}: expected numbers ({error})") from None
        if len(words) not in (3, 6) or len(words) != len(rows[0]):
            raise MediaError(
                f"{path}: line {number}: expected x y z, or x y z r g b, in every line, found "
                f"{len(words)} numbers"
            )
        limits.check_points(path, len(rows))
    if not rows:
        raise MediaError(f"{path}: holds no point: expected x y z, or x y z r g b, a line")
    return np.array(rows)


def _split(path: Path, array: Array, limits: Limits) -> tuple[Array, Array | None]:
    """[N, 3] or [N, 6] as points and colours."""
    if array.ndim != 2 or array.shape[1] not in (3, 6) or not len(array):
        raise MediaError(
            f"{path}: expected points [N, 3], or [N, 6] with colours, of at least one point, found "
            f"shape {array.shape}"
        )
    limits.check_points(path, len(array))
    return array[:, :3], array[:, 3:] if array.shape[1] == 6 else None


def _points(path: Path, xyz: Array, limits: Limits) -> npt.NDArray[np.float32]:
    if xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz) or xyz.dtype.kind not in "iuf":
        raise MediaError(
            f"{path}: expected points as numbers [N, 3], at least one, found {xyz.dtype} "
            f"{list(xyz.shape)}"
        )
    limits.check_points(path, len(xyz))
    with np.errstate(over="ignore"):
        points = xyz.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise MediaError(
            f"{path}: NaN or infinity in {len(bad)} of {len(points)} points, the first is row "
            f"{bad[0]}: drop these points"
        )
    return points


def _colours(path: Path, rgb: Array, count: int) -> npt.NDArray[np.uint8]:
    """0 to 255 as they are, fractions 0 to 1 stretched to that."""
    if rgb.shape != (count, 3) or rgb.dtype.kind not in "iuf":
        raise MediaError(
            f"{path}: expected colours as numbers [{count}, 3], one row a point, found {rgb.dtype} "
            f"{list(rgb.shape)}"
        )
    bad = np.flatnonzero(~((rgb >= 0) & (rgb <= 255)).all(axis=1))
    if len(bad):
        raise MediaError(
            f"{path}: colours must be 0 to 255, or fractions 0 to 1; row {bad[0]} is "
            f"{rgb[bad[0]].tolist()}"
        )
    # Whole numbers stay what they are, however dark the cloud.
    fractions = rgb.dtype.kind == "f" and rgb.max() <= 1
    return np.rint(rgb * 255.0 if fractions else rgb).astype(np.uint8)

"""RGB-D folders: colour, metric depth and camera poses of the same frames.

Two layouts. Flat, as 7-Scenes and tsdf-fusion write it::

    frame-000000.color.jpg  frame-000000.depth.png  frame-000000.pose.txt ...

or in sub-folders, as ScanNet does::

    color/0.jpg ...  depth/0.png ...  pose/0.txt ...  intrinsic/intrinsic_depth.txt

Beside either: intrinsics (a text file with ``intrinsic`` in its name), poses in one array instead
of a file each (``poses*.npy`` [n, 4, 4]), ``timestamps.txt`` (seconds, one a line). Depth is 16-bit
PNG in millimetres, seen from where the colour picture is taken.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from open_crema.errors import MediaError
from open_crema.media import timeline
from open_crema.media.arrays import load_npy, load_npz
from open_crema.media.clip import Clip
from open_crema.media.depth import INVALID
from open_crema.media.images import read_depth_image, read_picture, stack
from open_crema.media.sequence import STAMPS, Files, read_stamps, read_text
from open_crema.media.source import DEFAULT_LIMITS, IMAGE_SUFFIXES, Limits, PathLike, listed, locate
from open_crema.media.timeline import Floats, Indices

log = logging.getLogger(__name__)

_FLAT = re.compile(r"(?P<frame>.+)[._-](?P<role>colou?r|rgb|depth|pose)", re.IGNORECASE)
_FOLDERS = {
    "colour": ("color", "colour", "rgb"),
    "depth": ("depth",),
    "pose": ("pose", "poses"),
}
_ROLES = {name: role for role, names in _FOLDERS.items() for name in names}
_SUFFIXES = {"colour": IMAGE_SUFFIXES, "depth": {".png"}, "pose": {".txt"}}
_SIZE = re.compile(r"(?<!\d)(\d{2,5})x(\d{2,5})(?!\d)")
_ASPECT = 0.01  # ScanNet's colour (1296 x 968) and depth (640 x 480) differ by 0.4 %
_RIGID = 0.02  # published poses are rounded


@dataclass(frozen=True)
class Rgbd:
    """Colour and depth of the same S frames.

    colour: uint8 [S, H, W, 3] RGB. metres: float32 [S, h, w] along the optical axis, NaN where
    nothing was measured; the same view at its own size. intrinsics: float64 [3, 3] in pixels of the
    depth, None where the folder holds none. poses: float64 [S, 4, 4], camera (x right, y down, z
    forward) to world, None where there are none or they were not asked for. times: float64 [S, 2]
    seconds.
    """

    colour: npt.NDArray[np.uint8]
    metres: npt.NDArray[np.float32]
    intrinsics: Floats | None
    poses: Floats | None
    times: Floats


@dataclass(frozen=True)
class Layout:
    """The files of an RGB-D folder, frame by frame in natural order of their names.

    poses: one a frame, or the one file of all. intrinsics: every file that may hold them.
    """

    folder: Path
    colour: tuple[Path, ...]
    depth: tuple[Path, ...]
    poses: tuple[Path, ...]
    stacked_poses: Path | None
    intrinsics: tuple[Path, ...]

    def files(self, limits: Limits) -> Files:
        """The colour pictures with the folder's time stamps, one each."""
        return Files(self.colour, read_stamps(self.folder / STAMPS, list(self.colour), limits))


def is_rgbd(path: PathLike, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether the path is a folder of one of the two layouts."""
    return find_layout(path, limits) is not None


def find_layout(path: PathLike, limits: Limits = DEFAULT_LIMITS) -> Layout | None:
    """The files of an RGB-D folder, not opened yet; None where the path is no such folder.

    Raises MediaError when the folder cannot be listed, or holds too many files.
    """
    folder = Path(path)
    try:
        if not folder.is_dir():
            return None
    except OSError:  # whoever opens it says why it cannot be opened
        return None
    entries = listed(folder, limits)
    found: dict[str, list[Path]] = {role: [] for role in _FOLDERS}
    for entry in entries:
        match = _FLAT.fullmatch(entry.stem)
        role = match and _ROLES[match["role"].lower()]
        if role and entry.suffix.lower() in _SUFFIXES[role]:
            found[role].append(entry)
    if not (found["colour"] and found["depth"]):
        found = {role: [] for role in _FOLDERS}
        for entry in entries:
            role = _ROLES.get(entry.name.lower())
            if role and entry.is_dir():
                found[role] += [
                    f for f in listed(entry, limits) if f.suffix.lower() in _SUFFIXES[role]
                ]
    if not (found["colour"] and found["depth"]):
        return None
    stacked = [e for e in entries if re.fullmatch(r"poses.*\.npy", e.name, re.IGNORECASE)]
    if len(stacked) + bool(found["pose"]) > 1:
        raise MediaError(
            f"{folder}: holds its poses twice ({', '.join(e.name for e in stacked)}"
            f"{', and a text file a frame' if found['pose'] else ''}): keep one"
        )
    cameras = [entry for entry in entries if _is_intrinsic(entry)]
    inside = [file for entry in cameras if entry.is_dir() for file in listed(entry, limits)]
    cameras += [file for file in inside if _is_intrinsic(file)]
    return Layout(
        folder,
        tuple(found["colour"]),
        tuple(found["depth"]),
        tuple(found["pose"]),
        stacked[0] if stacked else None,
        tuple(file for file in cameras if file.suffix.lower() == ".txt"),
    )


def read_rgbd(path: PathLike, clip: Clip, *, posed: bool = False) -> Rgbd:
    """At most ``clip.frames`` frames, aligned to the clip's video as `timeline` says.

    posed: read the poses too, and choose among frames whose pose is finite and rigid (a tracker
        writes others where it was lost); without it poses is None.
    Raises MediaError: not an RGB-D folder, counts or shapes that do not fit, intrinsics of another
    size, no usable pose among those given, no valid depth in any frame, or over a limit.
    """
    folder, _ = locate(path, clip.limits)
    layout = find_layout(folder, clip.limits)
    if layout is None:
        raise MediaError(
            f"{path}: not an RGB-D folder: expected frame-000000.color.jpg and "
            f"frame-000000.depth.png, or sub-folders color and depth"
        )
    _check_counts(layout)
    stamps = layout.files(clip.limits).stamps
    line = timeline.place(folder, len(layout.colour), clip, stamps=stamps)
    timeline.say(folder, line, clip)
    kept = np.arange(len(layout.colour))
    poses = _read_poses(layout, clip.limits) if posed else None
    if poses is not None:
        kept = _usable(layout, poses)
        line = replace(line, starts=line.starts[kept])
    taken, times = timeline.choose(folder, line, clip)
    chosen = kept[taken]
    colour_files = [layout.colour[i] for i in chosen.tolist()]
    depth_files = [layout.depth[i] for i in chosen.tolist()]
    for file in (*colour_files, *depth_files):
        locate(file, clip.limits)
    colour = stack(colour_files, (read_picture(file, clip.limits) for file in colour_files))
    units = stack(depth_files, (read_depth_image(file, clip.limits) for file in depth_files))
    metres = np.where(np.isin(units, INVALID), np.nan, units * 0.001).astype(np.float32)
    if not np.isfinite(metres).any():
        raise MediaError(
            f"{depth_files[0]}: neither it nor the other depth maps read with it hold a valid depth"
        )
    height, width = metres.shape[1:]
    _check_aspect(
        depth_files[0], (width, height), colour.shape[2:0:-1], "its colour picture is", "register"
    )
    intrinsics = _read_intrinsics(layout, (width, height), colour.shape[2:0:-1], clip.limits)
    return Rgbd(colour, metres, intrinsics, None if poses is None else poses[chosen], times)


def intrinsics_beside(path: PathLike, limits: Limits) -> tuple[Floats, Path] | None:
    """The intrinsics [3, 3] that come with depth maps, and their file, for `fit_intrinsics`: the
    array ``intrinsics`` in the same .npz, or a text file with ``intrinsic`` in its name in the same
    folder. None where there are none. Raises MediaError for what is no such matrix."""
    path, kind = locate(path, limits)
    if kind == "folder":
        files = [f for f in listed(path, limits) if _is_intrinsic(f) and f.suffix.lower() == ".txt"]
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise MediaError(f"{path}: holds several intrinsics ({names}): keep one")
        return (_matrix(files[0], limits), files[0]) if files else None
    if path.suffix.lower() != ".npz":
        return None
    arrays = load_npz(path, limits)
    if "intrinsics" not in arrays:
        return None
    found = arrays["intrinsics"]
    if found.shape not in ((3, 3), (4, 4)) or not np.issubdtype(found.dtype, np.floating):
        raise MediaError(
            f"{path}: 'intrinsics' must be floats [3, 3], found {found.dtype} {list(found.shape)}"
        )
    return found[:3, :3].astype(np.float64), path


def fit_intrinsics(
    intrinsics: Floats, size: tuple[int, int], file: Path, *, named: tuple[int, int] | None = None
) -> Floats:
    """Pinhole intrinsics [3, 3] in pixels of a picture of this size (width, height).

    They are taken to be of that size already, unless the file's name says of which they are
    (``intrinsics_640x480.txt``), or the caller does (`named`): then they are scaled.
    Raises MediaError: not a pinhole camera, another aspect, or a principal point outside the
    picture.
    """
    if match := _SIZE.search(file.stem):
        named = int(match[1]), int(match[2])
    found = np.array(intrinsics, dtype=np.float64)
    if named is not None:
        _check_aspect(file, named, size, "the depth is", "crop")
        found[:2] *= np.array(size)[:, None] / np.array(named)[:, None]
    if not np.isfinite(found).all() or not (
        found[0, 0] > 0 and found[1, 1] > 0 and np.allclose(found[2], (0, 0, 1))
    ):
        raise MediaError(
            f"{file}: not pinhole intrinsics: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"
        )
    (cx, cy), (width, height) = found[:2, 2], size
    if not (0 < cx < width and 0 < cy < height):
        raise MediaError(
            f"{file}: its principal point ({cx:g}, {cy:g}) is outside the depth of {width} x "
            f"{height} pixels: if it is for another size, say so in its name, as in "
            f"{file.stem.rstrip('0123456789x_')}_640x480{file.suffix}"
        )
    return found


def _is_intrinsic(path: Path) -> bool:
    return "intrinsic" in path.name.lower()


def _check_counts(layout: Layout) -> None:
    counts = {"colour pictures": layout.colour, "depth maps": layout.depth}
    if layout.poses:
        counts["poses"] = layout.poses
    if len({len(files) for files in counts.values()}) > 1:
        said = ", ".join(f"{len(files)} {name}" for name, files in counts.items())
        raise MediaError(f"{layout.folder}: holds {said}: every frame needs one of each")
    frames = [_frames(files) for files in counts.values()]
    if not all(frames):
        frames = [[file.stem for file in files] for files in counts.values()]
    # Where names are free (TUM's are moments) hardly any is that of another part's file.
    if len(set.intersection(*map(set, frames))) * 2 >= len(frames[0]):
        for row in zip(*frames, strict=True):
            if len(set(row)) > 1:
                raise MediaError(
                    f"{layout.folder}: its frames do not pair up by name: {' beside '.join(row)}; "
                    f"remove what has no counterpart"
                )


def _frames(files: Iterable[Path]) -> list[str]:
    """The names of the frames in the flat layout; nothing in the other, where names are free."""
    matches = [_FLAT.fullmatch(file.stem) for file in files]
    return [match["frame"] for match in matches if match]


def _read_poses(layout: Layout, limits: Limits) -> Floats | None:
    """Poses [n, 4, 4] of all frames, None where there are none. Lost frames may hold anything."""
    count = len(layout.colour)
    if layout.stacked_poses is not None:
        locate(layout.stacked_poses, limits)
        stacked = load_npy(layout.stacked_poses)
        if stacked.shape != (count, 4, 4) or not np.issubdtype(stacked.dtype, np.floating):
            raise MediaError(
                f"{layout.stacked_poses}: expected floats [{count}, 4, 4], a pose for each colour "
                f"picture, found {stacked.dtype} {list(stacked.shape)}: keep those of these "
                f"pictures"
            )
        return np.asarray(stacked, dtype=np.float64)
    if not layout.poses:
        return None
    poses = np.empty((count, 4, 4))
    for pose, file in zip(poses, layout.poses, strict=True):
        numbers = _numbers(file, limits)
        if numbers.size != 16:
            raise MediaError(f"{file}: a pose is 4 x 4 numbers, found {numbers.size}")
        pose[:] = numbers.reshape(4, 4)
    return poses


def _usable(layout: Layout, poses: Floats) -> Indices:
    """The frames whose pose is a rigid motion."""
    with np.errstate(invalid="ignore", over="ignore"):
        turn = poses[:, :3, :3]
        gram = turn @ turn.transpose(0, 2, 1)
        good = (
            np.isfinite(poses).all(axis=(1, 2))
            & (np.abs(gram - np.eye(3)) < _RIGID).all(axis=(1, 2))
            & (np.linalg.det(np.nan_to_num(turn, posinf=0, neginf=0)) > 0)
            & (np.abs(poses[:, 3] - (0, 0, 0, 1)) < _RIGID).all(axis=1)
        )
    lost = np.flatnonzero(~good)
    if len(lost) == len(poses):
        raise MediaError(
            f"{layout.folder}: none of its {len(poses)} poses is a rigid motion (finite, with a "
            f"rotation matrix): poses are 4 x 4, camera to world"
        )
    if len(lost):
        log.warning(
            "%s: %d of %d frames are left out: their poses are not rigid motions (the first: %s)",
            layout.folder,
            len(lost),
            len(poses),
            layout.colour[int(lost[0])].name,
        )
    return np.flatnonzero(good)


def _read_intrinsics(
    layout: Layout, depth: tuple[int, int], colour: tuple[int, ...], limits: Limits
) -> Floats | None:
    """Those of the depth; those of the colour, scaled, where there are no others."""
    files = layout.intrinsics
    for part in ("depth", "colo"):
        if len(files) > 1:
            files = tuple(f for f in files if part in f.name.lower()) or files
    if len(files) > 1:
        raise MediaError(
            f"{layout.folder}: holds several intrinsics ({', '.join(f.name for f in files)}): keep "
            f"one, or call the right one intrinsic_depth.txt"
        )
    if not files:
        return None
    of_colour = "colo" in files[0].name.lower()
    named = (colour[0], colour[1]) if of_colour else None
    return fit_intrinsics(_matrix(files[0], limits), depth, files[0], named=named)


def _matrix(file: Path, limits: Limits) -> Floats:
    values = _numbers(file, limits)
    if values.size not in (9, 16) or not np.isfinite(values).all():
        raise MediaError(
            f"{file}: expected a 3 x 3 or 4 x 4 matrix of finite numbers, found {values.size} "
            f"numbers, {int(np.isfinite(values).sum())} of them finite"
        )
    side = 3 if values.size == 9 else 4
    return values.reshape(side, side)[:3, :3].copy()


def _check_aspect(
    file: Path, one: tuple[int, ...], other: tuple[int, ...], what: str, remedy: str
) -> None:
    if abs(one[0] * other[1] / (one[1] * other[0]) - 1) > _ASPECT:
        raise MediaError(
            f"{file}: of {one[0]} x {one[1]} pixels, while {what} {other[0]} x {other[1]}: another "
            f"shape shows another view; {remedy} them to one"
        )


def _numbers(file: Path, limits: Limits) -> Floats:
    """All numbers of a text file; NaN for what trackers write instead of one ("-1.#IND")."""
    words = read_text(file, limits).replace(",", " ").split()
    try:
        return np.array([float("nan") if "#" in word else float(word) for word in words])
    except ValueError as error:
        raise MediaError(f"{file}: expected numbers alone ({error})") from None

"""A folder of clips as samples without questions: what ``crema extract FOLDER`` works on.

::

    walk.mp4             a clip: every video or sound file, in sub-folders too
    walk.thermal.npz     its thermal sense: <name of the clip>.<sense>.<extension>,
    walk.depth/          or a folder <name of the clip>.<sense>
    room/                a clip: an RGB-D folder

Hidden files are passed over. Symbolic links are followed inside the folder only: a link out of it
is refused, so that a folder from somewhere else gives nothing but what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from open_crema import modality
from open_crema.data.sample import Sample
from open_crema.errors import DataError, MediaError
from open_crema.media.rgbd import is_rgbd
from open_crema.media.source import CONTAINER_SUFFIXES, SOUND_SUFFIXES


@dataclass(frozen=True)
class MediaFolder:
    """samples: one a clip, named by its path in the folder. refused: path -> why it may not be
    used. ignored: paths in the folder that belong to no clip."""

    samples: tuple[Sample, ...]
    refused: dict[str, str]
    ignored: tuple[str, ...]


def scan(folder: str | Path, *, leave_out: Path | None = None) -> MediaFolder:
    """The clips of a folder. leave_out: a folder that is not looked into, the feature store.

    Raises DataError where there is none.
    """
    root = Path(folder)
    found = _Scan(root, root.resolve(), None if leave_out is None else leave_out.resolve())
    found.visit(root)
    if not found.samples and not found.refused:
        beside = f" ({len(found.ignored)} other files)" if found.ignored else ""
        raise DataError(
            f"{root}: holds no video or sound file and no RGB-D folder{beside}; give a folder of "
            "clips, or a data file that names them"
        )
    return MediaFolder(tuple(found.samples), found.refused, tuple(found.ignored))


@dataclass
class _Scan:
    root: Path
    resolved: Path
    leave_out: Path | None
    samples: list[Sample] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def visit(self, folder: Path) -> None:
        """Samples of one folder, then of those in it."""
        try:
            entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        except OSError as error:
            self.refused[str(folder)] = f"{folder}: cannot be listed ({error.strerror})"
            return
        if self.leave_out is not None:
            entries = [path for path in entries if path.resolve() != self.leave_out]
        parts = {path: part for path in entries if (part := _part_of(path)) is not None}
        clips = [path for path in entries if path not in parts and self._is_clip(path)]
        # Of a video and a sound of one name, what lies beside belongs to the video.
        owners = {_stem(p): p for p in sorted(clips, key=_is_sound, reverse=True)}
        owned = {path: part for path, part in parts.items() if part[0] in owners}
        clips = sorted({*clips, *(p for p in parts if p not in owned and self._is_clip(p))})
        media = {clip: {"audio" if _is_sound(clip) else "video": str(clip)} for clip in clips}
        for path, (stem, sense) in owned.items():
            own = media[owners[stem]]
            if sense in own:
                self.refused[own[sense]] = (
                    f"{own[sense]}: {path.name} is given for {sense} as well; keep one of them"
                )
            own.setdefault(sense, str(path))
        for clip in clips:
            name = clip.relative_to(self.root).as_posix()
            self.samples.append(Sample(id=name, question="", media=media[clip]))
        for path in (*clips, *owned):
            if (link := self._way_out(path)) is not None:
                self.refused[str(path)] = (
                    f"{link}: a symbolic link out of {self.root}; put a copy in its place, or name "
                    "the file in a data file"
                )
        for path in entries:
            if path not in owned and path not in clips:
                self._pass(path)

    def _pass(self, path: Path) -> None:
        """What is no clip: a folder that may hold some, or something else."""
        if not _is_folder(path):
            self.ignored.append(path.relative_to(self.root).as_posix())
        elif not path.is_symlink():
            self.visit(path)
        elif self._leads_out(path):
            self.refused[str(path)] = (
                f"{path}: a symbolic link out of {self.root}; give that folder, or put a copy in "
                "its place"
            )
        # A link to a folder inside: what it holds is found where it is.

    def _is_clip(self, path: Path) -> bool:
        if not _is_folder(path):
            return path.suffix.lower() in CONTAINER_SUFFIXES
        if path.is_symlink():
            return False
        try:
            return is_rgbd(path)
        except MediaError:  # it is visited next, which says so
            return False

    def _way_out(self, path: Path) -> Path | None:
        """The symbolic link by which a file, or something in a folder, is outside."""
        return next((p for p in _with_content(path) if p.is_symlink() and self._leads_out(p)), None)

    def _leads_out(self, link: Path) -> bool:
        try:
            return not link.resolve().is_relative_to(self.resolved)
        except (OSError, RuntimeError):  # links in a circle
            return True


def _with_content(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder, name) for name in sorted((*folders, *files)))


def _part_of(path: Path) -> tuple[str, str] | None:
    """The clip's name and the sense of ``<name>.<sense>.<extension>`` or ``<name>.<sense>/``."""
    name = path.name if _is_folder(path) else path.stem
    stem, _, sense = name.rpartition(".")
    return (stem, sense) if stem and sense in modality.names() else None


def _stem(clip: Path) -> str:
    return clip.name if _is_folder(clip) else clip.stem


def _is_sound(clip: Path) -> bool:
    return clip.suffix.lower() in SOUND_SUFFIXES and not _is_folder(clip)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False

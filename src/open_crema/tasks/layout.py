"""Where the media of a benchmark are: one layout for all tasks.

::

    MEDIA/video/NAME.mp4       a clip's video; also in MEDIA/videos/ or in MEDIA itself
    MEDIA/audio/NAME.wav       any other sense's own file, or a folder of pictures, in the folder
    MEDIA/flow/NAME/           that is called as the sense is (or with an "s")
    MEDIA/rgbd/NAME/           an RGB-D scene: video, depth, normals and points in one
    MEDIA/scans/NAME/          a scan of ScanNet's: its points are NAME_vh_clean_2.ply

NAME is what the benchmark calls the clip, without extension; any kind of file that the sense's
reader takes will do. A sense without a folder is made from the video where an expert can.
"""

from __future__ import annotations

import os
from pathlib import Path

from open_crema import modality
from open_crema.errors import DataError
from open_crema.media.cloud import CLOUD_SUFFIXES
from open_crema.media.source import CONTAINER_SUFFIXES, KNOWN_SUFFIXES, VIDEO_SUFFIXES

RGBD = "rgbd"
_SCANS = "scans", "_vh_clean_2"
_SUFFIXES = {
    "video": VIDEO_SUFFIXES,
    "audio": CONTAINER_SUFFIXES | {".npz", ".safetensors"},
    "point": KNOWN_SUFFIXES.union(CLOUD_SUFFIXES),
}


class MediaIndex:
    """The media below a folder. Each of its folders is listed once.

    Raises DataError where the folder cannot be listed.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._listed: dict[Path, dict[str, list[str]]] = {}
        try:
            there = {entry.name for entry in os.scandir(self.root) if entry.is_dir()}
        except OSError as error:
            raise DataError(f"{self.root}: no folder of media ({error.strerror})") from None
        self._folders = {
            sense: [name for name in (sense, f"{sense}s") if name in there]
            for sense in modality.names()
        }
        if RGBD in there:
            self._folders["video"].append(RGBD)
        self._folders["video"].append("")  # the folder itself
        self._scans = _SCANS[0] in there
        # What a sense's reader takes is its own affair where others have added the sense.
        self._built_in = {m.name for m in modality.BUILT_INS}

    @property
    def senses(self) -> list[str]:
        """Those that have a folder of their own, and the video."""
        scanned = ["point"] if self._scans else []
        return [sense for sense, own in self._folders.items() if own or sense in scanned]

    def find(self, sense: str, names: tuple[str, ...]) -> Path | None:
        """A sense's file or folder of the clip that goes by one of these names."""
        for folder in self._folders[sense]:
            for name in names:
                path = self._named(self.root / folder / name, sense)
                if path is not None:
                    return path
        if sense == "point" and self._scans:
            found = (self._named(self._scan(name), sense) for name in names)
            return next(filter(None, found), None)
        return None

    def _scan(self, name: str) -> Path:
        folder, ending = _SCANS
        return self.root / folder / name / f"{name}{ending}"

    def expected(self, sense: str, name: str) -> Path:
        """Where a file would be looked for, for messages and for what is missing."""
        folders = self._folders[sense]
        if sense == "point" and self._scans and not folders:
            return self._scan(name).with_suffix(".ply")
        ending = ".mp4" if sense == "video" else ""
        return self.root / (folders[0] if folders else sense) / f"{name}{ending}"

    def beside(self, sense: str, names: tuple[str, ...]) -> list[Path]:
        """Files of these names that no reader takes."""
        places = [self.root / folder / name for folder in self._folders[sense] for name in names]
        return [
            place.parent / found
            for place in places
            for found in self._list(place.parent).get(place.name, [])
            if not self._taken(place.parent / found, sense)
        ]

    def _named(self, path: Path, sense: str) -> Path | None:
        found = [path.parent / name for name in self._list(path.parent).get(path.name, [])]
        usable = [file for file in found if self._taken(file, sense)]
        if path.parent == self.root:  # beside folders of senses: only a file can be the video
            usable = [file for file in usable if file.is_file()]
        return min(usable, key=lambda file: (file.is_dir(), file.name), default=None)

    def _taken(self, file: Path, sense: str) -> bool:
        if sense not in self._built_in or file.is_dir():
            return True
        return file.suffix.lower() in _SUFFIXES.get(sense, KNOWN_SUFFIXES)

    def _list(self, folder: Path) -> dict[str, list[str]]:
        """What is in a folder by its name with and without extension."""
        if folder not in self._listed:
            found: dict[str, list[str]] = {}
            try:
                names = sorted(entry.name for entry in os.scandir(folder))
            except OSError:
                names = []
            for name in names:
                found.setdefault(name, []).append(name)
                if (stem := name.rpartition(".")[0]) and stem != name:
                    found.setdefault(stem, []).append(name)
            self._listed[folder] = found
        return self._listed[folder]

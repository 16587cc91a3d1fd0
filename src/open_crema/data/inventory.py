"""What a feature store holds, and whether all of it can still be read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from open_crema import progress
from open_crema.data.entry import (
    About,
    DamagedError,
    EarlierVersionError,
    Label,
    decode,
    read_label,
)
from open_crema.data.shards import Packed, read_shard
from open_crema.data.store import FeatureStore
from open_crema.errors import CremaError


@dataclass(frozen=True)
class Copy:
    """One copy of an entry. size: bytes. label: None where the fault says that there is none.

    inode: of a loose one's file, by which a copy written later is told from it.
    """

    key: str
    place: Path | Packed
    size: int
    inode: int
    label: Label | None
    fault: DamagedError | EarlierVersionError | OSError | None = None

    @property
    def file(self) -> Path:
        return self.place.shard if isinstance(self.place, Packed) else self.place

    @property
    def is_earlier(self) -> bool:
        return isinstance(self.fault, EarlierVersionError)

    def read(self) -> bytes:
        """Raises DamagedError, OSError."""
        return self.place.read() if isinstance(self.place, Packed) else self.place.read_bytes()


@dataclass(frozen=True)
class Contents:
    """All copies, packed ones first, and the shards of which nothing can be read."""

    copies: list[Copy]
    broken: dict[Path, DamagedError | OSError]


@dataclass(frozen=True)
class Damage:
    """Something damaged. key and about: None where that cannot be read either."""

    file: Path
    key: str | None
    about: About | None
    why: str

    def __str__(self) -> str:
        if self.key is None:
            return f"{self.file}: damaged ({self.why})"
        about = self.about or "what it is about cannot be read"
        return f"{self.file}: entry {self.key} is damaged ({self.why}): {about}"


@dataclass(frozen=True)
class Verified:
    """checked: entries read. entries: the damaged ones. shards: those not readable at all."""

    checked: int
    earlier: int
    entries: tuple[Damage, ...]
    shards: tuple[Damage, ...]

    @property
    def good(self) -> int:
        return self.checked - len(self.entries)


@dataclass
class Share:
    """What one sense or one encoder has in a store. absent: how many for each reason."""

    entries: int = 0
    bytes: int = 0
    absent: dict[str, int] = field(default_factory=dict)

    def add(self, copy: Copy, label: Label) -> None:
        self.entries += 1
        self.bytes += copy.size
        if label.absent is not None:
            self.absent[label.absent] = self.absent.get(label.absent, 0) + 1


@dataclass(frozen=True)
class Summary:
    """entries: by key; copies of one, damaged ones and those of an earlier version are apart.

    bytes: of all files of entries. absent entries are among the entries of their sense.
    """

    entries: int
    bytes: int
    loose: int
    shards: int
    senses: dict[str, Share]
    encoders: dict[str, Share]
    sources: int
    copies: int
    damaged: int
    earlier: int


def open_store(root: str | Path) -> FeatureStore:
    """The store in a folder. Raises CremaError where there is none."""
    root = Path(root)
    if not any((root / part).is_dir() for part in ("objects", "shards", "sources")):
        found = "is no feature store" if root.exists() else "no such folder"
        raise CremaError(f"{root}: {found}; name the folder that `data.store` names")
    return FeatureStore(root)


def contents(store: FeatureStore) -> Contents:
    """Reads all headers, and no features."""
    copies: list[Copy] = []
    broken: dict[Path, DamagedError | OSError] = {}
    for path in sorted(store.shards.folder.glob("*.safetensors")):
        try:
            for place, label in read_shard(path).items():
                copies.append(Copy(place.key, place, place.length, 0, label))
        except FileNotFoundError:
            continue  # replaced by another just now
        except (DamagedError, OSError) as error:
            broken[path] = error
    for key, path in sorted(store.loose()):
        size = inode = 0
        try:
            with path.open("rb") as file:
                about = os.fstat(file.fileno())
                size, inode = about.st_size, about.st_ino
                head = file.read(8)
                head += file.read(min(int.from_bytes(head, "little"), size))
            copies.append(Copy(key, path, size, inode, read_label(head)))
        except FileNotFoundError:
            continue
        except (DamagedError, EarlierVersionError, OSError) as error:
            copies.append(Copy(key, path, size, inode, None, error))
    return Contents(copies, broken)


def summary(store: FeatureStore) -> Summary:
    found = contents(store)
    senses: dict[str, Share] = {}
    encoders: dict[str, Share] = {}
    sources: set[str] = set()
    keys: set[str] = set()
    for copy in found.copies:
        if copy.label is None or copy.key in keys:
            continue
        keys.add(copy.key)
        about = copy.label.about
        senses.setdefault(about.sense, Share()).add(copy, copy.label)
        encoders.setdefault(about.encoder, Share()).add(copy, copy.label)
        sources.update(path for path, _ in about.sources)
    labelled = sum(copy.label is not None for copy in found.copies)
    earlier = sum(copy.is_earlier for copy in found.copies)
    files = {copy.file for copy in found.copies} | set(found.broken)
    return Summary(
        entries=len(keys),
        bytes=sum(file.stat().st_size for file in files if file.exists()),
        loose=sum(isinstance(copy.place, Path) for copy in found.copies),
        shards=len({copy.file for copy in found.copies if isinstance(copy.place, Packed)})
        + len(found.broken),
        senses=senses,
        encoders=encoders,
        sources=len(sources),
        copies=labelled - len(keys),
        damaged=len(found.copies) - labelled - earlier + len(found.broken),
        earlier=earlier,
    )


def verify(store: FeatureStore) -> Verified:
    """Reads every copy of every entry, with progress on stderr. Changes nothing."""
    broken: dict[Path, DamagedError | OSError] = {}
    damaged: list[Damage] = []
    seen: set[str] = set()  # what vanished while this ran stands elsewhere: look again
    checked = earlier = 0
    with progress.bar() as bar:
        task = bar.add_task("entries", total=0, note="")
        while True:
            found = contents(store)
            broken |= found.broken
            ahead = [copy for copy in found.copies if copy.key not in seen]
            if not ahead:
                break
            bar.update(task, total=checked + earlier + len(ahead))
            for copy in ahead:
                try:
                    damage = _check(copy)
                except FileNotFoundError:
                    continue
                seen.add(copy.key)
                bar.advance(task)
                if copy.is_earlier:
                    earlier += 1
                    continue
                checked += 1
                if damage is not None:
                    damaged.append(damage)
    shards = (Damage(path, None, None, str(error)) for path, error in sorted(broken.items()))
    return Verified(checked, earlier, tuple(damaged), tuple(shards))


def _check(copy: Copy) -> Damage | None:
    """Raises FileNotFoundError where the copy is not there any more."""
    if copy.is_earlier:
        return None
    try:
        decode(copy.key, copy.read())
        return None
    except FileNotFoundError:
        raise
    except (DamagedError, EarlierVersionError, OSError) as error:
        about = copy.label.about if copy.label is not None else None
        return Damage(copy.file, copy.key, about, str(error))

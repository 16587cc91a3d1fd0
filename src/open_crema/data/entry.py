"""One entry of the feature store: a result, what it is about, and a checksum over all of it.

An entry is the bytes of a small safetensors file, the same ones loose and inside a shard.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from open_crema.errors import CremaError, SenseAbsent
from open_crema.features import Features

_BLANK = "0" * 64


@dataclass(frozen=True)
class About:
    """What an entry is about: enough to name it, and to tell whether anything still reaches it.

    encoder: the encoder's fingerprint. recipe: the version of readers and experts. sources: path
    and content digest of each file or folder that the result was made from.
    """

    sense: str
    encoder: str
    recipe: int
    sources: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.sense} of {' and '.join(path for path, _ in self.sources)}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> About:
        sources = tuple((str(path), str(digest)) for path, digest in data["sources"])
        return cls(str(data["sense"]), str(data["encoder"]), int(data["recipe"]), sources)


class DamagedError(ValueError):
    """Bytes that are not the entry that was written."""


class EarlierVersionError(ValueError):
    """An entry of an earlier version, which said nothing of what it is about."""


@dataclass(frozen=True)
class Label:
    """What is said of an entry beside its tensors. absent: why there are none.

    checksum: sha256 of the key and every byte of the entry but these digits.
    """

    checksum: str
    about: About
    absent: str | None

    def to_text(self) -> str:
        """As JSON, always the same for the same label; the checksum comes first."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Label:
        content = json.loads(text)
        return cls(content["checksum"], About.from_dict(content["about"]), content["absent"])


def encode(key: str, result: Features | SenseAbsent, about: About) -> bytes:
    """The entry's bytes. Features are in the store's precision already."""
    if isinstance(result, SenseAbsent):
        tensors: dict[str, Tensor] = {}
        absent: str | None = result.reason
    else:
        tensors = {"tokens": result.tokens, "mask": result.mask, "times": result.times}
        absent = None
    data: bytes = save_tensors(tensors, {"label": Label(_BLANK, about, absent).to_text()})
    return data.replace(_BLANK.encode(), _checksum(key, data, _BLANK).encode(), 1)


def decode(key: str, data: bytes) -> tuple[Label, Features | SenseAbsent]:
    """What was encoded under that key. Raises DamagedError, EarlierVersionError."""
    label = read_label(data)
    try:
        if label.checksum != _checksum(key, data, label.checksum):
            raise DamagedError("its checksum does not match its content")
        if label.absent is not None:
            return label, SenseAbsent(label.about.sense, label.absent)
        tensors = load_tensors(data)
        return label, Features(tensors["tokens"], tensors["mask"], tensors["times"])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(str(error)) from None


def read_label(data: bytes) -> Label:
    """The label alone, not checked against the content; data may end after the header.

    Raises DamagedError, EarlierVersionError.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said = header["__metadata__"]
        if set(said) in ({"checksum"}, {"checksum", "sense", "absent"}):
            raise EarlierVersionError("an entry of an earlier version")
        return Label.from_text(said["label"])
    except EarlierVersionError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"its header cannot be read: {error}") from None


def _checksum(key: str, data: bytes, digits: str) -> str:
    """digits: the checksum that stands in the data, and is left out."""
    place = data.index(digits.encode())
    digest = hashlib.sha256(key.encode())
    digest.update(memoryview(data)[:place])
    digest.update(memoryview(data)[place + len(digits) :])
    return digest.hexdigest()


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Writes beside the target, then renames over it: atomic, also for concurrent writers.

    Raises CremaError where it cannot be written; nothing half-written is left then.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def unreadable(path: Path, error: OSError) -> CremaError:
    return CremaError(
        f"{path}: cannot be read from the feature store ({error}); repair it or choose another "
        "folder as data.store"
    )


def unwritable(path: Path, error: OSError) -> CremaError:
    return CremaError(
        f"{path}: the feature store cannot be written ({error}); free some space or choose another "
        "folder as data.store"
    )

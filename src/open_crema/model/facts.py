"""What an adapter's ``config.json`` says: all that is needed to judge whether it fits a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from open_crema import modality
from open_crema.config import from_dict, to_dict
from open_crema.config.schema import Count, Whole
from open_crema.errors import ConfigError, WeightsError
from open_crema.modality import Alignment
from open_crema.storage import read_json, write_json

FORMAT = 2
LARGEST = 2**20  # bytes of a config.json: a larger one is none
_FORBID = ConfigDict(extra="forbid")


@checked(frozen=True, config=_FORBID)
class ModalityFacts:
    """package: ``name==version`` of the third party's package that registers the sense."""

    label: str
    alignment: Alignment
    norm: bool
    package: str | None = None


@checked(frozen=True, config=_FORBID)
class EncoderFacts:
    """The frozen encoder whose features it was trained on. name, fingerprint: None where they were
    not the configured encoder's, but given as they are."""

    name: str | None
    width: Count
    fingerprint: str | None


@checked(frozen=True, config=_FORBID)
class Shape:
    """layers, width, queries, memory_width: of the Q-Former (memory_width is what it attends to);
    rank: of LoRA, 0 without; llm_width: of the LLM's embeddings. projected: whether
    ``model.input_projection`` names the sense."""

    layers: Count
    width: Count
    queries: Count
    memory_width: Count
    rank: Whole
    llm_width: Count
    projected: bool = False


@checked(frozen=True, config=_FORBID)
class FusionFacts:
    """block: whether a fusion block comes with it; a model's primary sense has none."""

    kind: str
    placement: str
    block: bool


@checked(frozen=True, config=_FORBID)
class Base:
    """Fingerprints of what all adapters of a model share. fusion: of its bias and whatever else of
    it is no sense's own, None without."""

    llm: str
    qformer: str
    fusion: str | None = None


@checked(frozen=True, config=_FORBID)
class RunFacts:
    scope: str
    seed: int


@checked(frozen=True, config=_FORBID)
class AdapterInfo:
    """fingerprint: of its tensors, fusion block included. fresh: no training has used it yet.
    trained_with: the other adapters that it was trained beside, with their fingerprints at that
    time. primary: which of them led; None where it led itself, or a VLM's own tokens. run: of the
    training, where it is known."""

    format: int
    open_crema: str
    sense: str
    fingerprint: str
    fresh: bool
    modality: ModalityFacts
    encoder: EncoderFacts
    shape: Shape
    fusion: FusionFacts
    base: Base
    trained_with: dict[str, str]
    primary: str | None
    run: RunFacts | None = None


def read_info(path: Path, hint: str) -> AdapterInfo:
    """Raises WeightsError, naming the file, for what is missing, no adapter's, of another format,
    or of a sense that is not known here."""
    data = read_small_json(path, hint)
    if "model" in data:
        raise WeightsError(
            f"{path.parent}: is a model, not an adapter; `crema adapter export` takes one out of it"
        )
    if data.get("format") != FORMAT or not isinstance(data.get("sense"), str):
        raise WeightsError(
            f"{path}: not an adapter of format {FORMAT} (format: {data.get('format')!r}); it is "
            "another program's, or another version of open-crema wrote it"
        )
    try:
        modality.get(data["sense"])
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}{_package_hint(data)}") from None
    try:
        info: AdapterInfo = from_dict(data, where=str(path), schema=AdapterInfo)
    except ConfigError as error:
        raise WeightsError(str(error)) from None
    return info


def _package_hint(data: Mapping[str, Any]) -> str:
    said = data.get("modality")
    package = said.get("package") if isinstance(said, Mapping) else None
    if isinstance(package, str) and package.isprintable() and len(package) < 100:
        return f"; its package is {package}: pip install {package.partition('==')[0]}"
    return "; install the package that registers it"


def write_info(path: Path, info: AdapterInfo) -> None:
    write_json(path, to_dict(info))


def read_small_json(path: Path, hint: str) -> dict[str, Any]:
    """Raises WeightsError for a file that is missing, no JSON object, or far too large for one."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # the reader below says what is wrong
    if size > LARGEST:
        raise WeightsError(f"{path}: {size} bytes are too many for a configuration")
    try:
        return read_json(path, hint)
    except RecursionError:
        raise WeightsError(f"{path}: cannot be read (nested too deep)") from None

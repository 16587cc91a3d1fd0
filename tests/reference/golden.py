"""Reading golden files, official or generated: a safetensors file and the json beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from reference.plain import Tensors


@dataclass(frozen=True)
class Golden:
    """One file pair: `tensors` by full key (`raw/rgb`), `record` as in the json."""

    record: dict[str, Any]
    tensors: Tensors

    def group(self, name: str) -> Tensors:
        """The tensors under `name/`, without that prefix."""
        start = f"{name}/"
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    def inputs(self, batch: int | None = None) -> Tensors:
        """Encoder outputs, and pc_feat and pc; in a trace those of mini-batch `batch`."""
        raw, given = ("raw", "in") if batch is None else (f"raw{batch}", f"batch{batch}")
        points = {k: v for k, v in self.group(given).items() if k in ("pc_feat", "pc")}
        return self.group(raw) | points


def read_golden(path: Path) -> Golden:
    """`path` of either file of a pair."""
    record = json.loads(path.with_suffix(".json").read_text())
    return Golden(record, load_file(path.with_suffix(".safetensors")))


def golden_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(forward cases, traces) of a folder, sorted; both empty where there is no such folder."""
    files = sorted(folder.glob("*.safetensors"))
    traces = [path for path in files if path.stem.startswith("trace_")]
    return [path for path in files if path not in traces], traces

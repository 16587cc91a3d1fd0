"""What one command gave back, and what the tests of the command line share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def refused(self, *parts: str, alone: bool = True) -> None:
        """It ended with one line of error that says all the parts, and with no traceback.

        alone: nothing else was said; a command that got to work has drawn its progress before.
        """
        lines = self.err.splitlines()
        errors = [i for i, line in enumerate(lines) if line.startswith("crema: error: ")]
        assert self.code == 2, self
        assert errors == [len(lines) - 1], self.err
        assert len(lines) == 1 or not alone, self.err
        assert "Traceback" not in self.err + self.out
        assert self.out == ""
        for part in parts:
            assert part in lines[-1], f"no {part!r} in: {lines[-1]}"


Crema = Callable[..., Ran]
QUESTION = {"video": "clip.mp4", "question": "What colour is it?", "answer": "red"}
SHAPE = {
    "senses": ["video", "audio"],
    "qformer": {"layers": 1, "width": 16, "heads": 2, "ffn": 16, "queries": 2, "encoder_width": 12},
    "lora": {"rank": 2},
}


def write_yaml(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, with its content."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}

"""lmms-eval, a harness by which others score models: ours as one of its models, our tasks as its
tasks. Written against lmms-eval 0.7 (docs/lmms-eval.md)."""

from __future__ import annotations

from typing import Any

NAME = "open_crema"  # of the model there: --model open_crema


def manifest() -> Any:
    """What the entry point ``lmms_eval.models`` tells the harness: the name, and the class."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(NAME, simple_class_path="open_crema.harness.lmms.OpenCrema")

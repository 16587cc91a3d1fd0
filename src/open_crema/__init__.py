"""Open CREMA: give a frozen video-language model new senses (arXiv 2402.05889).

The public API. Names are imported when first used, so that ``import open_crema`` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from open_crema.config import Config as Config
    from open_crema.data.sample import Batch as Batch
    from open_crema.data.sample import Sample as Sample
    from open_crema.data.sample import collate as collate
    from open_crema.errors import CremaError as CremaError
    from open_crema.features import Features as Features
    from open_crema.modality import Modality as Modality
    from open_crema.model.attach import attach as attach
    from open_crema.model.crema import Crema as Crema
    from open_crema.model.exchange import add_adapter as add_adapter
    from open_crema.model.exchange import export_adapter as export_adapter
    from open_crema.model.exchange import list_adapters as list_adapters
    from open_crema.model.exchange import remove_adapter as remove_adapter
    from open_crema.model.files import from_pretrained as from_pretrained
    from open_crema.model.files import save_pretrained as save_pretrained
    from open_crema.model.publish import push_to_hub as push_to_hub
    from open_crema.predictor import Predictor as Predictor
    from open_crema.training.early_exit import EarlyExit as EarlyExit
    from open_crema.training.strategy import joint as joint
    from open_crema.training.strategy import sequential as sequential

__version__ = "0.1.0"

_HOME = {
    "Batch": "data.sample",
    "Config": "config",
    "Crema": "model.crema",
    "CremaError": "errors",
    "EarlyExit": "training.early_exit",
    "Features": "features",
    "Modality": "modality",
    "Predictor": "predictor",
    "Sample": "data.sample",
    "add_adapter": "model.exchange",
    "attach": "model.attach",
    "collate": "data.sample",
    "export_adapter": "model.exchange",
    "from_pretrained": "model.files",
    "joint": "training.strategy",
    "list_adapters": "model.exchange",
    "push_to_hub": "model.publish",
    "remove_adapter": "model.exchange",
    "save_pretrained": "model.files",
    "sequential": "training.strategy",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'open_crema' has no attribute {name!r}")
    return getattr(import_module(f"open_crema.{_HOME[name]}"), name)

"""A saved model: a folder of safetensors and JSON, one sub-folder an adapter.

    config.json                        the model's configuration, its base and its senses
    run.yaml                           the configuration of the run that made it
    qformer.safetensors                the shared Q-Former
    fusion.safetensors                 the fusion's bias (where there is one)
    adapters/NAME/adapter.safetensors  one sense: queries, LoRA, projections, its fusion block
    adapters/NAME/config.json          its encoder's width and the base that it was trained on

Folders are written beside their place and renamed into it, so that a reader or a killed writer
never sees half a model. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from open_crema import __version__, backbones
from open_crema.backbones.base import Backbone
from open_crema.config import Config, ModelConfig, from_dict, load, to_dict, to_yaml
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.crema import Crema
from open_crema.storage import (
    read_json,
    read_tensors,
    recover,
    replacing,
    write_json,
    write_tensors,
)

FORMAT = 1
BLOCK = "fusion.block"  # the name of a sense's fusion block in its adapter file


def save_pretrained(model: Crema, folder: str | Path, *, run: Config | None = None) -> Path:
    """Writes the model (without its frozen LLM) to a folder, replacing what is there.

    run: the configuration that made it, kept as ``run.yaml``.
    """
    folder = Path(folder)
    check_replaceable(folder)
    base = {"llm": model.backbone.fingerprint, "qformer": fingerprint(model.qformer)}
    with replacing(folder) as new:
        write_json(
            new / "config.json",
            {
                "format": FORMAT,
                "open_crema": __version__,
                "model": to_dict(model.config),
                "base": base,
            },
        )
        if run is not None:
            (new / "run.yaml").write_text(to_yaml(run), encoding="utf-8")
        write_tensors(new / "qformer.safetensors", model.qformer.state_dict())
        if model.fusion.bias is not None:
            write_tensors(new / "fusion.safetensors", {"bias": model.fusion.bias})
        for sense in model.senses:
            adapter = model.adapter(sense)
            own = new / "adapters" / sense
            own.mkdir(parents=True)
            tensors = dict(adapter.state_dict())
            if sense in model.fusion.blocks:
                tensors[BLOCK] = model.fusion.blocks[sense]
            write_tensors(own / "adapter.safetensors", tensors)
            write_json(
                own / "config.json",
                {
                    "format": FORMAT,
                    "sense": sense,
                    "encoder_width": adapter.encoder_width,
                    "base": base,
                    "trained_with": model.senses,
                },
            )
    return folder


def from_pretrained(
    folder: str | Path,
    *,
    senses: Sequence[str] | None = None,
    backbone: Backbone | None = None,
    kind: type[Crema] = Crema,
) -> Crema:
    """Reads a saved model; senses: a subset of its adapters. The LLM comes from the weights cache
    unless a backbone is given. kind: the class of the result, which is in evaluation mode.

    Raises WeightsError, naming the file, for whatever is missing, foreign, or damaged.
    """
    folder = Path(folder)
    if not folder.exists():  # its last writer may have been killed between two renames
        recover(folder)
    info = read_json(folder / "config.json", "a saved model has one; is this a model folder?")
    config = _model_config(folder, info)
    if senses is not None:
        lacking = [s for s in senses if s not in config.senses]
        if lacking:
            raise WeightsError(
                f"{folder}: has no adapter for {', '.join(lacking)}; "
                f"it has {', '.join(config.senses)}"
            )
        config = replace(config, senses=tuple(s for s in config.senses if s in senses))
    adapters = {s: _read_adapter(folder / "adapters" / s, s, info["base"]) for s in config.senses}
    backbone = backbone or backbones.load(config.llm, dropout=config.llm_dropout)
    if backbone.fingerprint != info["base"]["llm"]:
        raise WeightsError(
            f"{folder}: trained on the LLM {info['base']['llm']}, "
            f"not on {backbone.fingerprint}; load it with the one it was trained on"
        )
    model = kind(config, backbone, {s: a.encoder_width for s, a in adapters.items()})
    _fill(model.qformer, read_tensors(folder / "qformer.safetensors"), folder)
    if fingerprint(model.qformer) != info["base"]["qformer"]:
        raise WeightsError(
            f"{folder / 'qformer.safetensors'}: not the Q-Former that the adapters were trained on"
        )
    for sense, saved in adapters.items():
        where = folder / "adapters" / sense
        tensors = dict(saved.tensors)
        block = tensors.pop(BLOCK, None)
        _fill(model.adapters[sense], tensors, where)
        if sense in model.fusion.blocks:
            if block is None:
                raise WeightsError(f"{where / 'adapter.safetensors'}: no tensor {BLOCK!r}")
            _fill(model.fusion.blocks, {sense: block}, where, partial=True)
    if model.fusion.bias is not None:
        bias = read_tensors(folder / "fusion.safetensors")
        if set(bias) != {"bias"}:
            raise WeightsError(f"{folder / 'fusion.safetensors'}: must hold one tensor, 'bias'")
        _fill(model.fusion, bias, folder, partial=True)
    return model.eval()


def load_qformer(model: Crema, folder: str | Path) -> None:
    """Gives a model the Q-Former of a saved one, of the same shape."""
    _fill(model.qformer, read_tensors(Path(folder) / "qformer.safetensors"), Path(folder))


def check_replaceable(folder: Path) -> None:
    """Raises WeightsError where a model must not be written: over somebody's other files."""
    if folder.exists() and not _replaceable(folder):
        raise WeightsError(f"{folder}: holds other things than a model; choose another folder")


def _replaceable(folder: Path) -> bool:
    """Nothing, or a model of ours; never somebody's other files."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        return read_json(folder / "config.json", "").get("format") is not None
    except WeightsError:
        return False


def run_of(folder: str | Path) -> Config:
    """The configuration that a saved model was made with; defaults where it was not kept."""
    kept = Path(folder) / "run.yaml"
    if kept.exists():
        return load(kept)
    info = read_json(Path(folder) / "config.json", "a saved model has one; is this a model folder?")
    return Config(model=_model_config(Path(folder), info))


def fingerprint(module: nn.Module) -> str:
    """What a module's weights are, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _model_config(folder: Path, info: Mapping[str, Any]) -> ModelConfig:
    place = folder / "config.json"
    base = info.get("base")
    if info.get("format") != FORMAT or not isinstance(info.get("model"), dict):
        raise WeightsError(
            f"{place}: not an Open CREMA model of format {FORMAT} (format: {info.get('format')!r})"
        )
    if not isinstance(base, dict) or set(base) != {"llm", "qformer"}:
        raise WeightsError(f"{place}: does not say what base (llm, qformer) the model has")
    try:
        config: ModelConfig = from_dict(info["model"], where=str(place), schema=ModelConfig)
    except ConfigError as error:
        made = f"{place}: written by open-crema {info.get('open_crema')}"
        raise WeightsError(f"{made}, does not fit this version: {error}") from None
    return config


@dataclass(frozen=True)
class _SavedAdapter:
    encoder_width: int
    tensors: dict[str, Tensor]


def _read_adapter(folder: Path, sense: str, base: Mapping[str, str]) -> _SavedAdapter:
    place = folder / "config.json"
    info = read_json(place, "the model lists this sense, its adapter is missing")
    width = info.get("encoder_width")
    if info.get("format") != FORMAT or info.get("sense") != sense or not isinstance(width, int):
        raise WeightsError(f"{place}: not an adapter for {sense!r} of format {FORMAT}")
    if info.get("base") != base:
        raise WeightsError(
            f"{folder}: this adapter was trained on another base (llm, qformer) "
            f"{info.get('base')}, the model's is {dict(base)}; retrain it on this base"
        )
    tensors = read_tensors(folder / "adapter.safetensors")
    return _SavedAdapter(width, tensors)


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], where: Path, *, partial: bool = False
) -> None:
    """Loads tensors; with partial, others of the module may be left as they are."""
    own = module.state_dict()
    wrong = [f"unexpected {n}" for n in tensors if n not in own]
    wrong += [] if partial else [f"missing {n}" for n in own if n not in tensors]
    wrong += [
        f"{n} is {tuple(t.shape)}, expected {tuple(own[n].shape)}"
        for n, t in tensors.items()
        if n in own and t.shape != own[n].shape
    ]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise WeightsError(f"{where}: tensors do not fit the configuration: {shown}")
    module.load_state_dict(tensors, strict=False)

"""Checkpoints of the released code: ``convert official`` and ``convert to-official``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from open_crema import backbones
from open_crema.backbones.base import Backbone
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import Config, ModelConfig
from open_crema.convert import frozen, keys, sizes
from open_crema.convert.keys import Modality
from open_crema.convert.source import State, of_tensors, read_pth
from open_crema.errors import ConfigError, WeightsError
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, read_model, save_pretrained
from open_crema.storage import flush, read_json, unwritable, write_json

RECORD = "official.json"  # what the checkpoint was like, beside the converted model
_FUSION = "fusion.0"
_LLMS = {2048: "flan-t5-xl", 4096: "flan-t5-xxl"}


@dataclass(frozen=True)
class Report:
    """What a conversion did, by the checkpoint's names. converted: tensors that the model has, or
    stand beside it. dropped: dead ones. missing, unexpected: those that were allowed; a missing
    one is as a new model's."""

    folder: Path
    converted: int
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What a checkpoint's tensors do not say. heads, vision_heads: of the Q-Former and the ViT,
    None for BERT's and ViT-g's width of a head. placement: of the fused tokens ("add" for a task
    with ``espresso`` but not ``concat``). llm: the folder of the frozen LLM, for a checkpoint that
    holds none. tokenizer: the folder of its tokenizer, for one that does. allow: patterns of keys
    that may be missing, unexpected or of another shape."""

    heads: int | None = None
    vision_heads: int | None = None
    placement: str = "append"
    llm: str | None = None
    tokenizer: Path | None = None
    allow: Sequence[str] = field(default_factory=tuple)

    def allows(self, key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in self.allow)


def from_official(
    path: str | Path,
    out: str | Path,
    order: Sequence[str],
    *,
    base: str | Path | None = None,
    layout: Layout | None = None,
) -> Report:
    """Writes a released checkpoint as a model folder of ours.

    order: its modalities (rgb, flow, depth, norm, audio, pc; ``rgb-skip``: without LoRA) in the
    order in which they were trained: the fusion layer's columns follow it. base: another
    checkpoint, or a model folder of ours, that gives what this one lacks, as the released training
    saves trained tensors only.

    Raises WeightsError that lists every key that is missing, unexpected or of another shape, and
    ConfigError for an order that cannot be.
    """
    path = Path(path)
    listed = keys.modalities(order)
    state = read_pth(path)
    if base is not None:
        base = Path(base)
        given = official_state(base)[0] if base.is_dir() else read_pth(base)
        state = {**given, **state}
    return build(state, Path(out), listed, path, layout or Layout())


def build(
    state: State,
    out: Path,
    order: Sequence[Modality],
    where: object,
    layout: Layout,
    *,
    fresh: Sequence[str] = (),
    released: bool = True,
) -> Report:
    """A model folder from tensors by the released code's names. fresh: senses whose adapters are
    there and have not been trained. released: with the released code's layout of prompts."""
    dead = tuple(sorted(key for key in state if keys.is_dead(key, order)))
    live = {key: entry for key, entry in state.items() if key not in dead}
    wrong, foreign = frozen.faults(live, layout.vision_heads)
    wrong += [f"unexpected {key}" for key in foreign if not layout.allows(key)]
    live = {key: entry for key, entry in live.items() if key not in foreign}
    own = {key: entry for key, entry in live.items() if not key.startswith(keys.FROZEN)}
    check_unused(out)
    # Everything is checked before anything is written.
    width = sizes.llm_width(own, order, where)
    encoders = _encoders({} if wrong else live, out, layout)
    config = sizes.model_config(
        own,
        order,
        where,
        encoders=encoders,
        heads=layout.heads,
        placement=layout.placement,
        released=released,
    )
    has_llm = any(key.startswith(frozen.T5) for key in live)
    llm = str((out / frozen.LLM).resolve()) if has_llm else layout.llm or _named(width)
    config = replace(config, llm=llm)
    torch.manual_seed(0)  # of what may be missing
    memory = config.qformer.encoder_width
    model = Crema(config, stand_in(width), sizes.encoder_widths(own, order, memory))
    missing, unexpected = _fill(model, own, order, where, layout, wrong)
    unexpected = (*unexpected, *foreign)
    vision = frozen.eva_to_transformers(frozen.without(live, frozen.VIT))
    for sense in model.senses:
        model.adapter(sense).fresh.fill_(sense in fresh)
    record = {
        "order": [one.name + (keys.SKIP if one.skip else "") for one in order],
        "dtypes": {k: str(t) for k in own if (t := own[k].load().dtype) != torch.float32},
        "frozen": sorted(k for k in live if k.startswith(keys.FROZEN)),
        "dropped": list(dead),
    }
    try:
        # First what the model names and is described by.
        _write_frozen(live, vision, out, layout)
        if has_llm or layout.llm:
            model.backbone.fingerprint = backbones.fingerprint_of(Path(llm))
        for file in save_pretrained(model, out / ".model", run=Config(model=config)).iterdir():
            file.rename(out / file.name)
        (out / ".model").rmdir()
        write_json(out / RECORD, record)
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)  # it was not there, or empty
        if isinstance(error, OSError):
            raise unwritable(out, error) from None
        raise
    converted = len(live) - len(unexpected) + len(foreign)
    return Report(out, converted, dead, missing, unexpected)


def check_unused(out: Path) -> None:
    """Raises ConfigError where something is at a place that is to be written."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists already; choose another folder")


def to_official(model: str | Path, out: str | Path) -> Report:
    """Writes a model folder as a checkpoint of the released code, ``{"model": state dict}``.

    What stands beside a converted model (LLM, encoders) goes in again; dead tensors do not. Raises
    ConfigError for a model that the released code cannot be, and WeightsError for a damaged one.
    """
    model, out = Path(model), Path(out)
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder; name a file, as in model.pth")
    state, dropped = official_state(model)
    tensors = {key: entry.load().contiguous() for key, entry in state.items()}
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": tensors}, part)
        flush(part)
        part.replace(out)
    except OSError as error:
        raise unwritable(out, error) from None
    except RuntimeError as error:  # torch's writer tells what became of the disk, and no number
        raise WeightsError(f"{out}: cannot be written, is the disk full? ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    return Report(out, len(tensors), dropped)


def official_state(folder: Path) -> tuple[State, tuple[str, ...]]:
    """A model folder's tensors by the released code's names, and the names of what its checkpoint
    had besides and no model uses."""
    said = read_model(folder)
    record: dict[str, Any] = {}
    if (folder / RECORD).exists():
        record = read_json(folder / RECORD, "`crema convert official` writes it")
    if said.config.qformer.own == "each":
        raise ConfigError(
            f"{folder}: has a Q-Former a sense (model.qformer.own=each); the released code's "
            "senses share one"
        )
    model = from_pretrained(folder, backbone=stand_in_of(folder, said.base.llm))
    listed = record.get("order") or _order(model.config)
    order = keys.modalities(listed)
    given = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {}
    for ours, theirs in keys.names(model, order).items():
        tensor = given[ours].detach()
        tensors[theirs] = tensor[None] if ours.endswith(".queries") else tensor
    tensors |= _fused(model, order)
    dtypes: Mapping[str, str] = record.get("dtypes", {})
    for key, dtype in dtypes.items():
        if key in tensors:
            tensors[key] = tensors[key].to(getattr(torch, dtype.removeprefix("torch.")))
    state = of_tensors(tensors) | frozen.read(folder, record.get("frozen", []))
    return state, tuple(record.get("dropped", ()))


class _NoText:
    """Stands in for a tokenizer where no text is read."""

    pad_token_id: int | None = 0
    eos_token_id: int = 1

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return []

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        return ""


def stand_in(width: int, fingerprint: str = "") -> Backbone:
    """An LLM of which nothing but its width is real: a conversion reads no text."""
    config = T5Config(
        vocab_size=2, d_model=width, d_kv=1, d_ff=1, num_layers=1, num_heads=1, num_decoder_layers=1
    )
    with torch.device("meta"):
        return EncoderDecoder(T5ForConditionalGeneration(config), _NoText(), fingerprint)


def stand_in_of(folder: Path, fingerprint: str) -> Backbone:
    said = read_model(folder)
    return stand_in(next(iter(said.adapters.values())).shape.llm_width, fingerprint)


def _order(config: ModelConfig) -> list[str]:
    official = {ours: theirs for theirs, ours in keys.SENSES.items()}
    if others := [s for s in config.senses if s not in official]:
        raise ConfigError(
            f"the released code has no modality for {', '.join(others)}; `crema adapter remove` "
            "them from a copy of the model first"
        )
    listed = sorted(config.senses, key=lambda s: s != "video")  # it names rgb first
    return [official[s] + (keys.SKIP if s in config.lora.skip else "") for s in listed]


def _fused(model: Crema, order: Sequence[Modality]) -> dict[str, Tensor]:
    """The fusion layer: its columns are the assistants' blocks, in their order."""
    kind = model.config.fusion.kind
    if kind == "concat" or len(order) == 1:
        return {}
    if kind != "self-gated":
        raise ConfigError(f"the released code has no fusion of the kind {kind!r}")
    blocks = [model.fusion.blocks[one.sense].detach() for one in order if one.name != "rgb"]
    bias = model.fusion.shared["bias"].detach()
    return {f"{_FUSION}.weight": torch.cat(blocks, dim=1), f"{_FUSION}.bias": bias}


def _fill(
    model: Crema,
    state: State,
    order: Sequence[Modality],
    where: object,
    layout: Layout,
    frozen_wrong: Sequence[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Loads the tensors; returns the keys that are missing and unexpected, and allowed to be.

    Raises WeightsError that lists all that are not, with what is wrong of the frozen parts.
    """
    parameters = dict(model.named_parameters())
    table = keys.names(model, order)
    assistants = [one for one in order if one.name != "rgb"]
    expected = {theirs: tuple(parameters[ours].shape) for ours, theirs in table.items()}
    for one in order:
        name = f"query_tokens_{one.name}"
        expected[name] = (1, *expected[name])
    width = model.backbone.width
    if model.fusion.merges:
        expected[f"{_FUSION}.weight"] = (width, width * len(assistants))
        expected[f"{_FUSION}.bias"] = (width,)
    absent = sorted(key for key in expected if key not in state)
    others = sorted(key for key in state if key not in expected)
    odd = sorted(k for k, e in state.items() if k in expected and e.shape != expected[k])
    wrong = [f"missing {key}" for key in absent if not layout.allows(key)]
    wrong += [f"unexpected {key}" for key in others if not layout.allows(key)]
    wrong += [
        f"{key} is {list(state[key].shape)}, expected {list(expected[key])}"
        for key in odd
        if not layout.allows(key)
    ]
    wrong += frozen_wrong
    if wrong:
        raise WeightsError(
            f"{where}: {len(wrong)} keys do not fit the modalities "
            f"{', '.join(one.name for one in order)}: {'; '.join(wrong)}. Check --order; give what "
            "is missing by --base FILE, or allow keys by name with --allow"
        )
    usable = {key for key in expected if key in state and key not in odd}
    with torch.no_grad():
        for ours, theirs in table.items():
            if theirs in usable:
                parameters[ours].copy_(state[theirs].load().reshape(parameters[ours].shape))
        if f"{_FUSION}.weight" in usable:
            columns = state[f"{_FUSION}.weight"].load().chunk(len(assistants), dim=1)
            for one, block in zip(assistants, columns, strict=True):
                model.fusion.blocks[one.sense].copy_(block)
        if f"{_FUSION}.bias" in usable:
            model.fusion.set_shared({"bias": state[f"{_FUSION}.bias"].load().float()})
    return tuple(absent + odd), tuple(others)


def _encoders(live: State, out: Path, layout: Layout) -> dict[str, Any]:
    """model.encoders: the released code's values, and folders where the checkpoint has encoders."""
    found: dict[str, Any] = {
        "vision": "eva-vit-g",
        "audio": "beats-iter3",
        "point": "points-3dllm",
        "resolution": 224,
        "audio_window": 5.12,
        "audio_max_windows": 2,
        "audio_windows": "start",
        "max_points": 5000,
    }
    if any(key.startswith(frozen.SOUND) for key in live):
        found["audio"] = str((out / frozen.BEATS).resolve())
    if f"{frozen.VIT}pos_embed" in live:
        state = frozen.eva_to_transformers(frozen.without(live, frozen.VIT))
        found["vision"] = str((out / frozen.EVA).resolve())
        found["resolution"] = sizes.vision_config(state, layout.vision_heads)["image_size"]
    return found


def _write_frozen(live: State, vision: State, out: Path, layout: Layout) -> None:
    llm = frozen.without(live, frozen.T5)
    beats = frozen.without(live, frozen.SOUND)
    if llm:
        frozen.write_llm(llm, out / frozen.LLM, layout.tokenizer)
    if vision:
        frozen.write_vision(vision, out / frozen.EVA, layout.vision_heads)
    if beats:
        frozen.write_beats(beats, out / frozen.BEATS)


def _named(width: int) -> str:
    if width not in _LLMS:
        raise ConfigError(
            f"the checkpoint holds no LLM and is for one of width {width}: give its folder by --llm"
        )
    return _LLMS[width]

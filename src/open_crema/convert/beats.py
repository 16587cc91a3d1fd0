"""A lone BEATs as microsoft/unilm publishes it, ``{"cfg": ..., "model": ...}``, as a folder that
``model.encoders.audio`` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from open_crema.convert import frozen
from open_crema.convert.official import Layout, Report, check_unused
from open_crema.convert.source import Entry, State, load_pth, state_of
from open_crema.encoders.beats import MAX_DISTANCE, PATCH
from open_crema.errors import WeightsError
from open_crema.storage import replacing

# The published class's own values, for what a checkpoint's configuration does not say.
_SIZES = {
    "embed_dim": 512,  # of a patch
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
}
_UNSAID: dict[str, Any] = {
    "input_patch_size": -1,
    "conv_bias": False,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": False,
    "relative_position_embedding": False,
    "max_distance": 1280,
    "gru_rel_pos": False,
}
# What our encoder computes; most of it leaves no trace in the tensors.
_COMPUTED = _UNSAID | {
    "input_patch_size": PATCH,
    "deep_norm": True,
    "relative_position_embedding": True,
    "max_distance": MAX_DISTANCE,
    "gru_rel_pos": True,
}
_HEAD = "predictor."  # of the fine-tuned ones: classes of AudioSet, behind the features


def from_beats(path: str | Path, out: str | Path, *, allow: Sequence[str] = ()) -> Report:
    """Writes a BEATs (iter3+; of any size) as a folder of our encoder.

    The tensors are compared, one by one, with those that the checkpoint's own configuration asks
    for. A classifier behind the features (``predictor.*``, of a fine-tuned BEATs) is dropped.
    allow: patterns of keys that may be unexpected, and are then left out; none may be missing or
    of another shape, as a frozen model is whole or no model.

    Raises WeightsError that lists whatever does not fit, or says why the file cannot be read or
    the folder not be written, and ConfigError where the folder exists.
    """
    path, out = Path(path), Path(out)
    loaded = load_pth(path)
    cfg = loaded.get("cfg") if isinstance(loaded, Mapping) else None
    if not isinstance(cfg, Mapping):
        raise WeightsError(
            f"{path}: no configuration under 'cfg': not a BEATs as microsoft/unilm publishes it; "
            "of a checkpoint of the released code `crema convert official` writes the BEATs too"
        )
    state = state_of(loaded, path)
    dropped = tuple(sorted(key for key in state if key.startswith(_HEAD)))
    state = {key: entry for key, entry in state.items() if key not in dropped}
    said, wrong = _configuration(cfg)
    foreign: list[str] = []
    expected = None if said is None else frozen.beats_shapes(_tensors(said), wrong, "")
    if expected is not None:
        unfit, foreign = frozen.compared(state, expected)
        wrong += unfit
    layout = Layout(allow=tuple(allow))
    wrong += [f"unexpected {key}" for key in foreign if not layout.allows(key)]
    if wrong:
        raise WeightsError(
            f"{path}: does not fit a BEATs iter3+ in {len(wrong)} places: {'; '.join(wrong)}. "
            "Unexpected keys can be allowed by name with --allow"
        )
    check_unused(out)
    own = {key: entry for key, entry in state.items() if key not in foreign}
    with replacing(out.resolve()) as new:
        frozen.write_beats(own, new, said)
    return Report(out, len(own), dropped, unexpected=tuple(foreign))


def _configuration(cfg: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """What shapes the features, and what of it our encoder does not do, in words. None for sizes
    that are none."""
    said = {name: cfg.get(name, unsaid) for name, unsaid in (_SIZES | _UNSAID).items()}
    odd = [name for name in _SIZES if type(said[name]) is not int or said[name] < 1]
    wrong = [f"cfg.{name} is {said[name]!r}, expected a number from 1" for name in odd]
    wrong += [
        f"cfg.{name} is {said[name]!r}, expected {needed!r}"
        for name, needed in _COMPUTED.items()
        if said[name] != needed
    ]
    if odd:
        return None, wrong
    wrong += [
        f"cfg.encoder_embed_dim is {said['encoder_embed_dim']}, no multiple of cfg.{part}, "
        f"{said[part]}"
        for part in ("encoder_attention_heads", "conv_pos_groups")
        if said["encoder_embed_dim"] % said[part]
    ]
    return said, wrong


def _tensors(said: Mapping[str, Any]) -> State:
    """Those that tell an encoder of these sizes, without numbers in them."""
    width, layers = said["encoder_embed_dim"], range(said["encoder_layers"])
    shapes: frozen.Shapes = {
        "patch_embedding.weight": (said["embed_dim"], 1, PATCH, PATCH),
        "encoder.pos_conv.0.weight_v": (
            width,
            width // said["conv_pos_groups"],
            said["conv_pos"],
        ),
        "encoder.layer_norm.weight": (width,),
        "encoder.layers.0.fc1.bias": (said["encoder_ffn_embed_dim"],),
        "encoder.layers.0.self_attn.relative_attention_bias.weight": (
            said["num_buckets"],
            said["encoder_attention_heads"],
        ),
    }
    shapes |= {f"encoder.layers.{i}.fc1.weight": () for i in layers}
    if said["embed_dim"] != width:
        shapes["post_extract_proj.weight"] = (width, said["embed_dim"])
    return {name: Entry(shape, partial(torch.empty, shape)) for name, shape in shapes.items()}

"""Stock BLIP-2 as a start: its Q-Former, queries and projection, copied for every sense.

It is what the paper begins with (REFERENCE: "crema_initial"): each sense's query tokens, its
projection to the LLM and, for pictures, its norm are the image's; LoRA starts at nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from open_crema.convert import frozen, keys
from open_crema.convert.official import Layout, Report, build
from open_crema.convert.source import Entry, State, read_folder, read_pth
from open_crema.errors import ConfigError, WeightsError

_TRANSFORMERS = (  # transformers -> the released code's names, with one modality rgb
    (r"query_tokens", "query_tokens_rgb"),
    (r"language_projection\.(.+)", r"t5_proj_rgb.\1"),
    (r"vision_model\.post_layernorm\.(.+)", r"ln_rgb.\1"),
    (r"language_model\.(.+)", r"t5_model.\1"),
    (r"qformer\.layernorm\.(.+)", r"Qformer.bert.embeddings.LayerNorm.\1"),
    (r"qformer\.encoder\.(layer\.\d+\.(?:cross)?attention)\.attention\.(.+)", r"\1.self.\2"),
    (r"qformer\.encoder\.(layer\.\d+\..+)", r"\1"),
)
_LAVIS = (
    (r"query_tokens", "query_tokens_rgb"),
    (r"t5_proj\.(.+)", r"t5_proj_rgb.\1"),
    (r"ln_vision\.(.+)", r"ln_rgb.\1"),
    (r"Qformer\.bert\.encoder\.(layer\..+)", r"\1"),
)
_WRAPPED = re.compile(r"(layer\.\d+\.attention\.self\.(?:query|value))\.(weight|bias)")
_VISION = "vision_model."
AUDIO = 768  # width of BEATs' features


def from_blip2(
    source: str | Path,
    out: str | Path,
    *,
    senses: Sequence[str] = ("video",),
    rank: int = 64,
    layout: Layout | None = None,
) -> Report:
    """Writes BLIP-2 as a model folder of ours, with an adapter for each of the senses.

    source: a folder in transformers' layout (``Salesforce/blip2-flan-t5-xl``), or a ``.pth`` with
    LAVIS's names. Video comes first and is BLIP-2's own image path: what it computes is exactly
    BLIP-2's. From three senses on there is a self-gated fusion, as nn.Linear starts.

    Raises WeightsError and ConfigError as :func:`from_official` does.
    """
    source, layout = Path(source), layout or Layout()
    official = {ours: theirs for theirs, ours in keys.SENSES.items()}
    if unknown := [sense for sense in senses if sense not in official]:
        raise ConfigError(
            f"--senses {','.join(unknown)}: BLIP-2 is converted for {', '.join(official)}; add "
            "others to the model afterwards, as train.like=video does"
        )
    order = keys.modalities([official[sense] for sense in senses])
    if source.is_dir():
        state = _renamed(read_folder(source), _TRANSFORMERS)
        layout = _with_tokenizer(source, layout)
    else:
        state = _renamed(read_pth(source), _LAVIS)
    if "query_tokens_rgb" not in state:
        raise WeightsError(
            f"{source}: no query_tokens; not BLIP-2 in transformers' or LAVIS's layout"
        )
    state = {**state, **_copies(state, order, rank)}
    assistants = len([one for one in order if one.name != "rgb"])
    if len(order) > 2:  # as the paper's counts imply: up to two senses stand side by side
        width = state["t5_proj_rgb.weight"].shape[0]
        state |= _linear("fusion.0", width, assistants * width)
    if "rgb" not in {one.name for one in order}:
        state = {key: entry for key, entry in state.items() if not _of_rgb(key)}
    return build(state, Path(out), order, source, layout, fresh=senses[1:], released=False)


def _renamed(state: State, table: Sequence[tuple[str, str]]) -> State:
    found: State = {}
    vision: State = {}
    for name, entry in state.items():
        new = name
        for pattern, template in table:
            if match := re.fullmatch(pattern, name):
                new = match.expand(template)
                break
        if new.startswith("layer."):
            if wrapped := _WRAPPED.fullmatch(new):
                new = f"{wrapped[1]}.w.{wrapped[2]}"
            new = f"Qformer.bert.encoder.{new}"
        if new.startswith(_VISION):
            vision[new.removeprefix(_VISION)] = entry
        else:
            found[new] = entry
    own = frozen.eva_from_transformers(vision) if vision else {}
    return found | {f"visual_encoder.{name}": entry for name, entry in own.items()}


def _copies(state: State, order: Sequence[keys.Modality], rank: int) -> State:
    """What stock BLIP-2 does not have: each modality's own parts."""
    found: State = {}
    width = state["query_tokens_rgb"].shape[-1]
    pattern = re.compile(r"Qformer\.bert\.encoder\.layer\.(\d+)\.attention\.self\.key\.weight")
    layers = sorted(int(match[1]) for key in state if (match := pattern.fullmatch(key)))
    for one in order:
        for kind in ("weight", "bias"):
            found[f"t5_proj_{one.name}.{kind}"] = state[f"t5_proj_rgb.{kind}"]
            if one.name != "pc":
                found[f"ln_{one.name}.{kind}"] = state[f"ln_rgb.{kind}"]
        found[f"query_tokens_{one.name}"] = state["query_tokens_rgb"]
        if one.name == "audio":
            memory = state["ln_rgb.weight"].shape[0]
            found |= _linear("projection_audio", memory, AUDIO)
        for layer in layers:
            for part in ("query", "value"):
                place = f"{keys.LAYER}.{layer}.attention.self.{part}"
                a, b = f"{place}.w_a_{one.name}.weight", f"{place}.w_b_{one.name}.weight"
                found[a] = Entry((rank, width), partial(_uniform, a, (rank, width)))
                found[b] = Entry((width, rank), partial(torch.zeros, width, rank))
    return found


def _linear(name: str, out: int, width: int) -> State:
    return {
        f"{name}.weight": Entry((out, width), partial(_uniform, name, (out, width))),
        f"{name}.bias": Entry((out,), partial(torch.zeros, out)),
    }


def _uniform(name: str, shape: tuple[int, int]) -> Tensor:
    """nn.Linear's start (kaiming, a = sqrt 5), the same for a name at every reading."""
    generator = torch.Generator().manual_seed(int.from_bytes(name.encode()) % 2**63)
    bound = shape[1] ** -0.5
    drawn: Tensor = torch.rand(shape, generator=generator) * (2 * bound) - bound
    return drawn


def _of_rgb(key: str) -> bool:
    return key == "query_tokens_rgb" or key.startswith(("t5_proj_rgb.", "ln_rgb."))


def _with_tokenizer(folder: Path, layout: Layout) -> Layout:
    """The heads that the folder's configuration says, and its tokenizer."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / 'config.json'}: cannot be read ({error})") from None

    def heads(part: str) -> int | None:
        own = said.get(part)
        return own.get("num_attention_heads") if isinstance(own, Mapping) else None

    has = any(folder.glob("tokenizer*")) or any(folder.glob("spiece*"))
    return replace(
        layout,
        heads=layout.heads or heads("qformer_config"),
        vision_heads=layout.vision_heads or heads("vision_config"),
        tokenizer=layout.tokenizer or (folder if has else None),
    )

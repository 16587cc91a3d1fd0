"""Names of the released code's state dict, beside ours (docs/convert.md has them as a table)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from open_crema.errors import ConfigError, did_you_mean
from open_crema.model.crema import Crema

SENSES = {
    "rgb": "video",
    "flow": "flow",
    "depth": "depth",
    "norm": "normal",
    "audio": "audio",
    "pc": "point",
}
LAYER = "Qformer.bert.encoder.layer"
SKIP = "-skip"  # such a modality uses the Q-Former without its LoRA
# What never enters the published computation.
_DEAD = re.compile(
    r"\w+_gradsel_embed"
    r"|ln_pc\.(weight|bias)"
    r"|Qformer\.bert\.embeddings\.(position_ids|(word|position)_embeddings\..*)"
    r"|Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*"
    r"|Qformer\.cls\..*"
)
_LORA = re.compile(r".*\.w_[ab]_(\w+)\.weight")
FROZEN = ("visual_encoder.", "audio_encoder.", "t5_model.")


@dataclass(frozen=True)
class Modality:
    """One of the released code's: its name there, and whether its LoRA is skipped."""

    name: str
    skip: bool

    @property
    def sense(self) -> str:
        return SENSES[self.name]


def modalities(order: Sequence[str]) -> tuple[Modality, ...]:
    """Of names as in ``rgb-skip``. Raises ConfigError that names the nearest known one."""
    found = tuple(Modality(o.removesuffix(SKIP), o.endswith(SKIP)) for o in order)
    names = [one.name for one in found]
    for name in names:
        if name not in SENSES:
            hint = did_you_mean(name, SENSES)
            raise ConfigError(f"no modality {name!r}: {hint}known: {', '.join(SENSES)}")
    if len(set(names)) != len(names) or not names:
        raise ConfigError(f"--order {','.join(order)}: name each modality of the checkpoint once")
    return found


def is_dead(key: str, order: Sequence[Modality]) -> bool:
    """Whether a key of a checkpoint with these modalities takes no part in what they compute."""
    lora = _LORA.fullmatch(key)
    skipped = lora is not None and any(one.skip and one.name == lora[1] for one in order)
    return skipped or _DEAD.fullmatch(key) is not None


def names(model: Crema, order: Sequence[Modality]) -> dict[str, str]:
    """Our parameter name -> the released code's, for everything but the LLM and the fusion."""
    table: dict[str, str] = {}

    def linear(ours: str, official: str) -> None:
        for kind in ("weight", "bias"):
            table[f"{ours}.{kind}"] = f"{official}.{kind}"

    def attention(ours: str, official: str, *, wrapped: bool) -> None:
        linear(f"{ours}.query", f"{official}.self.query" + (".w" if wrapped else ""))
        linear(f"{ours}.value", f"{official}.self.value" + (".w" if wrapped else ""))
        linear(f"{ours}.key", f"{official}.self.key")
        linear(f"{ours}.out", f"{official}.output.dense")
        linear(f"{ours}.norm", f"{official}.output.LayerNorm")

    linear("qformer.norm", "Qformer.bert.embeddings.LayerNorm")
    for i, layer in enumerate(model.qformer.layers):
        ours, official = f"qformer.layers.{i}", f"{LAYER}.{i}"
        attention(f"{ours}.attention", f"{official}.attention", wrapped=True)
        if layer.cross is not None:
            attention(f"{ours}.cross", f"{official}.crossattention", wrapped=False)
        linear(f"{ours}.up", f"{official}.intermediate_query.dense")
        linear(f"{ours}.down", f"{official}.output_query.dense")
        linear(f"{ours}.norm", f"{official}.output_query.LayerNorm")
    for one in order:
        ours, adapter = f"adapters.{one.sense}", model.adapter(one.sense)
        table[f"{ours}.queries"] = f"query_tokens_{one.name}"
        linear(f"{ours}.projection", f"t5_proj_{one.name}")
        if adapter.input_norm is not None:
            linear(f"{ours}.input_norm", f"ln_{one.name}")
        if adapter.input_projection is not None:
            linear(f"{ours}.input_projection", f"projection_{one.name}")
        for i in range(len(adapter.lora)):
            for part in ("query", "value"):
                for matrix in ("a", "b"):
                    table[f"{ours}.lora.{i}.{part}.{matrix}"] = (
                        f"{LAYER}.{i}.attention.self.{part}.w_{matrix}_{one.name}.weight"
                    )
    return table

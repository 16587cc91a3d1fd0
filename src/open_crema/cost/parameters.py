"""Parameters of a configuration; encoders are counted by their specifications."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from open_crema.backbones import ARCHITECTURES, BACKBONES
from open_crema.backbones.base import Backbone
from open_crema.backbones.decoder_only import DecoderOnly
from open_crema.backbones.encoder_decoder import EncoderDecoder
from open_crema.config import Config, EncodersConfig, ModelConfig
from open_crema.encoders import registry
from open_crema.errors import ConfigError, did_you_mean
from open_crema.modality import get
from open_crema.model import hub
from open_crema.model.adapter import Adapter
from open_crema.model.crema import Crema
from open_crema.model.files import read_model


@dataclass(frozen=True)
class SenseCost:
    """Parameters of one sense's adapter, part by part (paper 3.2)."""

    lora: int
    queries: int
    input_projection: int
    input_norm: int
    llm_projection: int
    qformer: int = 0  # its own, under model.qformer.own=each

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Cost:
    """Numbers of parameters.

    senses: in canonical order. fusion: all of it. qformer: its own weights, without the adapters;
    trained only where qformer_trained. published: the senses that train.scope=own leaves as they
    are, with published_fusion of the fusion. encoders: by name, once however many senses share one;
    None where a third party's encoder does not say its size, and then the totals are without it.
    uncounted: what the released code lists as trainable on top of ``trainable`` although its
    forward pass never uses it; the paper's larger figures include some of it.
    """

    senses: dict[str, SenseCost]
    fusion: int
    qformer: int
    qformer_trained: bool
    encoders: dict[str, int | None]
    llm: str
    llm_parameters: int
    uncounted: dict[str, int]
    published: tuple[str, ...] = ()
    published_fusion: int = 0

    @property
    def trainable(self) -> int:
        trained = self.qformer if self.qformer_trained else 0
        adapters = sum(cost.total for sense, cost in self.senses.items() if self.moves(sense))
        return adapters + self.fusion - self.published_fusion + trained

    def moves(self, sense: str) -> bool:
        """Whether its adapter is trained."""
        return sense not in self.published

    @property
    def with_uncounted(self) -> dict[str, int]:
        """The trainable total after adding each of ``uncounted`` in turn: the published counts."""
        sums = accumulate(self.uncounted.values(), initial=self.trainable)
        return dict(zip(self.uncounted, list(sums)[1:], strict=True))

    @property
    def frozen(self) -> int:
        known = sum(n for n in self.encoders.values() if n is not None)
        adapters = sum(self.senses[sense].total for sense in self.published)
        shared = 0 if self.qformer_trained else self.qformer
        return known + adapters + self.published_fusion + shared + self.llm_parameters


def of_run(config: Config) -> Cost:
    """The cost of a run. Raises what :func:`count` does, and WeightsError where train.scope=own
    needs to know the senses of a train.init that is not there."""
    published: list[str] = []
    if config.train.scope == "own":
        said = read_model(hub.local(config.train.init or ""))
        published = [sense for sense, info in said.adapters.items() if not info.fresh]
    return count(config.model, train_qformer=config.train.qformer != "frozen", published=published)


def count(
    config: ModelConfig, *, train_qformer: bool = False, published: Sequence[str] = ()
) -> Cost:
    """The cost of a model; train_qformer: whether the Q-Former is trained too; published: senses
    that are not trained, nor the fusion but for the blocks of the others.

    Raises ConfigError where an encoder or the LLM is unknown.
    """
    model = skeleton(config)
    published = tuple(sense for sense in model.senses if sense in published)
    blocks = [b for sense, b in model.fusion.blocks.items() if sense not in published]
    own = sum(block.numel() for block in blocks)
    return Cost(
        published=published,
        published_fusion=_size(model.fusion) - own if published else 0,
        senses={sense: _adapter(cast(Adapter, model.adapters[sense])) for sense in model.senses},
        fusion=_size(model.fusion),
        qformer=_size(model.qformer) if config.qformer.own == "shared" else 0,
        qformer_trained=train_qformer,
        encoders=_encoders(model.senses, config.encoders),
        llm=config.llm,
        llm_parameters=_size(model.backbone),
        uncounted=_uncounted(config),
    )


def skeleton(config: ModelConfig) -> Crema:
    """The whole model on the meta device: every module and shape, no values, no memory.

    Raises ConfigError where an encoder or the LLM is unknown.
    """
    with torch.device("meta"):
        return Crema(config, backbone_of(config.llm))


class _NoText:
    """Stands in for a tokenizer where no text is read."""

    pad_token_id: int | None = 0
    eos_token_id: int = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return []

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        return ""


def backbone_of(name: str, said: dict[str, Any] | None = None) -> Backbone:
    """The LLM of that name or local folder on the meta device; only its architecture is read.

    said: another architecture than its own. Raises ConfigError where it is not known, or cannot be
    counted.
    """
    return _built(name, json.dumps(said or architecture(name), sort_keys=True))


@lru_cache(maxsize=8)
def _built(name: str, said: str) -> Backbone:
    """Billions of parameters take seconds to build even without memory: once will do."""
    with torch.device("meta"):
        return _build(name, json.loads(said))


def _build(name: str, said: dict[str, Any]) -> Backbone:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        config = CONFIG_MAPPING[said["model_type"]].from_dict(said)
        if not config.is_encoder_decoder:
            return DecoderOnly(AutoModelForCausalLM.from_config(config), _NoText())
        llm = AutoModelForSeq2SeqLM.from_config(config)
    except Exception as error:  # a config.json may be wrong in any way, and fails in as many
        raise ConfigError(
            f"model.llm {name}: its config.json describes no language model that can be counted: "
            f"{type(error).__name__}: {shorten(str(error), 200)}"
        ) from None
    # transformers 5 ties T5's head to its embeddings whatever the configuration says, until
    # weights that differ are loaded; Flan-T5's differ.
    head = llm.get_output_embeddings()
    apart = False in (said.get(k) for k in ("tie_word_embeddings", "scale_decoder_outputs"))
    if apart and head.weight is llm.get_input_embeddings().weight:
        head.weight = nn.Parameter(torch.empty_like(head.weight))
    return EncoderDecoder(llm, _NoText())


def architecture(name: str) -> dict[str, Any]:
    """What a transformers config.json holds."""
    if Path(name).is_dir() and name not in BACKBONES:
        path = Path(name) / "config.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.llm {name}: not a transformers folder: {path} cannot be read ({error})"
            ) from None
        if not isinstance(found, dict):
            raise ConfigError(f"model.llm {name}: not a transformers folder: {path} is no object")
        return found
    if name not in ARCHITECTURES:
        hint = did_you_mean(name, ARCHITECTURES)
        raise ConfigError(
            f"unknown model.llm {name!r}: {hint}known: {', '.join(ARCHITECTURES)}, or a local "
            "folder in the transformers layout, of which config.json is enough"
        )
    return ARCHITECTURES[name]


def _size(part: nn.Module | None) -> int:
    return 0 if part is None else sum(p.numel() for p in part.parameters())


def _adapter(adapter: Adapter) -> SenseCost:
    return SenseCost(
        lora=_size(adapter.lora),
        queries=adapter.queries.numel(),
        input_projection=_size(adapter.input_projection),
        input_norm=_size(adapter.input_norm),
        llm_projection=_size(adapter.projection),
        qformer=_size(adapter.own),
    )


def _encoders(senses: list[str], config: EncodersConfig) -> dict[str, int | None]:
    served = {"vision": config.vision, "audio": config.audio, "point": config.point}
    found: dict[str, int | None] = {}
    for sense in senses:
        kind = get(sense).encoder
        if isinstance(kind, str) and kind in served:
            spec = registry.spec(served[kind])
            found[spec.name] = spec.parameters
            if spec.uses_vision:
                found[config.vision] = registry.spec(config.vision).parameters
        else:
            found[f"{sense}'s own"] = None
    return found


def _uncounted(config: ModelConfig) -> dict[str, int]:
    shape = config.qformer
    lora = shape.layers * 4 * shape.width * config.lora.rank  # A and B, of query and value
    extra: dict[str, int] = {}
    if shape.own == "each":
        return extra
    if "point" in config.senses:
        extra["norm of the point features"] = 2 * shape.encoder_width
    if skipping := [s for s in config.senses if s in config.lora.skip]:
        extra["LoRA of senses that skip it"] = lora * len(skipping)
    if "video" in config.senses:  # one a sense, each the size of the video's LoRA
        extra["gradient-selection embeddings"] = lora * len(config.senses)
    return extra


def to_dict(cost: Cost) -> dict[str, Any]:
    """Plain data for JSON: ``trainable`` and ``frozen`` by part, each with its ``total``;
    ``uncounted`` and ``with_uncounted`` as in :class:`Cost`."""
    trained = cost.qformer_trained
    senses = {s: {**asdict(c), "total": c.total} for s, c in cost.senses.items()}
    return {
        "trainable": {
            "senses": {s: c for s, c in senses.items() if cost.moves(s)},
            "fusion": cost.fusion - cost.published_fusion,
            "qformer": cost.qformer if trained else 0,
            "total": cost.trainable,
        },
        "frozen": {
            "senses": {s: c for s, c in senses.items() if not cost.moves(s)},
            "fusion": cost.published_fusion,
            "encoders": cost.encoders,
            "qformer": 0 if trained else cost.qformer,
            "llm": {"name": cost.llm, "parameters": cost.llm_parameters},
            "total": cost.frozen,
        },
        "uncounted": cost.uncounted,
        "with_uncounted": cost.with_uncounted,
    }


def table(cost: Cost) -> Table:
    """Trained parts above, frozen ones below, in 80 columns."""
    share = cost.trainable / (cost.trainable + cost.frozen)
    result = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="\n".join(
            [
                f"{share:.2%} of {cost.trainable + cost.frozen:,} parameters are trained.",
                *(f"{n:,} with the unused {name}" for name, n in cost.with_uncounted.items()),
            ]
        ),
        caption_justify="left",
    )
    result.add_column("parameters", overflow="fold")
    for head in ("LoRA", "queries", "input\nproj.", "input\nnorm", "LLM\nproj.", "total"):
        result.add_column(head, justify="right", no_wrap=True)

    def line(name: str, total: int | None, style: str | None = None) -> None:
        shown = "unknown" if total is None else f"{total:,}"
        result.add_row(name, *[""] * 5, shown, style=style)

    def adapters(moving: bool) -> None:
        for sense, own in cost.senses.items():
            if cost.moves(sense) == moving:
                parts = asdict(own)
                extra = parts.pop("qformer")
                name = f"{sense} (Q-Former {extra:,})" if extra else sense
                result.add_row(name, *(f"{n:,}" for n in parts.values()), f"{own.total:,}")

    adapters(True)
    line("fusion", cost.fusion - cost.published_fusion)
    if cost.qformer_trained:
        line("Q-Former", cost.qformer)
    line("trained", cost.trainable, "bold")
    result.add_section()
    if cost.published:
        adapters(False)
        line("fusion", cost.published_fusion)
    for name, n in cost.encoders.items():
        line(name, n)
    if not cost.qformer_trained:
        line("Q-Former", cost.qformer)
    line(cost.llm, cost.llm_parameters)
    line("frozen", cost.frozen, "bold")
    return result

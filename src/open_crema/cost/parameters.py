"""Parameters by part, trained and frozen; frozen encoders are counted by their specifications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, cast

from torch import nn

from open_crema.config import Config, EncodersConfig, ModelConfig
from open_crema.cost.meta import skeleton
from open_crema.encoders import registry
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
    def total(self) -> int:
        return self.trainable + self.frozen

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


def of_run(config: Config, model: Crema | None = None) -> Cost:
    """The cost of a run; model: its skeleton, if it is there. Raises what :func:`count` does, and WeightsError where train.scope=own
    needs to know the senses of a train.init that is not there."""
    published: list[str] = []
    if config.train.scope == "own":
        said = read_model(hub.local(config.train.init or ""))
        published = [sense for sense, info in said.adapters.items() if not info.fresh]
    trained = config.train.qformer != "frozen"
    return count(config.model, train_qformer=trained, published=published, model=model)


def count(
    config: ModelConfig,
    *,
    train_qformer: bool = False,
    published: Sequence[str] = (),
    model: Crema | None = None,
) -> Cost:
    """The cost of a model; train_qformer: whether the Q-Former is trained too; published: senses
    that are not trained, nor the fusion but for the blocks of the others; model: its skeleton.

    Raises ConfigError where an encoder or the LLM is unknown.
    """
    model = model or skeleton(config)
    published = tuple(sense for sense in model.senses if sense in published)
    blocks = [b for sense, b in model.fusion.blocks.items() if sense not in published]
    own = sum(block.numel() for block in blocks)
    return Cost(
        published=published,
        published_fusion=_size(model.fusion) - own if published else 0,
        senses={sense: _adapter(cast(Adapter, model.adapters[sense])) for sense in model.senses},
        fusion=_size(model.fusion),
        qformer=_size(model.qformer),
        qformer_trained=train_qformer,
        encoders=_encoders(model.senses, config.encoders),
        llm=config.llm,
        llm_parameters=_size(model.backbone),
        uncounted=_uncounted(config),
    )


def _size(part: nn.Module | None) -> int:
    return 0 if part is None else sum(p.numel() for p in part.parameters())


def _adapter(adapter: Adapter) -> SenseCost:
    return SenseCost(
        lora=_size(adapter.lora),
        queries=adapter.queries.numel(),
        input_projection=_size(adapter.input_projection),
        input_norm=_size(adapter.input_norm),
        llm_projection=_size(adapter.projection),
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

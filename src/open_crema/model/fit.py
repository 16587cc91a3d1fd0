"""Whether an adapter fits a model: what differs, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from open_crema import modality
from open_crema.backbones.vlm import NAME
from open_crema.config import ModelConfig
from open_crema.encoders import registry
from open_crema.errors import ConfigError, WeightsError
from open_crema.modality import canonical
from open_crema.model.facts import (
    AdapterInfo,
    Base,
    EncoderFacts,
    ModalityFacts,
    Shape,
)
from open_crema.model.fusion_kinds import Kind, kind_of
from open_crema.model.tensors import fingerprint


@dataclass(frozen=True)
class Described:
    """A model, saved or live, without its tensors. where: what errors call it."""

    where: str
    config: ModelConfig
    base: Base
    adapters: Mapping[str, AdapterInfo]

    @property
    def senses(self) -> list[str]:
        return canonical(self.adapters)

    @property
    def attached(self) -> bool:
        """Whether a VLM's own tokens lead, so that every sense here assists."""
        return self.config.llm.startswith(NAME)


def modality_facts(sense: str, config: ModelConfig) -> ModalityFacts:
    kind = modality.get(sense)
    how = config.align.audio if sense == "audio" else kind.alignment
    return ModalityFacts(kind.label, how, kind.norm, modality.package_of(kind))


def encoder_facts(sense: str, width: int, config: ModelConfig) -> EncoderFacts:
    """Of the configured encoder; of none where that is not known, or gives another width."""
    kind = modality.get(sense)
    try:
        if width == registry.width_for(kind, config.encoders):
            name, fingerprint = registry.identity(kind, config.encoders)
            return EncoderFacts(name, width, fingerprint)
    except ConfigError:  # a trained model is to be saved all the same
        pass
    return EncoderFacts(None, width, None)


def shape_of(sense: str, config: ModelConfig, llm_width: int) -> Shape:
    q = config.qformer
    without = sense in config.lora.skip or q.own == "each"
    rank = 0 if without else config.lora.rank
    projected = sense in config.input_projection
    return Shape(q.layers, q.width, q.queries, q.encoder_width, rank, llm_width, projected)


def fusion_kind(config: ModelConfig, llm_width: int) -> Kind | None:
    """How a model merges its assistants; None where it does not."""
    shape = config.qformer
    return kind_of(config.fusion.kind, llm_width, shape.queries, shape.width)


def _already_there(new: AdapterInfo, model: Described) -> str | None:
    if new.sense not in model.adapters:
        return None
    return (
        f"the model has an adapter for {new.sense!r} already; `crema adapter remove` it first, "
        "or give --replace"
    )


def _llm(new: AdapterInfo, model: Described) -> str | None:
    if new.base.llm == model.base.llm:
        return None
    return (
        f"it was trained on another base: the LLM {new.base.llm}, the model's is {model.base.llm}; "
        "use the base that it was trained on, or train it on this one"
    )


def _qformer(new: AdapterInfo, model: Described) -> str | None:
    if new.base.qformer == model.base.qformer:
        return None
    return (
        f"it was trained on another base: the Q-Former {new.base.qformer}, the model's is "
        f"{model.base.qformer}; use the base that it was trained on, or train it on this one"
    )


def _fusion(new: AdapterInfo, model: Described) -> str | None:
    theirs, ours = (
        (f.kind,) if f.kind == "concat" else (f.kind, f.placement)
        for f in (new.fusion, model.config.fusion)
    )
    if theirs == ours:
        return None
    return (
        f"it was trained with model.fusion {', '.join(theirs)}, the model has {', '.join(ours)}; "
        "use a model of the same fusion, or train it on this one"
    )


def _shape(new: AdapterInfo, model: Described) -> str | None:
    widths = [info.shape.llm_width for info in model.adapters.values()]
    ours = shape_of(new.sense, model.config, (widths or [new.shape.llm_width])[0])
    differ = [
        f"{name} {getattr(new.shape, name)}, not {getattr(ours, name)}"
        for name in ("layers", "width", "queries", "memory_width", "rank", "llm_width")
        if getattr(new.shape, name) != getattr(ours, name)
    ]
    if not differ:
        return None
    return (
        f"its shape is not the model's: {'; '.join(differ)} (model.qformer, model.lora); use a "
        "model of that shape, or train it on this one"
    )


def _projected(new: AdapterInfo, model: Described) -> str | None:
    ours = new.sense in model.config.input_projection
    if new.shape.projected == ours:
        return None
    return (
        f"it has {'an' if new.shape.projected else 'no'} input projection, and the model's "
        f"model.input_projection {'names' if ours else 'does not name'} {new.sense!r}; copy both "
        "again"
    )


def _modality(new: AdapterInfo, model: Described) -> str | None:
    ours = modality_facts(new.sense, model.config)
    differ = [
        f"{name} {getattr(new.modality, name)!r}, not {getattr(ours, name)!r}"
        for name in ("label", "alignment", "norm")
        if getattr(new.modality, name) != getattr(ours, name)
    ]
    if not differ:
        return None
    package = new.modality.package
    other = package is not None and package != ours.package
    remedy = f"pip install {package}" if other else "give the model the sense that it had"
    return f"the sense {new.sense!r} was another one: {'; '.join(differ)}; {remedy}"


def _encoder(new: AdapterInfo, model: Described) -> str | None:
    theirs = new.encoder
    if theirs.name is None:  # it was trained on features that were given as they are
        return None
    name, fingerprint = registry.identity(modality.get(new.sense), model.config.encoders)
    unknown = None in (theirs.fingerprint, fingerprint)
    if theirs.name == name and (unknown or theirs.fingerprint == fingerprint):
        return None
    return (
        f"it reads features of the encoder {theirs.name} ({theirs.fingerprint}), the model's for "
        f"{new.sense!r} is {name} ({fingerprint}), whose features would mean something else to it; "
        "set model.encoders as it was, or train an adapter for this one"
    )


def _bias(new: AdapterInfo, model: Described) -> str | None:
    if not _other_bias(new, model):
        return None
    return (
        f"it was trained with {_another(model)} ({new.base.fusion}, the model's is "
        f"{model.base.fusion}; training of scope all moves it), so what it adds would be merged "
        "otherwise; use the base that it was trained on, or give --force and measure"
    )


def _primary(new: AdapterInfo, model: Described) -> str | None:
    leader = new.primary
    if leader is None or _same(leader, new, model):
        return None
    found = "lacks" if leader not in model.adapters else "has another version of"
    return (
        f"it was trained beside the primary sense {leader!r} "
        f"({new.trained_with[leader]}), which the model {found}; use the base that it was trained "
        "on, or give --force and measure"
    )


def _block(new: AdapterInfo, model: Described) -> str | None:
    others = [s for s in model.senses if s != new.sense]
    if model.config.fusion.kind == "concat" or not (others or model.attached):
        return None
    if model.attached:
        if new.fusion.block:
            return None
        return f"it has no fusion block; train an adapter for {new.sense!r} on this model"
    first = canonical([*others, new.sense])[0]
    if new.sense != first and not new.fusion.block:
        return (
            f"it has no fusion block: {new.sense!r} was the primary sense where it was trained, "
            f"and {first!r} is here; train an adapter for {new.sense!r} on this model"
        )
    if new.sense == first and not model.adapters[others[0]].fusion.block:
        return (
            f"{new.sense!r} would become the primary sense, and {others[0]!r}, which leads now, "
            "has no fusion block; train both together"
        )
    return None


Check = Callable[[AdapterInfo, Described], str | None]
LOADING: tuple[Check, ...] = (_llm, _qformer, _fusion, _shape, _projected, _modality, _encoder)
ADDING: tuple[Check, ...] = (
    _already_there,
    _llm,
    _qformer,
    _fusion,
    _bias,
    _shape,
    _modality,
    _encoder,
    _primary,
    _block,
)
FORCEABLE = (_bias, _primary)


def check_loads(info: AdapterInfo, where: str, model: Described) -> None:
    """Raises WeightsError where a model's own adapter does not fit it."""
    for check in LOADING:
        if reason := check(info, model):
            raise WeightsError(f"{where}: {reason}")


def check_fits(new: AdapterInfo, where: str, model: Described, *, force: bool = False) -> list[str]:
    """The :func:`notes` about an adapter that may be added.

    Raises WeightsError that says the first thing that does not fit. force: another fusion bias or
    another primary sense than it was trained with are only noted.
    """
    for check in ADDING:
        reason = None if force and check in FORCEABLE else check(new, model)
        if reason:
            raise WeightsError(f"{where}: does not fit {model.where}: {reason}")
    return notes(new, model)


def notes(info: AdapterInfo, model: Described) -> list[str]:
    """How the company that an adapter was trained in differs from a model's: separately trained
    adapters are not guaranteed to add up, so pairs are to be measured."""
    found = ["its adapter has not been trained yet"] if info.fresh else []
    if _other_bias(info, model):
        found.append(f"was trained with {_another(model)}")
    for other in info.trained_with:
        if other not in model.adapters:
            found.append(f"was trained beside {other}, which is not here")
        elif not _same(other, info, model):
            found.append(f"was trained beside another {other} adapter")
    if not info.fresh:
        found += [
            f"was trained without {other}"
            for other in model.senses
            if other != info.sense
            and other not in info.trained_with
            and not model.adapters[other].fresh
        ]
    return found


def _same(other: str, info: AdapterInfo, model: Described) -> bool:
    """Whether an adapter that it was trained with is here."""
    known = info.trained_with[other]
    return other in model.adapters and known == model.adapters[other].fingerprint


def _other_bias(info: AdapterInfo, model: Described) -> bool:
    """Whether the fusion bias is not the one that it was trained with. A model of one sense has
    none; it gets one of zeros when it grows."""
    kind = fusion_kind(model.config, info.shape.llm_width)
    if kind is None or not info.fusion.block or info.base.fusion == model.base.fusion:
        return False
    return model.base.fusion is not None or info.base.fusion != fingerprint(kind.zeros())


def _another(model: Described) -> str:
    attends = model.config.fusion.kind == "cross-attention"
    return "another fusion attention" if attends else "another fusion bias"

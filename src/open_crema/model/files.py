"""A saved model: a folder of safetensors and JSON, one sub-folder an adapter.

    config.json                        the model's configuration, its base and its senses
    run.yaml                           the configuration of the run that made it
    qformer.safetensors                the shared Q-Former
    fusion.safetensors                 the fusion's shared parameters: a bias (where there is one)
    adapters/NAME/adapter.safetensors  one sense: queries, LoRA, projections, its fusion block
    adapters/NAME/config.json          what it needs in order to fit (model/facts.py)

Folders are written beside their place and renamed into it, so that a reader or a killed writer
never sees half a model. Nothing is pickled. What a file says of itself is checked against its
tensors, and an adapter that has not changed since it was read is written as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from open_crema import __version__, backbones, modality
from open_crema.backbones.base import Backbone
from open_crema.config import Config, ModelConfig, from_dict, load, to_dict, to_yaml
from open_crema.errors import ConfigError, WeightsError
from open_crema.model import hub
from open_crema.model.adapter import Adapter
from open_crema.model.crema import Crema, Origin
from open_crema.model.facts import (
    FORMAT,
    AdapterInfo,
    Base,
    FusionFacts,
    RunFacts,
    read_info,
    read_small_json,
    write_info,
)
from open_crema.model.fit import (
    Described,
    check_loads,
    encoder_facts,
    fusion_kind,
    modality_facts,
    shape_of,
)
from open_crema.model.qformer import QFormer
from open_crema.model.tensors import (
    Shapes,
    check_shapes,
    fingerprint,
    read_checked,
    shapes_in,
    shapes_of,
)
from open_crema.storage import recover, replacing, write_json, write_tensors

BLOCK = "fusion.block"  # the name of a sense's fusion block in its adapter file
ADAPTER, CONFIG, RUN = "adapter.safetensors", "config.json", "run.yaml"
QFORMER, FUSION = "qformer.safetensors", "fusion.safetensors"
# It does not say what its adapters fit, and no released version wrote it.
_OLD = "; format 1 was that of a version before the first release: train it again"
HINT = "a saved model has one; is this a model folder?"
_Tensors = dict[str, Tensor]


def save_pretrained(
    model: Crema,
    folder: str | Path,
    *,
    run: Config | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes the model (without its frozen LLM) to a folder, replacing what is there.

    run: the configuration that made it, kept as ``run.yaml``. dtype: of the files, as
    torch.bfloat16 for half their size; what is rounded so is another model, to which adapters of
    the first one do not belong.
    """
    folder = Path(folder)
    check_replaceable(folder)
    if dtype is not None:
        model = deepcopy(model, {id(model.backbone): model.backbone})
        for part in (model.qformer, model.adapters, model.fusion):
            part.to(dtype)
    said = describe(model, run=run)
    with replacing(folder) as new:
        write_json(
            new / CONFIG,
            {
                "format": FORMAT,
                "open_crema": __version__,
                "model": to_dict(model.config),
                "base": to_dict(said.base),
            },
        )
        if run is not None:
            (new / RUN).write_text(to_yaml(run), encoding="utf-8")
        write_tensors(new / QFORMER, model.qformer.state_dict())
        if model.fusion.shared:
            write_tensors(new / FUSION, model.fusion.shared)
        for sense in model.senses:
            own = new / "adapters" / sense
            own.mkdir(parents=True)
            write_tensors(own / ADAPTER, _tensors(model, sense))
            write_info(own / CONFIG, said.adapters[sense])
    return folder


def describe(model: Crema, *, run: Config | None = None) -> Described:
    """What a live model's files would say. run: the configuration that trained it."""
    shared = model.fusion.shared
    base = Base(
        model.backbone.fingerprint,
        fingerprint(model.qformer),
        fingerprint(shared) if shared else None,
    )
    tensors = {sense: _tensors(model, sense) for sense in model.senses}
    prints = {sense: fingerprint(t) for sense, t in tensors.items()}
    trained = {s: prints[s] for s in model.senses if not bool(model.adapter(s).fresh)}
    leader = None if model.backbone.sees or not trained else next(iter(trained))
    adapters = {}
    for sense in model.senses:
        company = {o: p for o, p in trained.items() if o != sense and sense in trained}
        kept = _unchanged(model, sense, base, BLOCK in tensors[sense], prints[sense])
        adapters[sense] = kept or AdapterInfo(
            format=FORMAT,
            open_crema=__version__,
            sense=sense,
            fingerprint=prints[sense],
            fresh=sense not in trained,
            modality=modality_facts(sense, model.config),
            encoder=encoder_facts(sense, model.adapter(sense).encoder_width, model.config),
            shape=shape_of(sense, model.config, model.backbone.width),
            fusion=FusionFacts(
                model.config.fusion.kind, model.config.fusion.placement, BLOCK in tensors[sense]
            ),
            base=base,
            trained_with=company,
            primary=leader if leader in company else None,
            run=None if run is None else RunFacts(run.train.scope, run.seed),
        )
    return Described("the model", model.config, base, adapters)


def _unchanged(model: Crema, sense: str, base: Base, block: bool, found: str) -> AdapterInfo | None:
    """What the adapter's file said, where it is still that adapter: by whom and beside whom it was
    trained stays true in other company. In a model that it leads alone, it goes without block."""
    origin = model.origins.get(sense)
    if origin is None:
        return None
    info = origin.info
    fusion = model.config.fusion
    if (info.base.llm, info.base.qformer) != (base.llm, base.qformer):
        return None
    if (info.fusion.kind, info.fusion.placement) != (fusion.kind, fusion.placement):
        return None
    if found == info.fingerprint:
        return info
    if block or fingerprint(model.adapter(sense)) != origin.without_block:
        return None
    return replace(info, fingerprint=found, fusion=replace(info.fusion, block=False))


def _tensors(model: Crema, sense: str) -> _Tensors:
    """Of an adapter's file."""
    tensors = dict(model.adapter(sense).state_dict())
    if sense in model.fusion.blocks:
        tensors[BLOCK] = model.fusion.blocks[sense].detach()
    return tensors


def from_pretrained(
    source: str | Path,
    *,
    senses: Sequence[str] | None = None,
    backbone: Backbone | None = None,
    revision: str | None = None,
    held: ModelConfig | None = None,
    kind: type[Crema] = Crema,
) -> Crema:
    """Reads a saved model from its folder, or from a repository of the Hugging Face hub
    (``"user/name"``, at a revision), which is downloaded to that hub's cache.

    senses: a subset of its adapters. The LLM comes from where the model says unless a backbone is
    given. held: how the frozen parts are held in memory (``model.loading``, and the encoders' dtype
    and device), instead of as the saved model says. kind: the class of the result,
    which is in evaluation mode.

    Raises WeightsError, naming the file, for whatever is missing, foreign, or damaged.
    """
    folder = hub.local(source, revision)
    said = read_model(folder, senses)
    if held is not None:
        said = replace(said, config=said.config.held_as(held))
    qformer = read_qformer(folder / QFORMER, said)
    adapters = {s: read_adapter(place_of(folder, s), said.adapters[s], said) for s in said.adapters}
    backbone = backbone or backbones.of(said.config)
    # A converted checkpoint that held no LLM says none: then any of its width will do.
    if said.base.llm and backbone.fingerprint != said.base.llm:
        raise WeightsError(
            f"{folder}: trained on the LLM {said.base.llm}, "
            f"not on {backbone.fingerprint}; load it with the one it was trained on"
        )
    widths = {s: info.encoder.width for s, info in said.adapters.items()}
    model = kind(said.config, backbone, widths)
    _fill(model.qformer, qformer, folder / QFORMER)
    if model.fusion.merges and (said.base.fusion is not None or model.fusion.shared):
        # also of one sense: it may grow again
        model.fusion.set_shared(read_shared(folder / FUSION, said))
    for sense, tensors in adapters.items():
        put(model, said.adapters[sense], tensors, place_of(folder, sense))
    return model.to_llm().eval()


def place_of(folder: Path, sense: str) -> Path:
    return folder / "adapters" / sense


def read_model(folder: Path, senses: Sequence[str] | None = None) -> Described:
    """What a model's folder says, without its tensors; senses: of these only.

    Raises WeightsError, naming the file, where that is not a model or an adapter does not fit it.
    """
    if not folder.exists():  # its last writer may have been killed between two renames
        recover(folder)
    data = read_small_json(folder / CONFIG, HINT)
    config, base = model_config(folder, data, senses)
    adapters = {}
    for sense in modality.canonical(config.senses):
        path = place_of(folder, sense) / CONFIG
        info = read_info(path, "the model lists this sense, its adapter is missing")
        if info.sense != sense:
            raise WeightsError(f"{path}: not an adapter for {sense!r}, but for {info.sense!r}")
        adapters[sense] = info
    said = Described(str(folder), config, base, adapters)
    for sense, info in adapters.items():
        check_loads(info, str(place_of(folder, sense)), said)
    return said


def read_adapter(folder: Path, info: AdapterInfo, model: Described) -> _Tensors:
    """An adapter's tensors, its fusion block among them, that are what its configuration says.

    Raises WeightsError, naming the file, where they are not.
    """
    path, width = folder / ADAPTER, info.shape.llm_width
    kind, fusion = modality.get(info.sense), fusion_kind(model.config, width)
    expected = _sizes(path, lambda: Adapter(kind, model.config, info.encoder.width, width))
    if fusion is not None and info.fusion.block:
        expected = {**expected, BLOCK: fusion.block}
    tensors = read_checked(path, expected)
    if (found := fingerprint(tensors)) != info.fingerprint:
        raise WeightsError(
            f"{path}: its tensors ({found}) are not the ones that its config.json was written for "
            f"({info.fingerprint}): damaged, or swapped for another's; copy both again"
        )
    return tensors


def read_qformer(path: Path, model: Described) -> _Tensors:
    found = shapes_in(path)
    if model.config.qformer.layers > len(found):  # so many are not even built to be compared
        raise WeightsError(f"{path}: has fewer layers than model.qformer.layers")
    tensors = read_checked(path, _sizes(path, lambda: QFormer(model.config.qformer)))
    if fingerprint(tensors) != model.base.qformer:
        raise WeightsError(f"{path}: not the Q-Former that the adapters were trained on")
    return tensors


def read_shared(path: Path, model: Described) -> _Tensors:
    """What of the fusion is no sense's own: mostly its bias. Raises WeightsError, naming the file,
    where it is not the model's."""
    widths = {info.shape.llm_width for info in model.adapters.values()}
    kind = fusion_kind(model.config, max(widths))
    tensors = read_checked(path, kind.shared if kind is not None else {})
    if model.base.fusion != fingerprint(tensors):
        raise WeightsError(f"{path}: not the fusion of this model; copy it again")
    return tensors


def _sizes(path: Path, build: Callable[[], nn.Module]) -> Shapes:
    """What a module's file must hold, without the memory that the module would take."""
    try:
        with torch.device("meta"):
            return shapes_of(build())
    except RuntimeError as error:  # sizes that no memory has
        raise WeightsError(f"{path}: its configuration is impossible ({error})") from None


def put(model: Crema, info: AdapterInfo, tensors: _Tensors, where: Path) -> None:
    """Fills a model's adapter and fusion block; where: what errors call them.

    The sense that leads keeps its block, unused, so that saving the model loses nothing.
    """
    own = dict(tensors)
    block = own.pop(BLOCK, None)
    _fill(model.adapter(info.sense), own, where)
    model.origins[info.sense] = Origin(info, fingerprint(own))
    blocks = model.fusion.blocks
    if block is None:
        if info.sense in blocks:
            raise WeightsError(f"{where / ADAPTER}: no tensor {BLOCK!r}")
    elif info.sense in blocks:
        _fill(blocks, {info.sense: block}, where, partial=True)
    elif shared := model.fusion.shared:
        blocks[info.sense] = nn.Parameter(block.to(shared["bias"]))
        for name in model.senses:  # parameters stay in canonical order
            if name in blocks:
                blocks[name] = blocks.pop(name)


def load_qformer(model: Crema, folder: str | Path) -> None:
    """Gives a model the Q-Former of a saved one, of the same shape."""
    path = Path(folder) / QFORMER
    _fill(model.qformer, read_checked(path, shapes_of(model.qformer)), path)


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
        return read_small_json(folder / CONFIG, "").get("format") is not None
    except WeightsError:
        return False


def run_of(folder: str | Path) -> Config:
    """The configuration that a saved model was made with; defaults where it was not kept."""
    folder = Path(folder)
    # Read in any case: it says best what is wrong, as a sense whose package is not installed.
    model, _ = model_config(folder, read_small_json(folder / CONFIG, HINT))
    return load(folder / RUN) if (folder / RUN).exists() else Config(model=model)


def model_config(
    folder: Path, info: Mapping[str, Any], senses: Sequence[str] | None = None
) -> tuple[ModelConfig, Base]:
    """What a model's ``config.json`` says. senses: of these only; others may be unknown here.

    Raises WeightsError, naming the file; for an unknown sense also the package that registers it.
    """
    place, listed = folder / CONFIG, senses_of(folder, info)
    if lacking := [s for s in senses or () if s not in listed]:
        raise WeightsError(
            f"{folder}: has no adapter for {', '.join(lacking)}; it has {', '.join(listed)}"
        )
    if not isinstance(info.get("base"), dict):
        raise WeightsError(f"{place}: does not say what base (llm, qformer) the model has")
    model = {**info["model"], "senses": [s for s in listed if senses is None or s in senses]}
    known = modality.names()
    for sense in model["senses"]:
        if sense not in known and sense.isidentifier():  # not a path to elsewhere
            read_info(place_of(folder, sense) / CONFIG, f"{place} lists this unknown sense")
    try:
        config: ModelConfig = from_dict(model, where=str(place), schema=ModelConfig)
        base: Base = from_dict(info["base"], where=f"{place}: base", schema=Base)
    except ConfigError as error:
        made = f"{place}: written by open-crema {info.get('open_crema')}"
        raise WeightsError(f"{made}, does not fit this version: {error}") from None
    return config, base


def senses_of(folder: Path, info: Mapping[str, Any]) -> list[str]:
    """The senses that a model's ``config.json`` lists; they may be unknown here."""
    place = folder / CONFIG
    if info.get("format") != FORMAT or not isinstance(info.get("model"), dict):
        raise WeightsError(
            f"{place}: not an Open CREMA model of format {FORMAT} (format: {info.get('format')!r})"
            f"{_OLD if info.get('format') == 1 else ''}"
        )
    listed = info["model"].get("senses")
    if not isinstance(listed, list) or not all(isinstance(s, str) for s in listed):
        raise WeightsError(f"{place}: model.senses is no list of senses")
    return listed


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], where: Path, *, partial: bool = False
) -> None:
    """Loads tensors; with partial, others of the module may be left as they are."""
    own = shapes_of(module)
    expected = {n: own[n] for n in tensors if n in own} if partial else own
    check_shapes({n: tuple(t.shape) for n, t in tensors.items()}, expected, where)
    module.load_state_dict(tensors, strict=False)

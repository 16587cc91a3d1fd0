"""Adapters taken out of a model's folder and put into another copy of the same base.

Every function writes a whole new folder beside the old one and renames it into place: a reader or
a killed process sees the model of before or that of after. All that is not the adapter stays as it
is, byte for byte, but for the list of senses in ``config.json`` and ``run.yaml``.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from open_crema.config import ModelConfig
from open_crema.errors import WeightsError, did_you_mean
from open_crema.model import card, hub
from open_crema.model.crema import Crema
from open_crema.model.facts import AdapterInfo, read_info, read_small_json
from open_crema.model.files import (
    ADAPTER,
    CONFIG,
    FUSION,
    HINT,
    RUN,
    check_replaceable,
    describe,
    place_of,
    put,
    read_adapter,
    read_model,
    senses_of,
)
from open_crema.model.fit import Described, check_fits, fusion_kind, notes
from open_crema.model.fusion_kinds import Kind
from open_crema.model.tensors import fingerprint, shapes_in
from open_crema.storage import replacing, write_json, write_tensors

_NO_ADAPTER = "an adapter's folder has one; is this an adapter?"


@dataclass(frozen=True)
class Listed:
    """One adapter of a saved model. parameters: of its file, fusion block included. notes: in what
    company it was trained, where that is not the model's."""

    info: AdapterInfo
    parameters: int
    bytes: int
    notes: tuple[str, ...]


def list_adapters(model: str | Path) -> list[Listed]:
    """The adapters of a saved model, in canonical order; their tensors are not read.

    Raises WeightsError, naming the file, for whatever is missing or damaged.
    """
    folder = Path(model)
    said = read_model(folder)
    found = []
    for sense, info in said.adapters.items():
        path = place_of(folder, sense) / ADAPTER
        shapes = shapes_in(path)
        parameters = sum(math.prod(s) for n, s in shapes.items() if n != "fresh")
        found.append(Listed(info, parameters, path.stat().st_size, tuple(notes(info, said))))
    return found


def add_adapter(
    model: Crema | str | Path,
    adapter: str | Path,
    *,
    out: str | Path | None = None,
    force: bool = False,
    replace: bool = False,
    revision: str | None = None,
) -> list[str]:
    """Adds an adapter (a folder, or a hub repository at a revision) to a live model, or to a saved
    one: in its folder, or as a new model in ``out``. Nothing else of the model moves.

    force: although its fusion bias or its primary sense are not those that it was trained with.
    replace: in the place of the one of that sense that the model has.

    Returns what to know about it: beside whom else it was trained. Raises WeightsError that says
    what does not fit and what to do.
    """
    place = hub.local(adapter, revision)
    info = read_info(place / CONFIG, _NO_ADAPTER)
    if isinstance(model, Crema):
        if out is not None or replace:
            raise ValueError("out and replace are for saved models")
        said = _projecting(describe(model), info)
        remarks = check_fits(info, str(place), said, force=force)
        tensors = read_adapter(place, info, said)
        model.add_sense(info.sense, info.encoder.width, projected=info.shape.projected)
        put(model, info, tensors, place)
        return remarks
    folder = Path(model)
    said = _projecting(_without(read_model(folder), info.sense if replace else None), info)
    remarks = check_fits(info, str(place), said, force=force)
    read_adapter(place, info, said)
    with _edited(folder, out) as new:
        own = place_of(new, info.sense)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        for name in (ADAPTER, CONFIG):
            shutil.copyfile(place / name, own / name)  # the content of a link, never the link
        base = said.base.fusion
        if base is None and said.adapters and (kind := _kind(said)) is not None:
            write_tensors(new / FUSION, kind.zeros())
            base = fingerprint(kind.zeros())
        sense = info.sense
        _rewrite(new, lambda own: [*(s for s in own if s != sense), sense], base, said.config)
    return remarks


def remove_adapter(model: str | Path, sense: str, *, out: str | Path | None = None) -> list[str]:
    """Takes an adapter out of a saved model: in its folder, or as a new model in ``out``. What
    remains answers as if the sense had never been there.

    Returns what to know about those that remain. Raises WeightsError for a sense that the model
    does not have, and for its only one.
    """
    folder = Path(model)
    senses = _senses(folder)
    _check_there(folder, sense, senses)
    if len(senses) == 1:
        raise WeightsError(f"{folder}: {sense!r} is its only sense; a model has at least one")
    said = read_model(folder, [s for s in senses if s != sense])
    remarks = [
        f"{other} was trained beside the primary sense {sense!r}; {said.senses[0]!r} leads now"
        for other, info in said.adapters.items()
        if info.primary == sense
    ]
    with _edited(folder, out) as new:
        shutil.rmtree(place_of(new, sense))
        base = said.base.fusion
        kind = None if said.attached or len(said.adapters) > 1 else _kind(said)
        if kind is not None and base == fingerprint(kind.zeros()):
            (new / FUSION).unlink(missing_ok=True)  # the next assistant brings it again
            base = None
        left = said.config.projecting(sense, False)
        _rewrite(new, lambda senses: [s for s in senses if s != sense], base, left)
    return remarks


def export_adapter(model: str | Path, sense: str, out: str | Path) -> Path:
    """Writes an adapter as a folder that stands alone: its two files and a card, ``README.md``.

    Raises WeightsError for a sense that the model does not have, a damaged adapter, and a folder
    that holds other things than an adapter of that sense.
    """
    folder, out = Path(model), Path(out)
    _check_there(folder, sense, _senses(folder))
    said = read_model(folder)
    source, info = place_of(folder, sense), said.adapters[sense]
    read_adapter(source, info, said)
    if out.exists() and not _is_adapter(out, sense):
        raise WeightsError(
            f"{out}: holds other things than an adapter for {sense!r}; choose another folder"
        )
    with replacing(out.absolute()) as new:
        for name in (ADAPTER, CONFIG):
            shutil.copyfile(source / name, new / name)
        text = card.of_adapter(info, said.config.llm)
        (new / "README.md").write_text(text, encoding="utf-8")
    return out


def _is_adapter(folder: Path, sense: str) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names <= {ADAPTER, CONFIG, "README.md"}:
        return False
    try:
        return not names or read_info(folder / CONFIG, "").sense == sense
    except WeightsError:
        return False


def _senses(folder: Path) -> list[str]:
    """As listed; the adapters themselves are not looked at, and may be of unknown senses."""
    return senses_of(folder, read_small_json(folder / CONFIG, HINT))


def _check_there(folder: Path, sense: str, senses: list[str]) -> None:
    if sense not in senses:
        hint = did_you_mean(sense, senses)
        raise WeightsError(
            f"{folder}: has no adapter for {sense!r}; {hint}it has {', '.join(senses)}"
        )


def _without(said: Described, sense: str | None) -> Described:
    others = {s: info for s, info in said.adapters.items() if s != sense}
    return replace(said, adapters=others)


def _projecting(said: Described, info: AdapterInfo) -> Described:
    """The model as it will be with that adapter, which brings its input projection."""
    return replace(said, config=said.config.projecting(info.sense, info.shape.projected))


def _kind(said: Described) -> Kind | None:
    return fusion_kind(said.config, next(iter(said.adapters.values())).shape.llm_width)


@contextmanager
def _edited(folder: Path, out: str | Path | None) -> Iterator[Path]:
    """A copy of a model's folder that takes its place, or that of ``out``, once it is complete."""
    folder = folder.resolve()
    target = folder if out is None else Path(out).resolve()
    if target != folder:
        if folder in target.parents:
            raise WeightsError(f"{target}: lies inside the model {folder}; choose another folder")
        check_replaceable(target)
    with replacing(target) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True)
        yield new


def _rewrite(
    folder: Path, change: Callable[[list[str]], list[str]], fusion: str | None, config: ModelConfig
) -> None:
    """Changes the list of senses in both configurations, which of them have an input projection
    (as this configuration says) and the base's fusion bias."""
    data = read_small_json(folder / CONFIG, "")
    data["base"]["fusion"] = fusion
    run = None
    if (folder / RUN).exists():
        run = yaml.safe_load((folder / RUN).read_text(encoding="utf-8"))
    for said in (data, run):
        if said is not None:
            model = said["model"]
            model["senses"] = change(model["senses"])
            if list(config.input_projection) != list(model.get("input_projection", [])):
                model["input_projection"] = list(config.input_projection)
    write_json(folder / CONFIG, data)
    if run is not None:
        (folder / RUN).write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")

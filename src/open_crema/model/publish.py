"""A model or an adapter, published on the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from open_crema.config import Config, DataConfig, load, to_yaml
from open_crema.errors import WeightsError
from open_crema.model import card, hub
from open_crema.model.crema import Crema
from open_crema.model.exchange import list_adapters
from open_crema.model.facts import read_info, read_small_json
from open_crema.model.files import (
    ADAPTER,
    CONFIG,
    FUSION,
    QFORMER,
    RUN,
    place_of,
    read_adapter,
    read_model,
    read_qformer,
    read_shared,
    save_pretrained,
)
from open_crema.model.tensors import fingerprint, read_checked, shapes_in


def push_to_hub(
    source: Crema | str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
    licence: str = "other",
) -> str:
    """Publishes a model (live or saved) or an exported adapter as ``user/name``; returns the
    commit's address.

    Only the known files go up, each checked before, with a card: ``README.md``. Paths of this
    computer are left out of ``run.yaml``. private, revision (a branch), token: as the hub's
    client has them; by default the token of ``hf auth login``. licence: of the card.

    Raises WeightsError where the source is damaged, or the hub cannot be reached or refuses.
    """
    if not re.fullmatch(r"[\w.+-]+", licence):
        raise WeightsError(f"licence {licence!r}: write an identifier, as in apache-2.0")
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / "staged"
        if isinstance(source, Crema):
            source = save_pretrained(source, Path(scratch) / "model")
        staged.mkdir()
        source = Path(source)
        if "sense" in read_small_json(source / CONFIG, "give a model's or an adapter's folder"):
            _stage_adapter(source, staged, repository, licence)
        else:
            _stage_model(source, staged, repository, licence)
        return hub.upload(
            staged,
            repository,
            private=private,
            revision=revision,
            message=message or "Upload by open-crema",
            token=token,
        )


def _stage_model(source: Path, staged: Path, repository: str, licence: str) -> None:
    said = read_model(source)
    files = [CONFIG, QFORMER]
    read_qformer(source / QFORMER, said)
    if said.base.fusion is not None:
        read_shared(source / FUSION, said)
        files.append(FUSION)
    for sense, info in said.adapters.items():
        place = place_of(source, sense)
        read_adapter(place, info, said)
        files += [str((place / name).relative_to(source)) for name in (ADAPTER, CONFIG)]
    for name in files:
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, staged / name)
    if (source / RUN).exists():
        (staged / RUN).write_text(to_yaml(_portable(load(source / RUN))), encoding="utf-8")
    parameters = {found.info.sense: found.parameters for found in list_adapters(source)}
    text = card.of_model(said, repository, parameters, licence)
    (staged / "README.md").write_text(text, encoding="utf-8")


def _portable(run: Config) -> Config:
    """Without the paths of the computer that it ran on."""
    none = DataConfig()
    data = replace(
        run.data,
        train=none.train,
        validation=none.validation,
        test=none.test,
        media_root=none.media_root,
        store=none.store,
    )
    train = replace(run.train, init=None, scope="all")
    return replace(run, out=Config().out, data=data, train=train)


def _stage_adapter(source: Path, staged: Path, repository: str, licence: str) -> None:
    info = read_info(source / CONFIG, "")
    path = source / ADAPTER
    tensors = read_checked(path, shapes_in(path))
    if fingerprint(tensors) != info.fingerprint:
        raise WeightsError(f"{path}: not the tensors of its config.json; export it again")
    for name in (ADAPTER, CONFIG):
        shutil.copyfile(source / name, staged / name)
    text = card.of_adapter(info, info.base.llm, repository=repository, licence=licence)
    (staged / "README.md").write_text(text, encoding="utf-8")

"""Published models and their adapters, not to be changed, and copies of them that may be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from copies import SENSES

import tiny
from open_crema.config import Config
from open_crema.model.exchange import (
    export_adapter,
    remove_adapter,
)
from open_crema.model.files import save_pretrained
from tiny import one_seeded_thread  # noqa: F401


@pytest.fixture(scope="module")
def llm():
    return tiny.backbone()


@pytest.fixture(scope="module")
def model(llm):
    return tiny.crema(*SENSES, llm=llm)


@pytest.fixture(scope="module")
def published(model, tmp_path_factory) -> Path:
    """A saved model and its exported adapters, not to be changed."""
    folder = tmp_path_factory.mktemp("published")
    save_pretrained(model, folder / "model", run=Config(model=model.config))
    for sense in SENSES:
        export_adapter(folder / "model", sense, folder / sense)
    return folder


@pytest.fixture
def saved(published, tmp_path) -> Path:
    return Path(shutil.copytree(published / "model", tmp_path / "model"))


@pytest.fixture
def audio(published, tmp_path) -> Path:
    return Path(shutil.copytree(published / "audio", tmp_path / "audio"))


@pytest.fixture
def base(saved) -> Path:
    """The model without its audio."""
    remove_adapter(saved, "audio")
    return saved

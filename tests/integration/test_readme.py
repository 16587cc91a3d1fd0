"""What the README says works: its own sense, and the files that it links to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from open_crema import modality
from open_crema.config import EncodersConfig
from open_crema.data.extract import Extractor
from open_crema.data.sample import Sample
from open_crema.features import Features
from open_crema.media import Limits

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modality, "_registry", dict(modality._registry))


@pytest.mark.usefixtures("registry")
def test_the_readmes_own_sense_goes_from_a_file_to_features(tmp_path: Path) -> None:
    (code,) = [block for block in blocks() if "@modality(" in block]
    assert len(code.splitlines()) < 40
    exec(compile(code, "README.md", "exec"), {})
    np.save(tmp_path / "walk.npy", np.random.default_rng(0).normal(size=(345, 6)))
    extractor = Extractor(["imu"], EncodersConfig(), frames=4, limits=Limits(), store=None)
    found = extractor.features(Sample("1", "?", {"imu": str(tmp_path / "walk.npy")}), "imu")
    assert isinstance(found, Features)
    assert found.tokens.shape == (3, 10, 18)
    assert found.times[-1].tolist() == [2.0, 3.0]


def test_no_figure_is_missing() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        assert "@@" not in page.read_text(encoding="utf-8"), page.name


def test_every_python_block_compiles() -> None:
    for block in blocks():
        compile(block, "README.md", "exec")


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("named", re.findall(r"(?:configs|examples|docs)/[\w./-]+\.\w+", README))
def test_named_files_exist(named: str) -> None:
    assert (ROOT / named).exists()

"""A model with a third party's sense, where the package that registers it is not installed."""

from __future__ import annotations

import json

import pytest
import torch

import tiny
from open_crema import modality
from open_crema.config import Config
from open_crema.errors import WeightsError
from open_crema.model.exchange import list_adapters, remove_adapter
from open_crema.model.files import from_pretrained, run_of, save_pretrained

PACKAGE = r"adapters.imu.config\.json: unknown sense 'imu'.*crema-imu==1\.2: pip install crema-imu$"


@pytest.fixture(scope="module")
def llm():
    return tiny.backbone()


@pytest.fixture
def saved(llm, tmp_path, monkeypatch):
    """Saved where the sense was known."""
    monkeypatch.setitem(tiny.WIDTHS, "imu", 6)
    with monkeypatch.context() as known:
        known.setattr(modality, "_registry", dict(modality._registry))
        known.setattr(modality, "package_of", lambda kind: "crema-imu==1.2")
        modality.register(modality.Modality("imu", "Motion", "vision", "nowhere:reader"))
        model = tiny.crema("video", "audio", "imu", llm=llm)
        return save_pretrained(model, tmp_path / "model", run=Config(model=model.config))


def test_the_package_is_named(saved, llm):
    for read in (run_of, list_adapters, lambda folder: from_pretrained(folder, backbone=llm)):
        with pytest.raises(WeightsError, match=PACKAGE):
            read(saved)


def test_the_other_senses_work(saved, llm):
    model = from_pretrained(saved, senses=["audio", "video"], backbone=llm)
    expected = tiny.crema("video", "audio", llm=llm)
    batch = tiny.batch(tiny.item(1, video=2, audio=3))
    assert model.senses == ["video", "audio"]
    assert model(batch).logits.shape == expected(batch).logits.shape
    with pytest.raises(WeightsError, match="no adapter for depth; it has video, audio, imu"):
        from_pretrained(saved, senses=["depth"], backbone=llm)


def test_it_can_be_taken_out(saved, llm):
    before = from_pretrained(saved, senses=["video", "audio"], backbone=llm)
    remove_adapter(saved, "imu")
    after = from_pretrained(saved, backbone=llm)
    batch = tiny.batch(tiny.item(1, video=2, audio=3))
    assert torch.equal(after(batch).logits, before(batch).logits)
    assert run_of(saved).model.senses == ("video", "audio")


def test_a_name_that_is_a_path_leads_nowhere(saved):
    said = json.loads((saved / "config.json").read_text())
    said["model"]["senses"] = ["video", "../../elsewhere"]
    (saved / "config.json").write_text(json.dumps(said))
    with pytest.raises(WeightsError, match=r"model.config\.json: .*unknown sense"):
        list_adapters(saved)

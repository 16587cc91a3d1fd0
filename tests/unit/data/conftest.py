"""Media and extractors whose encoders cost nothing."""

import os
import time

import pytest
from averages import Averages

from media_factory import write_audio, write_video
from open_crema.config import EncodersConfig
from open_crema.data import extract
from open_crema.data.extract import Extractor
from open_crema.data.store import FeatureStore
from open_crema.media import Limits


@pytest.fixture
def encoders(monkeypatch):
    """kind -> the encoder built for it; empty until one is needed."""
    built = {}

    def build(kind, config):
        assert kind.encoder not in built, "built twice"
        built[kind.encoder] = Averages(kind.encoder)
        return built[kind.encoder]

    monkeypatch.setattr(extract, "encoder_for", build)
    return built


@pytest.fixture
def media(tmp_path):
    """A video with sound, its soundless copy, a mute one; changed long ago."""
    write_video(tmp_path / "sound.mp4", sound="tone")
    write_video(tmp_path / "silent.mp4")
    write_video(tmp_path / "mute.mkv", sound="mute")
    write_audio(tmp_path / "own.wav")
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 100,) * 2)
    return tmp_path


@pytest.fixture
def make(tmp_path):
    def make(*senses, store=True, frames=4, limits=Limits()):  # noqa: B008
        return Extractor(
            senses,
            EncodersConfig(),
            frames=frames,
            limits=limits,
            store=FeatureStore(tmp_path / "store") if store else None,
        )

    return make

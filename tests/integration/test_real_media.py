"""Recordings from the wild through every sense that a video has. Skipped where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from open_crema import weights
from open_crema.config import EncodersConfig
from open_crema.data.extract import Extractor
from open_crema.data.sample import Sample
from open_crema.encoders import dinov2, yamnet
from open_crema.errors import SenseAbsent
from open_crema.features import Features
from open_crema.media import Limits

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "data" / "media"
VIDEOS = sorted(p for suffix in ("mp4", "mpg") for p in MEDIA.rglob(f"*.{suffix}"))
SOUNDS = sorted(p for suffix in ("wav", "ogg") for p in MEDIA.rglob(f"*.{suffix}"))[::40]
SENSES = ("video", "audio", "flow")

pytestmark = [
    pytest.mark.skipif(not VIDEOS, reason=f"no recordings at {MEDIA}"),
    pytest.mark.skipif(
        any(weights.state(name) != "ready" for name in (dinov2.NAME, yamnet.NAME)),
        reason="the frozen encoders are not in the cache; run `crema doctor --fetch`",
    ),
]


@pytest.fixture(scope="module")
def extractor():
    return Extractor(SENSES, EncodersConfig(), frames=2, limits=Limits(), store=None)


@pytest.mark.parametrize("path", VIDEOS, ids=lambda p: str(p.relative_to(MEDIA)))
def test_videos(extractor, path):
    sample = Sample(path.name, "what is it", {"video": str(path)})
    found = {sense: extractor.features(sample, sense) for sense in SENSES}
    for sense, width in (("video", 384), ("flow", 384)):
        features = found[sense]
        assert isinstance(features, Features), features
        assert features.tokens.shape[::2] == (2, width)
        assert features.tokens.float().std() > 0.1
        assert (features.times.diff(dim=1) > 0).all()
    sound = found["audio"]
    assert isinstance(sound, Features | SenseAbsent)
    if isinstance(sound, SenseAbsent):
        assert sound.reason
    else:
        assert sound.tokens.shape[2] == 1024
        assert sound.mask.any()


@pytest.mark.parametrize("path", SOUNDS, ids=lambda p: str(p.relative_to(MEDIA)))
def test_sounds(extractor, path):
    sound = extractor.features(Sample(path.name, "what is it", {"audio": str(path)}), "audio")
    assert isinstance(sound, Features), sound
    assert sound.tokens.shape[2] == 1024

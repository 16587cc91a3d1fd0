"""Every real clip at hand is read: other people's encoders make what ours do not."""

import time
from pathlib import Path

import av
import numpy as np
import pytest

from open_crema import media
from open_crema.errors import SenseAbsent

CLIPS = Path(__file__).resolve().parents[4] / "shared" / "data" / "media"
pytestmark = pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared folder of clips is absent")

VIDEOS = sorted(p for p in CLIPS.rglob("*") if p.suffix in (".mp4", ".mpg"))
SILENT = ("languagebind/video/0.mp4", "languagebind/video/1.mp4")


@pytest.mark.parametrize("path", VIDEOS, ids=lambda path: path.name)
def test_video(path):
    with av.open(str(path)) as container:
        stamps = np.array([frame.time for frame in container.decode(video=0)])
    info = media.probe(path)
    assert info.frames == len(stamps)
    assert info.seconds == pytest.approx(stamps[-1] - stamps[0] + np.diff(stamps).mean(), abs=1e-3)
    frames = media.read_frames(path, 8)
    assert frames.images.shape == (8, info.height, info.width, 3)
    assert frames.images[:, ::8, ::8].std(axis=(1, 2, 3)).min() > 10  # pictures, not grey
    first, second, gaps = media.read_frame_pairs(path, 8)
    np.testing.assert_array_equal(first.images, frames.images)
    assert (first.images != second.images).any(axis=(1, 2, 3)).all()
    np.testing.assert_allclose(gaps, 0.1, atol=0.03)
    if path.relative_to(CLIPS).as_posix() in SILENT:
        with pytest.raises(SenseAbsent, match="no sound track"):
            media.read_audio(path)
    else:
        audio = media.read_audio(path)
        assert len(audio.samples) / audio.rate == pytest.approx(info.seconds, abs=0.1)
        assert audio.start == pytest.approx(0, abs=0.05)


def test_thirty_seconds_are_read_in_well_under_five():
    path = CLIPS / "sevila_demo" / "demo1.mp4"
    begin = time.perf_counter()
    media.read_frames(path, 8)
    media.read_audio(path)
    media.read_frame_pairs(path, 8)
    assert time.perf_counter() - begin < 5  # about 0.5 s on two idle cores


def test_sounds():
    paths = sorted((CLIPS / "esc10_16k").rglob("*.ogg"))[::10] + sorted(CLIPS.rglob("*.wav"))
    assert len(paths) > 20
    for path in paths:
        audio = media.read_audio(path)
        assert len(audio.samples) / 16000 == pytest.approx(media.probe(path).seconds, abs=0.05)


def test_depth_and_colour():
    depth = media.read_depth(CLIPS / "rgbd_7scenes_tsdf", media.Clip(8, rate=30))
    assert depth.metres.shape == (8, 120, 160)
    assert 0.3 < np.nanmin(depth.metres) < np.nanmax(depth.metres) < 15
    assert np.isnan(depth.metres).any()
    colour = media.read_frames(CLIPS / "rgbd_7scenes_tsdf" / "frame-000000.color.jpg", 1)
    assert colour.images.shape == (1, 120, 160, 3)
    assert (
        media.read_depth(CLIPS / "languagebind" / "depth" / "0.png", media.Clip(1)).metres.shape[0]
        == 1
    )

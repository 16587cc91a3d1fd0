"""Senses with a file of their own beside the video: one time line, one view, one encoder."""

import numpy as np
import pytest
import torch
from averages import ask

from media_factory import grey_level, write_frames_folder, write_video
from open_crema.data.sample import Sample, Timing
from open_crema.errors import MediaError


@pytest.fixture
def media(tmp_path):
    """A video of 20 pictures at 10 a second, whose number is their brightness."""
    write_video(tmp_path / "v.mkv", picture=grey_level)
    return tmp_path


def level(features):
    """Of each segment, the number of the picture."""
    return ((features.tokens[:, 0, 0].float() * 255 - 16) / 8).round().int().tolist()


@pytest.mark.parametrize("sense", ["flow", "depth", "normal", "touch", "thermal"])
def test_a_segment_is_the_same_moment_in_every_sense(encoders, media, make, sense):
    write_frames_folder(media / "maps", frames=20, picture=grey_level)
    extractor = make("video", sense)
    sample = ask(media, video="v.mkv", **{sense: "maps"})
    video, maps = (extractor.features(sample, s) for s in ("video", sense))
    assert level(video) == level(maps) == [2, 7, 12, 17]
    assert torch.equal(video.times, maps.times)


def test_a_stated_rate_and_start_are_part_of_the_key(encoders, media, make):
    write_frames_folder(media / "maps", frames=10, picture=grey_level)
    extractor = make("thermal")

    def of(*timing):
        paths = {"video": str(media / "v.mkv"), "thermal": str(media / "maps")}
        stated = {"thermal": Timing(*timing)}
        return level(extractor.features(Sample("q", "?", paths, timing=stated), "thermal"))

    assert of(5.0) == [1, 3, 6, 8]  # midpoints 0.25 0.75 1.25 1.75
    assert of(5.0, 1.0) == [0, 0, 1, 3]
    assert of(10.0) == [2, 7, 9, 9]
    with pytest.raises(MediaError, match=r"sample 'q', thermal: .*maps: 10 maps.*20 pictures"):
        of()


@pytest.mark.parametrize("sense", ["flow", "depth", "normal"])
def test_maps_of_another_shape_than_the_view_they_show(encoders, media, make, sense):
    write_frames_folder(media / "maps", frames=20, width=48)
    extractor = make(sense, "thermal")
    with pytest.raises(MediaError, match=r"48 x 48 pixels, while the video .* 64 x 48"):
        extractor.features(ask(media, video="v.mkv", **{sense: "maps"}), sense)
    extractor.features(ask(media, **{sense: "maps"}), sense)  # without a video there is no view
    extractor.features(ask(media, video="v.mkv", thermal="maps"), "thermal")  # has its own view


def test_features_made_before_pass_the_encoder_over(encoders, media, make):
    features = np.arange(4 * 2 * 3, dtype=np.float32).reshape(4, 2, 3)
    np.savez(media / "f.npz", features=features, encoder="averages")
    for sense in ("video", "depth", "thermal", "audio", "point"):
        times = {"times": np.arange(4.0)} if sense == "audio" else {}
        given = features[:1] if sense == "point" else features
        np.savez(media / "f.npz", features=given, encoder="averages", **times)
        found = make(sense, store=False).features(ask(media, **{sense: "f.npz"}), sense)
        assert found.tokens.float().tolist() == given.tolist()
        assert found.tokens.dtype == torch.bfloat16
        assert [encoder.calls for encoder in encoders.values()] == [0]
        encoders.clear()


def test_features_of_another_encoder_or_width(encoders, media, make):
    np.savez(media / "f.npz", features=np.ones((4, 2, 384), np.float32))
    extractor = make("depth")
    with pytest.raises(MediaError, match=r"f\.npz: its features are 384 wide, .*'averages' 3"):
        extractor.features(ask(media, depth="f.npz"), "depth")
    np.savez(media / "f.npz", features=np.ones((4, 2, 3), np.float32), encoder="eva-vit-g")
    with pytest.raises(MediaError, match="of encoder 'eva-vit-g', this sense has 'averages'"):
        extractor.features(ask(media, depth="f.npz"), "depth")


def test_time_stamps_that_are_written_later_are_seen(encoders, media, make):
    folder = write_frames_folder(media / "maps", frames=20, picture=grey_level)
    extractor = make("thermal")
    sample = ask(media, video="v.mkv", thermal="maps")
    assert level(extractor.features(sample, "thermal")) == [2, 7, 12, 17]
    stamps = "\n".join(str(i / 20) for i in range(20))
    (folder / "timestamps.txt").write_text(stamps)
    encoders.clear()
    found = make("thermal").features(sample, "thermal")
    assert level(found) == [5, 15, 19, 19]  # midpoints 0.25 0.75 1.25 1.75

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import media_factory
from open_crema.data.sample import Timing
from open_crema.errors import ConfigError, MediaError
from open_crema.harness.visuals import media_of
from open_crema.media import Clip, read_audio, read_pictures

TONE = np.sin(np.arange(8000) * 0.3).astype(np.float32) / 2


def picture(level=90):
    return Image.fromarray(np.full((20, 30, 3), level, np.uint8))


def test_paths_are_taken_for_what_they_are(tmp_path):
    found = media_of(["a/clip.mp4", "b/sound.WAV"], tmp_path / "made").media
    assert found == {"video": "a/clip.mp4", "audio": "b/sound.WAV"}
    assert media_of(["frames"], tmp_path / "made").media == {"video": "frames"}
    typed = [{"type": "audio", "url": "a.mp4"}, {"type": "video", "path": "b.mp4"}]
    assert media_of(typed, tmp_path / "made").media == {"audio": "a.mp4", "video": "b.mp4"}
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("visuals", [None, [], [[]], [None]])
def test_a_text_has_no_media(visuals, tmp_path):
    assert media_of(visuals, tmp_path).media == {}


def test_a_senses_own_file_comes_with_its_timing(tmp_path):
    own = [
        {"sense": "thermal", "path": "warm", "rate": 25.0, "start": 0.5},
        {"sense": "video", "path": "a.mp4", "rate": 0.0, "start": 0.0},
    ]
    found = media_of([own], tmp_path)
    assert found.media == {"thermal": "warm", "video": "a.mp4"}
    assert found.timing == {"thermal": Timing(25.0, 0.5)}
    with pytest.raises(ConfigError, match="termal"):
        media_of([{"sense": "termal", "path": "warm"}], tmp_path)


@pytest.mark.parametrize(
    "visual",
    [
        {"array": TONE, "sampling_rate": 16000},
        {"array": TONE.tolist(), "sampling_rate": np.int64(16000)},
        {"array": np.stack([TONE, TONE]), "sampling_rate": 16000},
        SimpleNamespace(
            get_all_samples=lambda: SimpleNamespace(data=TONE[:, None], sample_rate=16000)
        ),
    ],
    ids=["array", "list", "stereo", "decoder"],
)
def test_a_sound_is_read_back_as_it_was(visual, tmp_path):
    found = media_of([visual], tmp_path / "made").media
    read = read_audio(found["audio"])
    assert read.rate == 16000
    np.testing.assert_allclose(read.samples, TONE, atol=1e-4)


def test_a_sound_that_is_too_loud_is_scaled(tmp_path):
    found = media_of({"array": 6 * TONE, "sampling_rate": 16000}, tmp_path).media
    np.testing.assert_allclose(read_audio(found["audio"]).samples, 2 * TONE, atol=1e-3)


@pytest.mark.parametrize(
    ("visual", "says"),
    [
        ({"array": TONE}, "sampling rate None"),
        ({"array": TONE, "sampling_rate": 0}, "sampling rate 0"),
        ({"array": [], "sampling_rate": 16000}, r"shape \[0\]"),
        ({"array": [0.0, np.nan], "sampling_rate": 16000}, "finite"),
        ({"array": np.zeros((2, 2, 2)), "sampling_rate": 16000}, r"shape \[2, 2, 2\]"),
        (7, "a visual that is int"),
        ({"type": "video"}, "a visual that is NoneType"),
        ({"url": "a.mp4", "video_start": 3}, "video_start"),
        (["a.mp4", "b.mp4"], "two files of video, a.mp4 and b.mp4"),
        (["a.mp4", picture()], "two files of video"),
        ([picture(), "b.png"], "one kind"),
    ],
)
def test_what_cannot_be_shown_is_refused(visual, says, tmp_path):
    with pytest.raises(MediaError, match=says):
        media_of(visual, tmp_path / "made")


def test_a_picture_is_the_video(tmp_path):
    assert media_of(["a/still.JPG"], tmp_path).media == {"video": "a/still.JPG"}
    found = media_of([picture().convert("L")], tmp_path / "one").media
    assert read_pictures(found["video"], Clip(frames=1)).images.shape == (1, 20, 30, 3)


def test_several_pictures_are_a_sequence_in_their_order(tmp_path):
    levels = [200, 40, 120]
    found = media_of([picture(level) for level in levels], tmp_path / "made").media
    read = read_pictures(found["video"], Clip(frames=3))
    assert [round(float(image.mean())) for image in read.images] == levels


def test_several_picture_files_are_a_sequence_in_their_order(tmp_path):
    paths = []
    for name, level in (("z", 200), ("a", 40)):
        paths.append(str(tmp_path / f"{name}.png"))
        picture(level).save(paths[-1])
    found = media_of(paths, tmp_path / "made").media
    read = read_pictures(found["video"], Clip(frames=2))
    assert [round(float(image.mean())) for image in read.images] == [200, 40]


def test_video_and_sound_may_be_given_apart(tmp_path):
    clip = str(media_factory.write_video(tmp_path / "clip.mp4"))
    found = media_of([clip, {"array": TONE, "sampling_rate": 16000}], tmp_path / "made").media
    assert found["video"] == clip
    assert found["audio"] == str(tmp_path / "made" / "sound.wav")

"""read_frames, read_frame_pairs and probe on videos, images and folders made on the spot."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from media_factory import (
    frame_number,
    grey_level,
    moving_square,
    rotate_mp4,
    write_audio,
    write_frames_folder,
    write_video,
)
from open_crema import media
from open_crema.errors import MediaError, SenseAbsent
from open_crema.media import timeline, video

VIDEOS = [".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".ts"]


def numbers(frames):
    return [frame_number(image) for image in frames.images]


@pytest.mark.parametrize("suffix", VIDEOS)
def test_takes_the_frames_at_the_midpoints_of_equal_intervals(tmp_path, suffix):
    path = write_video(tmp_path / f"v{suffix}", frames=28, fps=25, picture=grey_level)
    frames = media.read_frames(path, 7)
    assert frames.images.shape == (7, 48, 64, 3)
    assert frames.images.dtype == np.uint8
    assert numbers(frames) == [2, 6, 10, 14, 18, 22, 26]
    edges = np.linspace(0, 28 / 25, 8)
    np.testing.assert_allclose(frames.times, np.stack([edges[:-1], edges[1:]], 1), atol=2e-3)


@pytest.mark.parametrize("suffix", VIDEOS[:-1])  # FFmpeg cannot recognise so short an MPEG-TS
@pytest.mark.parametrize("n", [1, 3])
def test_a_source_with_fewer_frames_gives_all_of_them(tmp_path, suffix, n):
    path = write_video(tmp_path / f"v{suffix}", frames=n, fps=25, picture=grey_level)
    frames = media.read_frames(path, 8)
    assert numbers(frames) == list(range(n))
    assert frames.times.shape == (n, 2)
    assert frames.times[0, 0] == 0
    np.testing.assert_allclose(np.diff(frames.times, axis=1), 0.04, atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_one_frame_of_many(tmp_path, suffix):
    path = write_video(tmp_path / f"v{suffix}", frames=9, picture=grey_level)
    assert numbers(media.read_frames(path, 1)) == [4]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_variable_frame_rate_is_read_by_the_clock_not_by_counting(tmp_path, suffix):
    # Ten frames within the first second, then one picture that stands until 8 s.
    times = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 8.0]
    path = write_video(
        tmp_path / f"v{suffix}",
        frames=11,
        times=times,
        picture=grey_level,
        codec_options={"g": "4"},
    )
    assert numbers(media.read_frames(path, 4)) == [9, 9, 9, 9]
    assert numbers(media.read_frames(path, 10))[0] == 4  # on the screen at 0.4 s
    assert numbers(media.read_frames(path, 11)) == list(range(11))
    np.testing.assert_allclose(media.read_frames(path, 99).times[9], [1.0, 8.0], atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_jumping_between_key_frames_is_exact_and_saves_decoding(tmp_path, suffix, monkeypatch):
    path = write_video(tmp_path / f"v{suffix}", frames=200, codec_options={"g": "10", "bf": "2"})
    with av.open(str(path)) as container:
        truth = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    count = {"decoded": 0}
    real = video.decoded

    def counting(*args):
        for frame in real(*args):
            count["decoded"] += 1
            yield frame

    monkeypatch.setattr(video, "decoded", counting)
    frames = media.read_frames(path, 5)
    np.testing.assert_array_equal(frames.images, truth[20:200:40])
    assert count["decoded"] < 60


def test_a_wrong_frame_table_falls_back_to_decoding(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", frames=20, picture=grey_level)
    real = video._index_by_packets

    def shifted(*args):
        index = real(*args)
        return video.Index(index.starts, index.end, [k + 1 for k in index.keys], by_time=True)

    monkeypatch.setattr(video, "_index_by_packets", shifted)
    assert numbers(media.read_frames(path, 5)) == [2, 6, 10, 14, 18]


def test_live_webm_without_a_duration(tmp_path):
    path = write_video(
        tmp_path / "v.webm", picture=grey_level, container_options={"live": "1"}, sound="tone"
    )
    with av.open(str(path)) as container:
        assert container.duration is None
    frames = media.read_frames(path, 4)
    assert numbers(frames) == [2, 7, 12, 17]
    assert frames.times[-1, 1] == pytest.approx(2.0, abs=2e-3)
    assert media.probe(path).seconds == pytest.approx(2.0, abs=2e-3)


def test_rotation_metadata_is_applied(tmp_path):
    def corner(number, width, height):
        image = np.zeros((height, width, 3), np.uint8)
        image[: height // 2, : width // 2] = 255  # top left
        return image

    path = rotate_mp4(write_video(tmp_path / "v.mp4", picture=corner))
    image = media.read_frames(path, 1).images[0]
    assert image.shape == (64, 48, 3)
    assert image[:28, 28:].min() > 200  # turned clockwise: top right
    assert image[36:].max() < 50
    assert (media.probe(path).width, media.probe(path).height) == (48, 64)


def test_colours_are_rgb_and_odd_sizes_are_not_sheared(tmp_path):
    def stripes(number, width, height):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, : width // 2, 0] = 255
        image[:, width // 2 :, 2] = 255
        return image

    path = write_video(tmp_path / "v.mkv", picture=stripes, width=67, height=45, pix_fmt="yuv444p")
    image = media.read_frames(path, 1).images[0].astype(int)
    assert image.shape == (45, 67, 3)
    assert (image[:, :30, 0] > 200).all()
    assert (image[:, :30, 2] < 60).all()
    assert (image[:, 36:, 2] > 200).all()


def test_animated_gif_is_a_video(tmp_path):
    pictures = [Image.fromarray(grey_level(i, 32, 32)) for i in range(4)]
    path = tmp_path / "v.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 100, 100, 700])
    assert numbers(media.read_frames(path, 2)) == [2, 3]
    assert media.probe(path).kind == "video"


def test_deep_greyscale_video_is_not_taken_for_pictures(tmp_path):
    path = write_video(
        tmp_path / "depth.mkv",
        picture=lambda n, w, h: np.full((h, w), 3000, np.uint16),
        codec="ffv1",
        pix_fmt="gray16le",
    )
    with pytest.raises(MediaError, match=r"looks like depth maps.*read_depth"):
        media.read_frames(path, 2)


# --- images and folders ------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm"])
def test_one_image_is_one_frame(tmp_path, suffix):
    path = tmp_path / f"i{suffix}"
    Image.fromarray(moving_square(3, 33, 21)).save(path)
    frames = media.read_frames(path, 8)
    assert frames.images.shape == (1, 21, 33, 3)
    assert frames.times.tolist() == [[0.0, 1.0]]
    assert media.probe(path) == media.MediaInfo("image", None, 33, 21, False, 1)


def test_folder_in_natural_order(tmp_path):
    folder = write_frames_folder(tmp_path / "f", frames=12, picture=grey_level)
    (folder / ".hidden.jpg").write_bytes(b"junk of another program")
    (folder / "notes.txt").write_text("not an image")
    assert numbers(media.read_frames(folder, 20)) == list(range(12))
    assert numbers(media.read_frames(folder, 3)) == [2, 6, 10]
    assert media.read_frames(folder, 3, folder_fps=4).times[-1].tolist() == [2.0, 3.0]
    assert media.probe(folder) == media.MediaInfo("folder", None, 64, 48, False, 12)


def test_exif_orientation_is_applied(tmp_path):
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:10, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(picture).save(tmp_path / "i.jpg", exif=exif, quality=95)
    image = media.read_frames(tmp_path / "i.jpg", 1).images[0]
    assert image.shape == (40, 20, 3)
    assert image[:18, 12:].min() > 200


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1"])
def test_every_image_mode_becomes_rgb_without_alpha(tmp_path, mode):
    image = Image.new("RGBA", (8, 6), (255, 255, 255, 0)).convert(mode)
    image.save(tmp_path / "i.png")
    images = media.read_frames(tmp_path / "i.png", 1).images
    assert images.shape == (1, 6, 8, 3)
    assert (images == 255).all()  # alpha dropped, not blended with black


def test_images_of_different_sizes_are_refused(tmp_path):
    folder = write_frames_folder(tmp_path / "f", frames=3)
    Image.new("RGB", (10, 20)).save(folder / "frame9.png")
    with pytest.raises(MediaError, match=r"frame9\.png: this image is 10 x 20.*64 x 48"):
        media.read_frames(folder, 4)


# --- pairs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mpg"])
def test_pairs_are_the_frames_and_the_ones_a_gap_later(tmp_path, suffix):
    path = write_video(tmp_path / f"v{suffix}", frames=28, fps=25, picture=grey_level)
    first, second, gaps = media.read_frame_pairs(path, 7, gap=0.12)
    assert numbers(first) == [2, 6, 10, 14, 18, 22, 26]
    assert numbers(second) == [5, 9, 13, 17, 21, 25, 27]
    np.testing.assert_allclose(gaps, [0.12] * 6 + [0.04], atol=2e-3)
    np.testing.assert_array_equal(first.times, media.read_frames(path, 7).times)
    np.testing.assert_array_equal(first.times, second.times)


def test_the_last_frame_is_paired_with_an_earlier_one_in_order(tmp_path):
    path = write_video(tmp_path / "v.mp4", frames=3, fps=10, picture=grey_level)
    first, second, gaps = media.read_frame_pairs(path, 3, gap=0.1)
    assert (numbers(first), numbers(second)) == ([0, 1, 1], [1, 2, 2])
    np.testing.assert_allclose(gaps, 0.1)


def test_pairs_of_a_slow_source_are_neighbours_with_their_true_gap(tmp_path):
    folder = write_frames_folder(tmp_path / "f", frames=8, picture=grey_level)
    first, second, gaps = media.read_frame_pairs(folder, 4, gap=0.1, folder_fps=2)
    assert (numbers(first), numbers(second)) == ([1, 3, 5, 7 - 1], [2, 4, 6, 7])
    np.testing.assert_allclose(gaps, 0.5)


@pytest.mark.parametrize("name", ["v.mp4", "i.png"])
def test_a_single_picture_has_no_motion(tmp_path, name):
    path = tmp_path / name
    if name == "v.mp4":
        write_video(path, frames=1)
    else:
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(SenseAbsent, match="single picture") as caught:
        media.read_frame_pairs(path, 4)
    assert caught.value.sense == "flow"


def test_probe_of_video_and_sound(tmp_path):
    info = media.probe(write_video(tmp_path / "v.mp4", frames=20, fps=10, sound="mute"))
    assert (info.kind, info.width, info.height, info.has_audio) == ("video", 64, 48, True)
    assert info.frames == 20
    assert info.seconds == pytest.approx(2.0)
    assert not media.probe(write_video(tmp_path / "w.webm")).has_audio
    info = media.probe(write_audio(tmp_path / "a.flac", seconds=1.5))
    assert info == media.MediaInfo("audio", 1.5, None, None, True, None)


# --- the choice of frames ----------------------------------------------------------------------

_steps = st.lists(st.floats(0.001, 5.0), min_size=1, max_size=40)


@given(_steps, st.integers(1, 50))
def test_even_covers_the_duration_without_gaps(steps, count):
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    end = starts[-1] + steps[-1]
    indices, times = timeline.even(starts, end, count)
    assert len(indices) == len(times) == min(count, len(starts))
    assert (np.diff(indices) >= 0).all()
    assert times[0, 0] == 0
    assert times[-1, 1] == end
    np.testing.assert_array_equal(times[1:, 0], times[:-1, 1])
    middles = times.mean(axis=1)
    assert (starts[indices] <= middles + 1e-5).all()


@given(_steps, st.integers(1, 50), st.floats(0.01, 3.0))
def test_pairs_go_forward_and_hold_their_frame(steps, count, gap):
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    indices, _ = timeline.even(starts, starts[-1] + 1.0, count)
    first, second = timeline.pairs(starts, indices, gap)
    assert (first < second).all()
    assert ((first == indices) | (second == indices)).all()
    assert (second[first != indices] == len(starts) - 1).all()


def test_senseless_arguments(tmp_path):
    path = write_video(tmp_path / "v.mp4")
    folder = write_frames_folder(tmp_path / "f", frames=2)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        media.read_frames(path, 0)
    with pytest.raises(ValueError, match="gap must be above 0"):
        media.read_frame_pairs(path, 2, gap=0.0)
    with pytest.raises(ValueError, match="frames per second must be above 0"):
        media.read_frames(folder, 2, folder_fps=0.0)

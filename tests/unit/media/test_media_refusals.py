"""Files that cannot be used, or only in part: each says what is wrong, where, and what to do."""

import contextlib
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from media_factory import (
    frame_number,
    grey_level,
    truncate,
    write_audio,
    write_frames_folder,
    write_text,
    write_video,
)
from open_crema import media
from open_crema.errors import MediaError, SenseAbsent

READERS = [
    lambda path: media.read_frames(path, 4),
    lambda path: media.read_frame_pairs(path, 4),
    lambda path: media.probe(path),
    lambda path: media.read_audio(path),
]
EVERY_READER = pytest.mark.parametrize("read", READERS, ids=["frames", "pairs", "probe", "audio"])
PICTURES = pytest.mark.parametrize("read", READERS[:3], ids=["frames", "pairs", "probe"])


def refused(read, path, message):
    with pytest.raises(MediaError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@EVERY_READER
def test_missing(tmp_path, read):
    refused(read, tmp_path / "v.mp4", "no such file or folder")
    refused(read, str(tmp_path / "none" / "v.mp4"), "no such file or folder")


@EVERY_READER
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "a.wav", "i.png"])
def test_empty(tmp_path, read, name):
    (tmp_path / name).touch()
    refused(read, tmp_path / name, r"the file is empty \(0 bytes\): copy or download it again")


@EVERY_READER
@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.avi", "v.mpg", "a.mp3", "a.wav"])
def test_text_under_the_name_of_media(tmp_path, read, name):
    refused(read, write_text(tmp_path / name), "cannot be read as media.*not a media file")


@EVERY_READER
@pytest.mark.parametrize("name", ["notes.txt", "v", "v.mp4.part"])
def test_unsupported_extension(tmp_path, read, name):
    refused(read, write_text(tmp_path / name), r"unsupported extension .*give a video.*\.mp4")


@EVERY_READER
def test_mp4_without_its_index(tmp_path, read):
    path = truncate(write_video(tmp_path / "v.mp4", sound="tone"), 0.5)
    refused(read, path, "cannot be read as media.*was cut short.*download it again")


@PICTURES
@pytest.mark.parametrize("name", ["i.jpg", "i.png", "i.webp"])
def test_damaged_image(tmp_path, read, name):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    if read is not READERS[1]:  # a pair is refused before: one picture has no motion
        refused(read, truncate(tmp_path / name, 0.5), "the image is damaged or not an image")
        refused(read, write_text(tmp_path / name), "the image is damaged or not an image")


def test_damaged_image_in_a_folder_is_named(tmp_path):
    folder = write_frames_folder(tmp_path / "f", frames=3)
    write_text(folder / "frame2.png")
    with pytest.raises(MediaError, match=r"frame2\.png: the image is damaged"):
        media.read_frames(folder, 3)


@PICTURES
def test_folder_without_images(tmp_path, read):
    write_text(tmp_path / "notes.txt")
    refused(read, tmp_path, r"the folder holds no images \(\.bmp")


@EVERY_READER
def test_neither_file_nor_folder(tmp_path, read):
    path = tmp_path / "s.mp4"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        refused(read, path, "not a regular file")


@EVERY_READER
def test_impossible_names(read):
    refused(read, "x" * 5000 + ".mp4", "cannot be opened")
    with pytest.raises(MediaError, match="cannot be opened: embedded null"):
        read("a\0b.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@EVERY_READER
def test_no_permission(tmp_path, read):
    path = write_video(tmp_path / "v.mp4")
    path.chmod(0)
    refused(read, path, "cannot be opened: Permission denied")


@PICTURES
def test_an_array_is_no_picture(tmp_path, read):
    np.save(tmp_path / "d.npy", np.ones((2, 2)))
    refused(read, tmp_path / "d.npy", r"holds numbers, not pictures.*read_depth")


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mpg"])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (media.Limits(max_bytes=100), r"limit is 100 bytes.*Limits\.max_bytes"),
        (media.Limits(max_seconds=0.5), r"limit is 0\.5 seconds.*Limits\.max_seconds"),
        (media.Limits(max_pixels=3000), r"3000 pixels.*64 x 48.*Limits\.max_pixels"),
    ],
)
def test_video_over_a_limit(tmp_path, suffix, limits, message):
    path = write_video(tmp_path / f"v{suffix}", frames=25, fps=25)
    for read in (media.read_frames, media.read_frame_pairs):
        refused(lambda p, read=read: read(p, 2, limits=limits), path, message)
    refused(lambda p: media.probe(p, limits=limits), path, message)
    just = media.Limits(path.stat().st_size, 1.0, 64 * 48)
    assert len(media.read_frames(path, 2, limits=just).images) == 2


def test_image_over_a_limit(tmp_path):
    folder = write_frames_folder(tmp_path / "f", frames=2)
    for limits, message in [
        (media.Limits(max_bytes=100), "100 bytes"),
        (media.Limits(max_pixels=3000), "64 x 48 pixels"),
    ]:
        for path in (folder, folder / "frame1.png"):
            with pytest.raises(MediaError, match=rf"frame1\.png: too large.*{message}"):
                media.read_frames(path, 2, limits=limits)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns of the one, refuses the other
def test_a_small_image_file_of_a_huge_picture(tmp_path, side):
    path = tmp_path / "i.png"
    Image.new("RGB", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(MediaError, match="too large"):
        media.read_frames(path, 1)


# --- damage that leaves something --------------------------------------------------------------


def cut_video(tmp_path, suffix):
    """The first 60 % of the bytes of a video of 28 pictures."""

    def busy(number, width, height):  # noise spreads the bytes evenly over the frames
        noise = np.random.default_rng(number).integers(-14, 15, (height, width, 1))
        return (grey_level(number, width, height) + noise).astype(np.uint8)

    options = {"b": "4000000"}
    path = write_video(
        tmp_path / f"v{suffix}",
        frames=28,
        fps=25,
        width=160,
        height=120,
        picture=busy,
        codec_options=options,
    )
    return truncate(path, 0.6)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi"])
def test_a_video_that_holds_less_than_it_declares_is_refused(tmp_path, suffix):
    refused(READERS[0], cut_video(tmp_path, suffix), "it was cut short. Copy or download it again")


@pytest.mark.parametrize("suffix", [".mpg", ".ts"])
def test_a_video_that_declares_nothing_gives_what_it_holds(tmp_path, suffix):
    frames = media.read_frames(cut_video(tmp_path, suffix), 4)
    seen = [frame_number(image) for image in frames.images]
    assert len(seen) == 4
    assert seen == sorted(seen)
    assert 8 < seen[-1] < 22
    assert frames.times[-1, 1] < 25 / 25


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_sound_longer_than_its_video_is_no_sign_of_damage(tmp_path, suffix, caplog):
    sound = 0.3 * np.sin(np.arange(48000 * 4) / 20)
    path = write_video(tmp_path / f"v{suffix}", frames=20, fps=10, sound=sound)
    assert media.read_frames(path, 4).times[-1, 1] == pytest.approx(2.0, abs=0.01)
    assert not caplog.text


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi"])
def test_a_video_cut_before_its_first_frame(tmp_path, suffix):
    for keep in (0.01, 0.1, 0.2):
        path = truncate(write_video(tmp_path / f"v{suffix}", frames=5), keep)
        try:
            assert len(media.read_frames(path, 4).images) >= 1
        except MediaError as error:
            assert "cut short" in str(error)  # noqa: PT017 - either outcome, never another


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mpg"])
def test_random_damage_never_escapes_as_another_error(tmp_path, suffix, seed, capfd):
    path = write_video(tmp_path / f"v{suffix}", frames=28, fps=25, sound="tone")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(data), 60):
        data[at] = rng.integers(0, 256)
    path.write_bytes(data)
    for read in READERS:
        with contextlib.suppress(MediaError, SenseAbsent):
            read(path)
    assert capfd.readouterr() == ("", "")  # nor as noise of FFmpeg


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_sound_that_holds_less_than_it_declares_is_refused(tmp_path, suffix):
    path = truncate(write_audio(tmp_path / f"a{suffix}", seconds=2.0), 0.5)
    with pytest.raises(MediaError, match="it was cut short"):
        media.read_audio(path)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_a_sound_that_declares_nothing_gives_what_it_holds(tmp_path, suffix):
    path = truncate(write_audio(tmp_path / f"a{suffix}", seconds=2.0), 0.5)
    assert 8000 < len(media.read_audio(path).samples) < 24000


def test_a_playlist_opens_no_other_file(tmp_path):
    write_video(tmp_path / "secret.mp4")
    path = tmp_path / "v.mp4"
    for text in (
        "ffconcat version 1.0\nfile secret.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    ):
        path.write_text(text)
        refused(READERS[0], path, "cannot be read as media")


def test_names_that_look_like_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4", picture=grey_level).rename(tmp_path / "concat:v.mp4")
    assert len(media.read_frames("concat:v.mp4", 2).images) == 2

"""What the writers write, as the readers read it."""

import os
import resource
import string
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from open_crema.errors import MediaError
from open_crema.media import (
    PICTURES,
    Clip,
    MapKind,
    probe,
    read_audio,
    read_cloud,
    read_maps,
    read_pictures,
    write_cloud,
    write_image,
    write_maps,
    write_sound,
    write_video,
)

FLOATS = MapKind("floating", None, "numbers")
XYZ = np.array([[0, 1, 2.5], [-3, 4, 5]], np.float32)
RGB = np.array([[0, 128, 255], [1, 2, 3]], np.uint8)


def scene(count, height=48, width=64):
    """Bright squares of 4 to 8 pixels that walk over a mottled ground, on even rows and columns."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(60, 180, (height // 2, width // 2, 3)), np.ones((2, 2, 1)))
    frames = np.stack([ground] * count)
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]):
        side = 4 + 2 * (number % 3)
        for moment in range(count):
            left = (10 * number + 2 * moment) % (width - side)
            frames[moment, 10 * number : 10 * number + side, left : left + side] = colour
    return frames.astype(np.uint8)


def noise(count=64_000, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)


def packets(path):
    """Bytes, time and duration of every packet of pictures."""
    with av.open(str(path)) as container:
        return [
            (bytes(packet), packet.pts, packet.dts, packet.duration, packet.time_base)
            for packet in container.demux(video=0)
            if packet.size
        ]


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("seconds", [4.0, 1 / 3, 3.14159])
@pytest.mark.parametrize("sound", [None, noise(64_001), noise(1000)], ids=["none", "long", "short"])
def test_pictures_and_their_times(tmp_path, count, seconds, sound):
    path, frames = tmp_path / "v.mp4", scene(count)
    write_video(path, frames, seconds, sound)
    read = read_pictures(path, Clip(frames=count))
    assert read.images.shape == frames.shape
    edges = np.linspace(0, seconds, count + 1)
    np.testing.assert_allclose(read.times, np.stack([edges[:-1], edges[1:]], 1), atol=1e-4)
    info = probe(path)
    assert (info.frames, info.has_audio) == (count, sound is not None)
    assert info.seconds == pytest.approx(seconds, abs=1e-4)


def test_colours_are_near_to_what_was_drawn(tmp_path):
    frames = scene(8)
    write_video(tmp_path / "v.mp4", frames, 4.0)
    read = read_pictures(tmp_path / "v.mp4", Clip(frames=8)).images
    error = np.abs(read.astype(int) - frames)
    assert error.mean() < 1.5
    assert error.max() <= 12


@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
def test_grey_stays_grey(tmp_path, level):
    write_video(tmp_path / "v.mp4", np.full((1, 16, 16, 3), level, np.uint8), 1.0)
    read = read_pictures(tmp_path / "v.mp4", Clip(frames=1)).images
    assert np.ptp(read) == 0
    assert abs(int(read[0, 0, 0, 0]) - level) <= 1


@pytest.mark.parametrize("size", [(2, 2), (6, 10), (2, 100), (112, 112), (130, 34)])
def test_any_even_size(tmp_path, size):
    write_video(tmp_path / "v.mp4", np.full((2, *size, 3), 100, np.uint8), 1.0)
    assert read_pictures(tmp_path / "v.mp4", Clip(frames=2)).images.shape == (2, *size, 3)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("count", [1, 15, 4608, 4609, 63_999])
def test_sound_is_exact_to_16_bits(tmp_path, rate, count):
    sound = noise(count)
    write_video(tmp_path / "v.mp4", scene(3), 4.0, sound, rate)
    audio = read_audio(tmp_path / "v.mp4", rate=rate)
    assert (audio.start, audio.rate) == (0.0, rate)
    np.testing.assert_array_equal(audio.samples, np.rint(sound * 32768).clip(max=32767) / 32768)


def test_the_loudest_sound(tmp_path):
    sound = np.tile(np.array([1, -1, 0], np.float32), 1000)
    write_video(tmp_path / "v.mp4", scene(1), 1.0, sound)
    samples = read_audio(tmp_path / "v.mp4").samples
    np.testing.assert_array_equal(samples[:3], [32767 / 32768, -1, 0])
    np.testing.assert_allclose(samples, sound, atol=1 / 32768)


@pytest.mark.parametrize("count", [1, 8])
def test_sound_does_not_touch_the_pictures(tmp_path, count):
    sounds = [None, noise(), noise(seed=1), noise(100), np.zeros(64_000, np.float32)]
    read = []
    for number, sound in enumerate(sounds):
        path = tmp_path / f"{number}.mp4"
        write_video(path, scene(count), 4.0, sound)
        read.append((packets(path), read_pictures(path, Clip(frames=count)).images.tobytes()))
    assert len(read[0][0]) == count
    assert all(other == read[0] for other in read)


def write_all(folder):
    write_video(folder / "a.mp4", scene(8), 4.0, noise())
    write_video(folder / "b.mp4", scene(3), 4.0)
    write_cloud(folder / "c.ply", XYZ, RGB)
    write_maps(folder / "d.npz", depth=np.ones((4, 8, 8)), times=np.arange(4.0))
    write_image(folder / "e.png", scene(1)[0])
    write_sound(folder / "f.wav", noise(), 16_000)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_input_gives_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    first = write_all(tmp_path)
    assert len(first) == 6
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert write_all(tmp_path) == first
    with zipfile.ZipFile(tmp_path / "d.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not {"creation_time", "encoder"} & set(container.metadata)


points = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        hnp.arrays(
            "f4", (count, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
        ),
        hnp.arrays("u1", (count, 3)),
    )
)


@settings(max_examples=40)
@given(points)
def test_a_cloud_comes_back(cloud):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.ply")
        write_cloud(path, *cloud)
        read = read_cloud(path, Clip())
    np.testing.assert_array_equal(read.xyz, cloud[0])
    np.testing.assert_array_equal(read.rgb, cloud[1])


def test_a_cloud_that_is_a_view(tmp_path):
    write_cloud(tmp_path / "a.ply", np.asfortranarray(XYZ)[::-1], np.asfortranarray(RGB)[::-1])
    read = read_cloud(tmp_path / "a.ply", Clip())
    np.testing.assert_array_equal(read.xyz, XYZ[::-1])
    np.testing.assert_array_equal(read.rgb, RGB[::-1])


names = st.one_of(
    st.sampled_from(["path", "file", "allow_pickle", "arr_0"]),
    st.text(string.ascii_letters, min_size=1).filter(lambda name: name not in ("times", "rate")),
)
maps = hnp.arrays(
    "f4", st.tuples(*[st.integers(1, 6)] * 3), elements=st.floats(-1e9, 1e9, width=32)
) | hnp.arrays("u1", st.tuples(*[st.integers(1, 6)] * 3, st.just(3)))


@settings(max_examples=40)
@given(names, maps)
def test_maps_come_back(name, values):
    times = np.arange(len(values)) / 2.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.npz")
        write_maps(path, **{name: values, "times": times})
        read = read_maps(path, Clip(len(values)), name, (FLOATS, PICTURES))
    assert (read.name, read.values.dtype) == (name, values.dtype)
    np.testing.assert_array_equal(read.values, values)
    np.testing.assert_array_equal(read.times[:, 0], times)


def test_images_come_back(tmp_path):
    colour, mask = scene(1)[0][:, ::-1], scene(1)[0, :, :, 0]
    write_image(tmp_path / "a.png", colour)
    write_image(tmp_path / "b.png", mask)
    np.testing.assert_array_equal(read_pictures(tmp_path / "a.png", Clip()).images[0], colour)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), mask)


WRITERS = {
    "a.mp4": lambda path: write_video(path, scene(3), 1.0, noise(1000)),
    "a.ply": lambda path: write_cloud(path, XYZ, RGB),
    "a.npz": lambda path: write_maps(path, depth=np.ones((8, 8))),
    "a.png": lambda path: write_image(path, scene(1)[0]),
    "a.wav": lambda path: write_sound(path, noise(1000), 16_000),
}


def test_a_sound_comes_back_to_16_bits(tmp_path):
    sound = np.concatenate([noise(8000), np.float32([-1, 1])])
    write_sound(tmp_path / "a.wav", sound, 16_000)
    read = read_audio(tmp_path / "a.wav")
    assert read.rate == 16_000
    np.testing.assert_allclose(read.samples, sound, atol=1 / 32_768)
    with pytest.raises(ValueError, match="rate must be at least 1"):
        write_sound(tmp_path / "a.wav", sound, 0)
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        write_sound(tmp_path / "a.wav", 2 * sound, 16_000)


@contextmanager
def full_after(size):
    """No file can be longer than that many bytes: what is beyond fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")
    with full_after(50), pytest.raises(MediaError, match=f"{name}: cannot be written"):
        WRITERS[name](path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)
    assert path.read_bytes() != b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / name).mkdir()
    for path in (tmp_path / "missing" / name, tmp_path / "file" / name, tmp_path / name):
        with pytest.raises(MediaError, match=f"{path}: cannot be written"):
            WRITERS[name](path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", name}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MediaError, match="Permission denied"):
            write_image(tmp_path / "a.png", scene(1)[0])
    finally:
        tmp_path.chmod(0o700)


def test_what_cannot_be_encoded(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", fail)
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be encoded"):
        write_video(tmp_path / "a.mp4", scene(1), 1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: write_video(p / "a.mp4", scene(1)[:, 1:], 1.0), "must be even"),
        (lambda p: write_video(p / "a.mp4", scene(1)[:, :, 1:], 1.0), "must be even"),
        (lambda p: write_video(p / "a.mp4", scene(1)[0], 1.0), r"uint8 \[T, H, W, 3\]"),
        (lambda p: write_video(p / "a.mp4", scene(1)[:0], 1.0), r"uint8 \[T, H, W, 3\]"),
        (
            lambda p: write_video(p / "a.mp4", scene(1) / 255, 1.0),
            r"found float64 \[1, 48, 64, 3\]",
        ),
        (lambda p: write_video(p / "a.mp4", scene(1), 0.0), "seconds"),
        (lambda p: write_video(p / "a.mp4", scene(1), float("nan")), "seconds"),
        (lambda p: write_video(p / "a.mp4", scene(1), float("inf")), "seconds"),
        (lambda p: write_video(p / "a.mp4", scene(1), 1.0, noise(9), 0), "rate"),
        (lambda p: write_video(p / "a.mp4", scene(1), 1.0, noise(0)), "at least one sample"),
        (lambda p: write_video(p / "a.mp4", scene(1), 1.0, noise(9)[None]), r"float32 \[n\]"),
        (lambda p: write_video(p / "a.mp4", scene(1), 1.0, noise(9).astype("f8")), "float32"),
        (lambda p: write_video(p / "a.mp4", scene(1), 1.0, noise(9) * 2), r"in \[-1, 1\]"),
        (lambda p: write_video(p / "a.mp4", scene(1), 1.0, noise(9) * np.nan), r"in \[-1, 1\]"),
        (lambda p: write_video(p / "a.avi", scene(1), 1.0), r"must end in \.mp4"),
        (lambda p: write_cloud(p / "a.ply", XYZ.astype("f8"), RGB), "xyz must be float32"),
        (lambda p: write_cloud(p / "a.ply", XYZ[:0], RGB[:0]), "at least one point"),
        (lambda p: write_cloud(p / "a.ply", XYZ, RGB[:1]), r"rgb must be uint8 \[2, 3\]"),
        (lambda p: write_cloud(p / "a.ply", XYZ / 0, RGB), "finite"),
        (lambda p: write_maps(p / "a.npz"), "at least one array"),
        (lambda p: write_maps(p / "a.npz", a=np.array([None])), "Object arrays"),
        (lambda p: write_maps(p / "a", a=XYZ), r"must end in \.npz"),
        (lambda p: write_image(p / "a.png", XYZ), r"found float32 \[2, 3\]"),
        (lambda p: write_image(p / "a.png", scene(1)[0, :, :, :2]), r"found uint8 \[48, 64, 2\]"),
        (lambda p: write_image(p / "a.png", scene(1)), "image must be"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_media(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
    assert not list(tmp_path.iterdir())

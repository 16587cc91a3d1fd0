"""read_depth on 16-bit PNG files and arrays."""

import numpy as np
import pytest
from PIL import Image

from media_factory import truncate, write_depth_png, write_frames_folder, write_video
from open_crema import media
from open_crema.errors import MediaError
from open_crema.media import Clip

UNITS = np.array([[0, 500, 1000], [2500, 65534, 65535]])
METRES = np.array([[[np.nan, 0.5, 1.0], [2.5, 65.534, np.nan]]], np.float32)


def test_png_in_millimetres(tmp_path):
    depth = media.read_depth(write_depth_png(tmp_path / "d.png", UNITS), Clip(4))
    assert depth.metres.dtype == np.float32
    np.testing.assert_allclose(depth.metres, METRES)
    assert depth.times.tolist() == [[0.0, 1.0]]


def test_scale(tmp_path):
    depth = media.read_depth(write_depth_png(tmp_path / "d.png", UNITS), Clip(4), scale=1 / 5000)
    np.testing.assert_allclose(depth.metres, METRES / 5)


def test_folder_is_sampled_as_frames_are(tmp_path):
    for i in range(12):
        write_depth_png(tmp_path / f"frame{i + 1}.png", np.full((4, 5), 1000 * (i + 1)))
        Image.new("RGB", (5, 4)).save(tmp_path / f"frame{i + 1}.jpg")  # passed over
    depth = media.read_depth(tmp_path, Clip(3, rate=2))
    assert depth.metres.shape == (3, 4, 5)
    assert depth.metres[:, 0, 0].tolist() == [3, 7, 11]
    assert depth.times.tolist() == [[0, 2], [2, 4], [4, 6]]
    assert media.read_depth(tmp_path, Clip(99)).metres[:, 0, 0].tolist() == list(range(1, 13))
    with pytest.raises(MediaError, match=r"mixes images of several formats \(\.jpg \.png\)"):
        media.read_frames(tmp_path, 3)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_in_metres(tmp_path, suffix, dtype):
    path = tmp_path / f"d{suffix}"
    array = np.array([[[1.5, 0.0, -1.0]], [[np.inf, np.nan, 2.0]]], dtype)
    np.save(path, array) if suffix == ".npy" else np.savez(path, depth=array, poses=np.eye(4))
    depth = media.read_depth(path, Clip(4))
    assert depth.metres.dtype == np.float32
    nan = np.nan
    np.testing.assert_array_equal(depth.metres, [[[1.5, nan, nan]], [[nan, nan, 2.0]]])
    assert media.read_depth(path, Clip(1)).metres.shape == (1, 1, 3)


def test_one_map_as_a_flat_array(tmp_path):
    np.savez(tmp_path / "d.npz", np.ones((3, 2)))
    assert media.read_depth(tmp_path / "d.npz", Clip(5)).metres.shape == (1, 3, 2)


def test_a_16_bit_png_is_no_picture(tmp_path):
    path = write_depth_png(tmp_path / "d.png", UNITS)
    for read in (lambda: media.read_frames(path, 1), lambda: media.probe(path)):
        with pytest.raises(MediaError, match=r"d\.png.*looks like a depth map.*16-bit PNG in mill"):
            read()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: write_frames_folder(p / "f", frames=1), "16-bit greyscale PNG, found mode RGB"),
        (lambda p: write_frames_folder(p / "f", frames=1, suffix=".jpg"), "no images"),
        (lambda p: write_video(p / "v.mp4"), "hold no metric depth"),
        (lambda p: truncate(write_depth_png(p / "d.png", UNITS), 0.5), "damaged"),
        (
            lambda p: save(p, np.ones((2, 3), np.uint16)),
            "in metres as floats.*uint16: divide by the units per metre",
        ),
        (
            lambda p: save(p, np.array([[0, 900.0], [1500, np.inf]], np.float32)),
            "half of its depths are 1200 m or more.*another unit: divide by the units per metre",
        ),
        (lambda p: save(p, np.ones(3)), r"found shape \(3,\)"),
        (lambda p: save(p, np.ones((0, 2, 3))), r"found shape \(0, 2, 3\)"),
        (lambda p: save(p, np.array([{}], dtype=object)), "not a readable NumPy file"),
        (lambda p: truncate(save(p, np.ones((9, 9))), 0.5), "not a readable NumPy file"),
        (lambda p: save_sparse(p, (1, 9000, 9000)), "9000 x 9000 pixels"),
        (lambda p: savez(p, a=np.ones((2, 2)), b=np.ones((2, 2))), "holds a, b: name the array"),
        (lambda p: truncate(savez(p, a=np.ones((2, 2))), 0.5), "not a readable NumPy file"),
        (lambda p: scratch(savez(p, a=np.arange(900.0))), "not a readable NumPy file"),
    ],
)
def test_refusals(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(MediaError, match=message) as caught:
        media.read_depth(path, Clip(2))
    assert str(path) in str(caught.value)


def test_a_small_archive_that_unpacks_to_a_huge_array(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", np.zeros((1000, 1000)))
    assert (tmp_path / "d.npz").stat().st_size < 20_000
    with pytest.raises(MediaError, match="too large: the limit is 100000 bytes"):
        media.read_depth(tmp_path / "d.npz", Clip(1, media.Limits(max_bytes=100_000)))


@pytest.mark.parametrize("name", ["d.npy", "d.npz"])
def test_damage_in_any_byte_is_a_media_error_or_harmless(tmp_path, name):
    path = tmp_path / name
    depth = np.ones((1, 2, 2), np.float32)
    np.save(path, depth) if name == "d.npy" else np.savez_compressed(path, depth=depth)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        for value in (0x00, 0xFF, whole[at] ^ 0x01, ord("(")):
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                media.read_depth(path, Clip(1))
            except MediaError:
                refused += 1
    assert refused > len(whole)


def save(folder, array):
    np.save(folder / "d.npy", array, allow_pickle=True)
    return folder / "d.npy"


def savez(folder, **arrays):
    np.savez_compressed(folder / "d.npz", **arrays)
    return folder / "d.npz"


def save_sparse(folder, shape):
    np.lib.format.open_memmap(folder / "d.npy", mode="w+", dtype=np.float16, shape=shape)
    return folder / "d.npy"


def scratch(path):
    """Damages the middle of a file and keeps its length."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 - 40 : len(data) // 2 + 40] = bytes(80)
    path.write_bytes(data)
    return path

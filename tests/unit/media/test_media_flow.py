"""Flow files: units, counts, and the .flo format."""

import struct

import numpy as np
import pytest

from media_factory import truncate
from open_crema import media
from open_crema.errors import MediaError
from open_crema.media import Clip, Limits, TimeLine

VIDEO = TimeLine(np.array([0.0, 0.1, 0.3]), 0.4, 8, 6, "video.mp4")


def write_flo(path, flow):
    height, width = flow.shape[:2]
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + flow.astype("<f4").tobytes())
    return path


def pixels(*x):
    """A map [6, 8, 2] for each x: so many pixels to the right, and half of them down."""
    return np.stack([np.full((6, 8, 2), (v, v / 2), np.float32) for v in x])


def speeds(found):
    return found.velocity[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("count", [2, 3])
def test_pixels_between_pictures_become_widths_a_second(tmp_path, count):
    """Of n pictures there are n - 1 or n maps; the pictures are 0.1, 0.2 and 0.1 s apart."""
    for i, flow in enumerate(pixels(0.8, 1.6, 2.4)[:count]):
        write_flo(tmp_path / f"{i}.flo", flow)
    found = media.read_flow(tmp_path, Clip(8, video=VIDEO))
    assert found.velocity.shape == (3, 6, 8, 2)
    assert speeds(found) == pytest.approx([1, 1, 3 if count == 3 else 1])
    assert found.velocity[0, 0, 0].tolist() == pytest.approx([1, 0.5])
    assert found.times.tolist() == [[0, 0.1], [0.1, 0.3], [0.3, 0.4]]


def test_arrays_in_pixels_and_in_widths_a_second(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, flow=pixels(0.8, 1.6), times=[0.0, 0.2])
    assert speeds(media.read_flow(path, Clip(8, video=VIDEO))) == pytest.approx([0.5, 1, 1])
    np.savez(path, flow=pixels(0.8, 1.6), rate=5)
    assert speeds(media.read_flow(path, Clip(8, video=VIDEO))) == pytest.approx([0.5, 1, 1])
    np.savez(path, flow_widths_per_second=pixels(0.8))
    assert speeds(media.read_flow(path, Clip(8, video=VIDEO))) == pytest.approx([0.8])
    np.save(tmp_path / "f.npy", pixels(0.8, 1.6))
    assert speeds(media.read_flow(tmp_path / "f.npy", Clip(2, rate=10))) == pytest.approx([1, 2])


def test_pixels_without_a_time_between_them_have_no_speed(tmp_path):
    path = write_flo(tmp_path / "f.flo", pixels(1)[0])
    for clip in (Clip(), Clip(video=VIDEO)):
        with pytest.raises(MediaError, match=r'f\.flo.*pixels.*"rate".*flow_widths_per_second'):
            media.read_flow(path, clip)
    assert speeds(media.read_flow(path, Clip(rate=8))) == [1]


def test_vectors_that_are_marked_unknown(tmp_path):
    flow = pixels(1)[0]
    flow[0, 0] = 1e10
    flow[1, 1, 0] = np.nan
    found = media.read_flow(write_flo(tmp_path / "f.flo", flow), Clip(rate=1)).velocity[0]
    assert np.isnan(found[[0, 1], [0, 1]]).all()
    assert np.isfinite(found).sum() == found.size - 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda p: truncate(write_flo(p / "f.flo", pixels(1)[0]), 0.5),
            "need 396 bytes, found 198",
        ),
        (lambda p: truncate(write_flo(p / "f.flo", pixels(1)[0]), 0.02), "not a .flo file"),
        (lambda p: write(p, b"PIEH" + struct.pack("<ii", -1, 5)), "its size is -1 x 5"),
        (lambda p: write(p, b"PIEH" + struct.pack("<ii", 90000, 90000)), "90000 x 90000 pixels"),
        (lambda p: write_flo(p / "f.flo", np.full((2, 2, 2), np.nan)), "none of its vectors"),
        (lambda p: save(p, np.ones((6, 8, 3))), r"found shape \(6, 8, 3\) of float64"),
        (lambda p: save(p, np.ones((6, 8, 2), int)), "as floats"),
        (lambda p: save(p, np.full((6, 8, 2), np.nan)), "holds a finite number"),
    ],
)
def test_refusals(tmp_path, make, said):
    path = make(tmp_path)
    with pytest.raises(MediaError, match=said) as caught:
        media.read_flow(path, Clip(rate=1))
    assert str(path) in str(caught.value)


def test_maps_of_several_sizes_and_too_large_ones(tmp_path):
    write_flo(tmp_path / "0.flo", np.ones((6, 8, 2)))
    write_flo(tmp_path / "1.flo", np.ones((6, 9, 2)))
    with pytest.raises(MediaError, match=r"1\.flo: this image is 9 x 6 pixels, .* 8 x 6"):
        media.read_flow(tmp_path, Clip(rate=1))
    with pytest.raises(MediaError, match=r"0\.flo: too large: the limit is 40 pixels"):
        media.read_flow(tmp_path, Clip(8, Limits(max_pixels=40), rate=1))


def write(folder, data):
    (folder / "f.flo").write_bytes(data)
    return folder / "f.flo"


def save(folder, array):
    np.save(folder / "f.npy", array)
    return folder / "f.npy"

"""Features that were made before, instead of media."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from media_factory import truncate, write_text
from open_crema.errors import MediaError
from open_crema.media import Clip, Limits, TimeLine, holds_features, read_features

VIDEO = TimeLine(np.arange(10) / 10, 1.0, 64, 48, "video.mp4")


def numbered(segments, keys=2, width=3):
    """[S, K, W] whose values are the number of the segment."""
    return np.broadcast_to(np.arange(segments)[:, None, None], (segments, keys, width)).astype("f4")


def save(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        encoder = arrays.pop("encoder", None)
        tensors = {k: torch.as_tensor(np.array(v)) for k, v in arrays.items()}
        save_file(tensors, path, {"encoder": encoder} if encoder else None)
    return path


BOTH = pytest.mark.parametrize("name", ["f.npz", "f.safetensors"])


def first(found):
    return found.features.tokens[:, 0, 0].tolist()


@BOTH
def test_segments_are_chosen_as_maps_are(tmp_path, name):
    clip = Clip(4, video=VIDEO)
    found = read_features(save(tmp_path / name, features=numbered(10)), clip)
    assert found.features.tokens.shape == (4, 2, 3)
    assert found.features.tokens.dtype == torch.float32
    assert first(found) == [1, 3, 6, 8]
    assert found.features.mask.all()
    assert found.features.times.tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1]]
    stamped = save(tmp_path / name, features=numbered(3), times=[0.0, 0.3, 0.7])
    assert first(read_features(stamped, clip)) == [0, 1, 1, 2]
    rated = save(tmp_path / name, features=numbered(100), rate=100)
    assert first(read_features(rated, clip)) == [12, 37, 62, 87]


@BOTH
def test_as_many_as_the_store_keeps_are_those_of_the_videos_intervals(tmp_path, name):
    found = read_features(save(tmp_path / name, features=numbered(4)), Clip(4, video=VIDEO))
    assert first(found) == [0, 1, 2, 3]
    assert found.features.times[-1].tolist() == [0.75, 1]
    with pytest.raises(MediaError, match=r"5 maps, while the video video\.mp4 has 10 pictures"):
        read_features(save(tmp_path / name, features=numbered(5)), Clip(4, video=VIDEO))


@BOTH
def test_one_vector_a_segment_and_a_mask(tmp_path, name):
    clip = Clip(4, video=VIDEO)
    path = save(tmp_path / name, features=np.ones((4, 3), np.float16))
    assert read_features(path, clip).features.tokens.shape == (4, 1, 3)
    mask = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], bool)
    path = save(tmp_path / name, features=numbered(4), mask=mask)
    assert read_features(path, clip).features.mask.tolist() == mask.tolist()


@BOTH
def test_sound_keeps_all_of_its_windows_and_their_times(tmp_path, name):
    times = np.stack([np.arange(30) / 2, np.arange(30) / 2 + 1], axis=1)  # they overlap
    path = save(tmp_path / name, features=numbered(30), times=times)
    found = read_features(path, Clip(4, start=0.25), every=True)
    assert first(found) == list(range(30))
    assert found.features.times.tolist() == (times + 0.25).tolist()
    path = save(tmp_path / name, features=numbered(30))
    with pytest.raises(MediaError, match=r"nothing says when its 30 segments are: save 'times'"):
        read_features(path, Clip(4), every=True)
    assert read_features(path, Clip(4, rate=2), every=True).features.times[-1].tolist() == [
        14.5,
        15,
    ]


@BOTH
def test_the_encoder_that_a_file_names_has_to_be_the_configured_one(tmp_path, name):
    clip = Clip(4, video=VIDEO)
    for said in ("dino", "dino/sha256", None):
        stated = {"encoder": said} if said else {}
        found = read_features(save(tmp_path / name, features=numbered(4), **stated), clip)
        assert found.of("dino", "dino/sha256", 3) is found.features
    found = read_features(save(tmp_path / name, features=numbered(4), encoder="eva"), clip)
    with pytest.raises(MediaError, match=r"of encoder 'eva', this sense has 'dino'.*configure"):
        found.of("dino", "dino/sha256", 3)
    found = read_features(save(tmp_path / name, features=numbered(4)), clip)
    with pytest.raises(MediaError, match=r"are 3 wide, those of encoder 'dino' 384"):
        found.of("dino", "dino/sha256", 384)


def test_which_files_hold_features(tmp_path):
    limits = Limits()
    assert holds_features(save(tmp_path / "a.safetensors", features=numbered(1)), limits)
    assert holds_features(save(tmp_path / "a.npz", features=numbered(1)), limits)
    points = save(tmp_path / "b.npz", features=numbered(1), voxels=numbered(1))
    assert not holds_features(points, limits)
    assert not holds_features(save(tmp_path / "c.npz", depth=numbered(1)), limits)
    assert not holds_features(tmp_path, limits)


@BOTH
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": np.ones(3)}, "has no 'features'"),
        ({"features": np.ones((4, 2, 3), int)}, r"floating point \[S, K, W\] or \[S, W\]"),
        ({"features": np.ones((4, 2, 3), np.complex64)}, "must be floating point"),
        ({"features": np.ones(3)}, r"found torch.float64 \[3\]"),
        ({"features": np.ones(())}, r"found torch.float64 \[\]"),
        ({"features": np.ones((1, 1, 1, 1))}, r"\[1, 1, 1, 1\]"),
        ({"features": np.ones((0, 2, 3))}, r"\[0, 2, 3\]"),
        ({"features": np.full((4, 2, 3), np.nan)}, "in 4 of 4 segments, the first is 0"),
        ({"features": np.full((4, 2, 3), 1e300)}, "NaN or infinity in 4"),
        ({"features": np.ones((4, 2, 3)), "mask": np.ones((4, 3), bool)}, r"bool \[4, 2\]"),
        ({"features": np.ones((4, 2, 3)), "mask": np.ones((4, 2))}, "'mask' must be bool"),
        ({"features": np.ones((4, 2, 3)), "mask": np.zeros((4, 2), bool)}, "in segment 0"),
        ({"features": np.ones((4, 2, 3)), "times": np.ones(3)}, r"need time stamps \[4\]"),
        ({"features": np.ones((4, 2, 3)), "times": np.ones(4)}, "must increase"),
        ({"features": np.ones((4, 2, 3)), "times": np.arange(4) + 9.0}, "no time in common"),
        ({"features": np.ones((4, 2, 3)), "times": np.ones(4, np.complex64)}, "must be numbers"),
        ({"features": np.ones((4, 2, 3)), "rate": np.ones(2)}, "one number"),
        ({"features": np.ones((4, 2, 3)), "rate": -1.0}, "above 0"),
        ({"features": np.ones((4, 2, 3)), "rate": np.nan}, "above 0"),
    ],
)
def test_refusals(tmp_path, name, arrays, said):
    path = save(tmp_path / name, **arrays)
    with pytest.raises(MediaError, match=said) as caught:
        read_features(path, Clip(4, video=VIDEO))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@BOTH
def test_files_that_are_damaged_or_too_large(tmp_path, name):
    path = save(tmp_path / name, features=numbered(4))
    with pytest.raises(MediaError, match="limit is 10 bytes"):
        read_features(path, Clip(4, Limits(max_bytes=10)))
    for make in (lambda p: truncate(p, 0.6), write_text):
        make(path)
        with pytest.raises(MediaError, match=r"not a readable .* file"):
            read_features(path, Clip(4))


def test_pickles_and_text_are_no_features(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, features=np.array([[None]]))
    with pytest.raises(MediaError, match="not a readable NumPy file"):
        read_features(path, Clip(4))
    np.savez(path, features=np.array([["a"]]))
    with pytest.raises(MediaError, match="'features' must be numbers"):
        read_features(path, Clip(4))

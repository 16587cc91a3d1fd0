"""Depth, normals and points made from an RGB-D folder."""

import numpy as np
import pytest

from media_factory import write_audio, write_depth_png, write_frames_folder, write_video
from open_crema import modality
from open_crema.errors import MediaError, SenseAbsent
from open_crema.experts.colour import depth_to_rgb, normal_to_rgb
from open_crema.experts.rgbd import depth_of_rgbd, normals_of_depth, points_of_rgbd
from open_crema.experts.senses import read_depth_pictures, read_points
from open_crema.media import Clip, Limits, read_frames
from rgbd_factory import INTRINSICS, ROOM, WALK, render, write_rgbd

EXPERTS = ["depth", "normal", "point"]


@pytest.fixture
def folder(tmp_path):
    return write_rgbd(tmp_path / "room", ROOM, WALK)


@pytest.mark.parametrize("sense", EXPERTS)
def test_a_video_that_is_no_rgbd_folder_has_none(sense, tmp_path):
    expert = modality.resolve(modality.get(sense).expert)
    for path in (write_video(tmp_path / "a.mp4"), write_audio(tmp_path / "a.wav")):
        with pytest.raises(SenseAbsent, match=r"not an RGB-D folder|no depth with intr") as absent:
            expert(path, Clip())
        assert absent.value.sense == sense
    with pytest.raises(MediaError, match="no such file"):
        expert(tmp_path / "none", Clip())


def test_depth_goes_with_the_frames_of_the_video(folder):
    found = depth_of_rgbd(folder, Clip(3, rate=10.0))
    assert found.times.tolist() == read_frames(folder, 3, folder_fps=10.0).times.tolist()
    truth = [depth_to_rgb(render(ROOM, WALK[i])[0]) for i in (1, 3, 5)]
    assert np.abs(found.images.astype(int) - truth).max() <= 8  # millimetres: one step of colour


def test_the_depth_of_an_rgbd_folder_is_its_depth(folder):
    given = read_depth_pictures(folder, Clip(3))
    np.testing.assert_array_equal(given.images, depth_of_rgbd(folder, Clip(3)).images)


def close(found, truth):
    """Millimetres and windows cost a little; most pixels are right to a few steps of colour."""
    return np.percentile(np.abs(found.astype(int) - truth).max(axis=-1), 85) <= 8


def test_normals_of_an_rgbd_folder(folder):
    found = normals_of_depth(folder, Clip(3, rate=10.0))
    assert found.times.tolist() == read_frames(folder, 3, folder_fps=10.0).times.tolist()
    truth = np.stack([normal_to_rgb(render(ROOM, WALK[i])[1]) for i in (1, 3, 5)])
    assert close(found.images, truth)


@pytest.mark.parametrize("scaled", [False, True])
def test_normals_of_depth_maps_with_their_camera(tmp_path, scaled):
    depth = np.stack([render(ROOM, camera)[0] for camera in WALK])
    truth = np.stack([normal_to_rgb(render(ROOM, camera)[1]) for camera in WALK])
    np.savez(tmp_path / "depth.npz", depth=depth, intrinsics=INTRINSICS)
    (tmp_path / "maps").mkdir()
    name, matrix = "intrinsics.txt", INTRINSICS
    if scaled:
        name, matrix = "intrinsics_640x480.txt", INTRINSICS * [[10], [10], [1]]
    np.savetxt(tmp_path / "maps" / name, matrix)
    for number, metres in enumerate(depth):
        write_depth_png(tmp_path / "maps" / f"{number}.png", np.rint(metres * 1000))
    for path in (tmp_path / "depth.npz", tmp_path / "maps"):
        found = normals_of_depth(path, Clip(6))
        assert found.times.tolist() == [[i, i + 1] for i in range(6)]
        assert close(found.images, truth)


def test_large_depth_is_taken_at_the_size_that_shows(tmp_path):
    large = INTRINSICS * [[10], [10], [1]]
    depth, normals, _ = render(ROOM, WALK[0], large, (640, 480))
    np.savez(tmp_path / "depth.npz", depth=depth, intrinsics=large)
    found = normals_of_depth(tmp_path / "depth.npz", Clip())
    assert found.images.shape == (1, 160, 214, 3)
    assert close(found.images[0], normal_to_rgb(normals[::3, ::3]))


def test_depth_without_a_camera_has_no_normals(folder, tmp_path):
    (folder / "intrinsics.txt").unlink()
    np.savez(tmp_path / "depth.npz", depth=np.ones((4, 5)))
    np.save(tmp_path / "depth.npy", np.ones((4, 5)))
    pictures = write_frames_folder(tmp_path / "pictures")
    for path in (folder, tmp_path / "depth.npz", tmp_path / "depth.npy", pictures):
        with pytest.raises(SenseAbsent, match="intrinsics"):
            normals_of_depth(path, Clip())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3, 4), r"floats \[3, 3\], found float64 \[3, 4\]"),
        (np.eye(3, dtype=int), "floats"),
        (np.full((3, 3), np.nan), "not pinhole"),
        (INTRINSICS * 10, "not pinhole"),
        (INTRINSICS * [[10], [10], [1]], r"principal point .* depth_640x480\.npz"),
    ],
)
def test_a_camera_that_does_not_fit(tmp_path, matrix, message):
    np.savez(tmp_path / "depth.npz", depth=np.ones((48, 64)), intrinsics=matrix)
    with pytest.raises(MediaError, match=message):
        normals_of_depth(tmp_path / "depth.npz", Clip())


@pytest.mark.parametrize("expert", [depth_of_rgbd, normals_of_depth, points_of_rgbd])
def test_limits_hold(folder, expert):
    with pytest.raises(MediaError, match="limit is 40 bytes"):
        expert(folder, Clip(limits=Limits(max_bytes=40)))


def test_points_come_with_camera_and_poses(folder):
    found = points_of_rgbd(folder, Clip(3))
    np.testing.assert_array_equal(found.poses, [WALK[1], WALK[3], WALK[5]])
    np.testing.assert_array_equal(found.intrinsics, INTRINSICS)


def test_points_of_several_frames_without_poses_are_absent(tmp_path):
    path = write_rgbd(tmp_path / "room", ROOM, WALK, posed=False)
    with pytest.raises(SenseAbsent, match="no camera poses"):
        points_of_rgbd(path, Clip(3))
    assert points_of_rgbd(path, Clip(1)).poses is None


def test_points_without_a_camera_are_absent(folder):
    (folder / "intrinsics.txt").unlink()
    with pytest.raises(SenseAbsent, match="no camera intrinsics"):
        points_of_rgbd(folder, Clip(3))


def test_a_folder_given_as_the_points_is_what_it_is_as_the_video(folder):
    given = read_points(folder, Clip(3))
    np.testing.assert_array_equal(given.metres, points_of_rgbd(folder, Clip(3)).metres)
    assert given.poses is not None

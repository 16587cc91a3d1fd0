"""Depth, normals and points made from an RGB-D folder."""

import numpy as np
import pytest

from media_factory import write_audio, write_video
from open_crema import modality
from open_crema.errors import MediaError, SenseAbsent
from open_crema.experts.colour import depth_to_rgb
from open_crema.experts.rgbd import depth_of_rgbd, points_of_rgbd
from open_crema.experts.senses import read_depth_pictures
from open_crema.media import Clip, read_frames
from rgbd_factory import INTRINSICS, ROOM, WALK, render, write_rgbd

EXPERTS = ["depth", "point"]


@pytest.fixture
def folder(tmp_path):
    return write_rgbd(tmp_path / "room", ROOM, WALK)


@pytest.mark.parametrize("sense", EXPERTS)
def test_a_video_that_is_no_rgbd_folder_has_none(sense, tmp_path):
    expert = modality.resolve(modality.get(sense).expert)
    for path in (write_video(tmp_path / "a.mp4"), write_audio(tmp_path / "a.wav")):
        with pytest.raises(SenseAbsent, match="not an RGB-D folder") as absent:
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

"""RGB-D folders: both layouts, what states sizes and times, and what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from open_crema.errors import MediaError
from open_crema.media import (
    Clip,
    Limits,
    TimeLine,
    is_rgbd,
    probe,
    read_frame_pairs,
    read_frames,
    read_rgbd,
)
from rgbd_factory import INTRINSICS, ROOM, SIZE, WALK, render, write_rgbd

EVERY = {"flat": {}, "folders": {"folders": True}, "stacked": {"stacked": True}}


@pytest.fixture(params=EVERY)
def folder(request, tmp_path):
    return write_rgbd(tmp_path / "room", ROOM, WALK, **EVERY[request.param])


def small(tmp_path, frames=3, **options):
    return write_rgbd(tmp_path / "room", ROOM, WALK[:frames], **options)


def refused(path, message, *, posed=True, clip=None):
    with pytest.raises(MediaError, match=message) as error:
        read_rgbd(path, clip or Clip(), posed=posed)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_every_layout_gives_the_same(folder):
    found = read_rgbd(folder, Clip(3), posed=True)
    assert found.times.tolist() == [[0, 2], [2, 4], [4, 6]]
    np.testing.assert_array_equal(found.poses, [WALK[1], WALK[3], WALK[5]])
    np.testing.assert_array_equal(found.intrinsics, INTRINSICS)
    for row, number in enumerate((1, 3, 5)):
        depth, _, colour = render(ROOM, WALK[number])
        np.testing.assert_array_equal(found.colour[row], colour)
        np.testing.assert_allclose(found.metres[row], depth, atol=0.00051)
    assert found.metres.dtype == np.float32


def test_poses_are_read_only_where_they_are_asked_for(folder):
    assert read_rgbd(folder, Clip(2)).poses is None


def test_the_colour_pictures_are_the_video(folder):
    assert is_rgbd(folder)
    whole = read_rgbd(folder, Clip(4))
    frames = read_frames(folder, 4)
    np.testing.assert_array_equal(frames.images, whole.colour)
    np.testing.assert_array_equal(frames.times, whole.times)
    first, second, gaps = read_frame_pairs(folder, 6)
    np.testing.assert_array_equal(first.images[1:5], second.images[:4])
    assert gaps.tolist() == [1.0] * 6
    info = probe(folder)
    assert (info.kind, info.frames, info.width, info.height) == ("folder", 6, *SIZE)


def test_one_frame(tmp_path):
    found = read_rgbd(small(tmp_path, 1), Clip(8), posed=True)
    assert found.metres.shape == (1, *SIZE[::-1])
    assert found.times.tolist() == [[0, 1]]


def test_a_rate_sets_the_times(tmp_path):
    found = read_rgbd(small(tmp_path), Clip(3, rate=4.0))
    assert found.times.tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 0.75]]


def test_time_stamps_of_the_folder_set_the_times_of_video_and_depth(tmp_path):
    path = small(tmp_path)
    (path / "timestamps.txt").write_text("100.5\n101\n102.5\n")
    for times in (read_rgbd(path, Clip(3, rate=9.0)).times, read_frames(path, 3).times):
        assert times.tolist() == [[0, 0.5], [0.5, 2.0], [2.0, 3.0]]
    assert read_rgbd(path, Clip(1)).times.tolist() == [[0, 3.0]]


def test_beside_another_video_it_is_aligned_to_that(tmp_path):
    path = small(tmp_path, 6)
    video = TimeLine(np.arange(12) / 2, 6.0, 64, 48, "a.mp4")
    found = read_rgbd(path, Clip(3, rate=1.0, video=video), posed=True)
    assert found.times.tolist() == [[0, 2], [2, 4], [4, 6]]
    np.testing.assert_array_equal(found.poses, [WALK[1], WALK[3], WALK[5]])
    late = read_rgbd(path, Clip(3, rate=1.0, start=2.0, video=video), posed=True)
    np.testing.assert_array_equal(late.poses, [WALK[0], WALK[1], WALK[3]])
    with pytest.raises(MediaError, match=r"6 maps, while the video a\.mp4 has 12 pictures"):
        read_rgbd(path, Clip(3, video=video))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "2 time stamps for 3 files"),
        ("1\n2\n2\n", "must increase"),
        ("1\n2\nnan\n", "NaN"),
        ("1\n2\nx\n", "expected seconds"),
        ("1\n2\n9000\n", "limit is 3600 seconds"),
    ],
)
def test_time_stamps_that_do_not_fit(tmp_path, text, message):
    path = small(tmp_path)
    (path / "timestamps.txt").write_text(text)
    refused(path, message)


def test_larger_colour_leaves_the_intrinsics_of_the_depth(tmp_path):
    found = read_rgbd(small(tmp_path, colour_scale=3), Clip())
    assert found.colour.shape[1:3] == (144, 192)
    assert found.metres.shape[1:] == (48, 64)
    np.testing.assert_array_equal(found.intrinsics, INTRINSICS)


def test_colour_of_another_shape(tmp_path):
    path = small(tmp_path)
    for file in path.glob("*.color.png"):
        Image.open(file).resize((64, 64)).save(file)
    refused(path, "depth.png: of 64 x 48 pixels, while its colour picture is 64 x 64")


SCALED = INTRINSICS * [[10], [10], [1]]


@pytest.mark.parametrize("name", ["camera-intrinsics_640x480.txt", "Intrinsics-640x480.txt"])
def test_intrinsics_of_the_size_in_their_name_are_scaled(tmp_path, name):
    path = small(tmp_path)
    (path / "intrinsics.txt").unlink()
    np.savetxt(path / name, SCALED)
    np.testing.assert_allclose(read_rgbd(path, Clip()).intrinsics, INTRINSICS)


def test_intrinsics_of_the_depth_go_before_those_of_the_colour(tmp_path):
    path = small(tmp_path, folders=True, colour_scale=2)
    (path / "intrinsics.txt").unlink()
    (path / "intrinsic").mkdir()
    four = np.eye(4)
    four[:3, :3] = INTRINSICS * [[2], [2], [1]]
    np.savetxt(path / "intrinsic" / "intrinsic_color.txt", four)
    np.testing.assert_allclose(read_rgbd(path, Clip()).intrinsics, INTRINSICS)  # scaled to it
    four[0, 0] = 77
    np.savetxt(path / "intrinsic" / "intrinsic_color.txt", four)
    four[:3, :3] = INTRINSICS
    np.savetxt(path / "intrinsic" / "intrinsic_depth.txt", four)
    np.savetxt(path / "intrinsic" / "extrinsic_depth.txt", np.eye(4))
    np.testing.assert_array_equal(read_rgbd(path, Clip()).intrinsics, INTRINSICS)


@pytest.mark.parametrize(
    ("name", "matrix", "message"),
    [
        ("intrinsics.txt", SCALED, r"principal point \(315, 235\) .* as in intrinsics_640x480.txt"),
        ("intrinsics_640x640.txt", SCALED, "of 640 x 640 pixels, while the depth is 64 x 48"),
        ("intrinsics.txt", np.eye(2), "expected a 3 x 3 or 4 x 4 matrix .* found 4"),
        ("intrinsics.txt", INTRINSICS * np.nan, "finite"),
        ("intrinsics.txt", -INTRINSICS, "not pinhole"),
        ("intrinsics.txt", INTRINSICS.T, "not pinhole"),
    ],
)
def test_intrinsics_that_do_not_fit(tmp_path, name, matrix, message):
    path = small(tmp_path)
    (path / "intrinsics.txt").unlink()
    np.savetxt(path / name, matrix)
    refused(path, message)


def test_several_intrinsics(tmp_path):
    path = small(tmp_path)
    np.savetxt(path / "intrinsics2.txt", INTRINSICS)
    refused(path, "several intrinsics")


def test_a_folder_without_intrinsics_or_poses_still_has_its_depth(tmp_path):
    path = small(tmp_path, posed=False)
    (path / "intrinsics.txt").unlink()
    found = read_rgbd(path, Clip(), posed=True)
    assert (found.intrinsics, found.poses) == (None, None)
    assert np.isfinite(found.metres).all()


@pytest.mark.parametrize("layout", EVERY)
def test_counts_that_do_not_match(tmp_path, layout):
    path = small(tmp_path, **EVERY[layout])
    (path / ("depth/1.png" if layout == "folders" else "frame-000001.depth.png")).unlink()
    poses = "" if layout == "stacked" else ", 3 poses"
    refused(path, f"holds 3 colour pictures, 2 depth maps{poses}: every frame needs")


def test_frames_that_do_not_pair_up_by_name(tmp_path):
    path = small(tmp_path)
    (path / "frame-000001.depth.png").rename(path / "frame-000007.depth.png")
    refused(path, "frame-000001 beside frame-000002 beside frame-000001")


def test_frames_of_sub_folders_that_share_their_names_have_to_pair_up(tmp_path):
    path = small(tmp_path, frames=4, folders=True, posed=False)
    (path / "color/1.png").unlink()
    (path / "depth/2.png").unlink()
    refused(path, "do not pair up by name: 2 beside 1; remove what has no counterpart")


def test_names_of_sub_folders_are_free_where_they_are_not_shared(tmp_path):
    path = small(tmp_path, folders=True, posed=False)
    for i in range(3):
        (path / f"depth/{i}.png").rename(path / f"depth/130503.{i}5.png")
    assert read_rgbd(path, Clip()).metres.shape[0] == 3


def test_poses_given_twice(tmp_path):
    path = small(tmp_path)
    np.save(path / "poses.npy", np.stack(WALK[:3]))
    refused(path, "poses twice")


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 3, 4), (3, 16)])
def test_stacked_poses_of_another_shape(tmp_path, shape):
    path = small(tmp_path, stacked=True)
    np.save(path / "poses.npy", np.zeros(shape))
    refused(path, r"poses.npy: expected floats \[3, 4, 4\]")


MIRRORED = np.diag([1.0, 1, -1, 1])
BAD = {
    "infinite": np.full((4, 4), -np.inf),
    "NaN": np.full((4, 4), np.nan),
    "mirrored": MIRRORED,
    "scaled": np.diag([2.0, 2, 2, 1]),
    "zero": np.zeros((4, 4)),
    "transposed": np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [3, 2, 1, 1]]),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_frame_whose_pose_is_lost_is_left_out(tmp_path, caplog, kind):
    path = small(tmp_path, 4)
    np.savetxt(path / "frame-000000.pose.txt", BAD[kind])
    found = read_rgbd(path, Clip(8), posed=True)
    np.testing.assert_array_equal(found.poses, WALK[1:4])
    np.testing.assert_array_equal(found.colour[0], render(ROOM, WALK[1])[2])
    assert found.times.tolist() == [[1, 2], [2, 3], [3, 4]]
    assert "1 of 4 frames are left out" in caplog.text
    assert "frame-000000.color.png" in caplog.text
    assert len(read_rgbd(path, Clip(8)).colour) == 4  # depth and colour need no pose
    two = read_rgbd(path, Clip(2), posed=True)
    assert two.times.tolist() == [[1, 2.5], [2.5, 4]]
    np.testing.assert_array_equal(two.poses, [WALK[1], WALK[3]])


def test_what_trackers_write_for_not_a_number(tmp_path, caplog):
    path = small(tmp_path)
    (path / "frame-000001.pose.txt").write_text("-1.#IND " * 16)
    assert len(read_rgbd(path, Clip(), posed=True).poses) == 2
    assert "left out" in caplog.text


def test_no_usable_pose(tmp_path):
    path = small(tmp_path)
    for file in path.glob("*.pose.txt"):
        np.savetxt(file, np.full((4, 4), -np.inf))
    refused(path, "none of its 3 poses")
    assert len(read_rgbd(path, Clip()).metres) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2 3", "4 x 4 numbers, found 3"), ("", "empty"), ("a" * 9, "expected numbers alone")],
)
def test_a_pose_that_is_none(tmp_path, text, message):
    path = small(tmp_path)
    (path / "frame-000001.pose.txt").write_text(text)
    refused(path, f"frame-000001.pose.txt: .*{message}")
    (path / "frame-000001.pose.txt").write_bytes(b"\xff\xfe\x00")
    refused(path, "it is not text")


def test_depth_without_a_valid_value(tmp_path):
    path = small(tmp_path)
    for number, file in enumerate(sorted(path.glob("*.depth.png"))):
        Image.fromarray(np.full(SIZE[::-1], 65535 * (number % 2), np.uint16)).save(file)
    refused(path, r"frame-000000\.depth\.png: .* valid depth")


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = small(tmp_path)
    depth = path / "frame-000001.depth.png"
    depth.write_bytes(depth.read_bytes()[:60])
    refused(path, r"frame-000001\.depth\.png")
    Image.fromarray(np.zeros((*SIZE[::-1], 3), np.uint8)).save(depth)
    refused(path, r"frame-000001\.depth\.png: not a depth map in metric units")
    depth.write_bytes(b"")
    refused(path, r"frame-000001\.depth\.png: the file is empty")


def test_limits_hold_for_every_file(tmp_path):
    path = small(tmp_path)
    refused(path, "limit is 100 pixels", clip=Clip(limits=Limits(max_pixels=100)))
    refused(path, "limit is 50 bytes", clip=Clip(limits=Limits(max_bytes=50)))
    refused(path, "limit is 5 files", clip=Clip(limits=Limits(max_files=5)))


def test_other_folders_are_none(tmp_path):
    path = small(tmp_path)
    assert not is_rgbd(path / "intrinsics.txt")
    assert not is_rgbd(tmp_path / "nowhere")
    assert not is_rgbd(tmp_path / ("long" * 100))
    for file in path.glob("*.depth.png"):
        file.unlink()
    assert not is_rgbd(path)
    refused(path, "not an RGB-D folder: expected")
    shutil.rmtree(path)
    with pytest.raises(MediaError, match="no such file"):
        read_rgbd(path, Clip())

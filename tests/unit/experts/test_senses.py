import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from media_factory import (
    frame_number,
    grey_level,
    truncate,
    write_audio,
    write_depth_png,
    write_frames_folder,
    write_text,
    write_video,
)
from open_crema import modality
from open_crema.errors import MediaError, SenseAbsent
from open_crema.experts import senses
from open_crema.experts.colour import depth_to_rgb, flow_to_rgb, normal_to_rgb, thermal_to_rgb
from open_crema.media import Clip, Limits

LIMITS = Limits()


def read(function, path, frames=4, limits=LIMITS, **stated):
    return function(path, Clip(frames, limits, **stated))


@pytest.mark.parametrize("kind", modality.BUILT_INS, ids=lambda kind: kind.name)
def test_every_built_in_refers_to_a_function_that_exists(kind, tmp_path):
    for target in {kind.reader, kind.expert or kind.reader}:
        with pytest.raises(MediaError, match="no such file"):
            read(modality.resolve(target), str(tmp_path / "none.mp4"))


@pytest.mark.parametrize("kind", modality.BUILT_INS, ids=lambda kind: kind.name)
def test_every_function_keeps_to_the_limits(kind, tmp_path):
    path = (
        np_file(tmp_path) if kind.name == "point" else write_video(tmp_path / "a.mp4", sound="tone")
    )
    for target in {kind.reader, kind.expert or kind.reader}:
        with pytest.raises(MediaError, match="limit is 10 bytes"):
            read(modality.resolve(target), path, limits=Limits(max_bytes=10))


def test_pictures_of_a_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=20, picture=grey_level)
    found = read(senses.read_pictures, path)
    assert [frame_number(image) for image in found.images] == [2, 7, 12, 17]
    assert found.times[[0, -1], [0, 1]].tolist() == [0, 2]


def test_pictures_of_a_sound_are_absent(tmp_path):
    with pytest.raises(SenseAbsent):
        read(senses.read_pictures, write_audio(tmp_path / "a.wav"))


def test_sound_of_a_video_and_of_a_sound_file(tmp_path):
    for path in (
        write_video(tmp_path / "a.mp4", sound="tone"),
        write_audio(tmp_path / "a.wav", seconds=2.0),
    ):
        audio = read(senses.read_sound, path)
        assert audio.rate == 16000
        assert len(audio.samples) == pytest.approx(32000, abs=2000)


@pytest.mark.parametrize("sound", [None, "mute"])
def test_a_soundless_video(tmp_path, sound):
    with pytest.raises(SenseAbsent) as absent:
        read(senses.read_sound, write_video(tmp_path / "a.mkv", sound=sound))
    assert absent.value.sense == "audio"


def test_flow_has_the_frames_and_times_of_the_video(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    flow, video = read(senses.flow_of_video, path), read(senses.read_pictures, path)
    assert flow.images.dtype == np.uint8
    assert flow.images.shape[0] == len(video.images) == 4
    assert flow.images.shape[-1] == 3
    assert np.array_equal(flow.times, video.times)


def sliding(step):
    """A texture that moves by that many pixels a frame to the right."""
    texture = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    wide = np.asarray(Image.fromarray(texture).resize((640, 48), Image.Resampling.BILINEAR))
    return lambda number, width, height: wide[:height, 200 - step * number :][:, :width]


def test_flow_is_coloured_by_direction(tmp_path):
    """Red is to the right and cyan to the left; what rests is white."""

    def colour(step):
        path = write_video(tmp_path / f"{step}.mp4", frames=10, fps=10, picture=sliding(step))
        return read(senses.flow_of_video, path).images.reshape(-1, 3).mean(axis=0)

    right, left, still = colour(3), colour(-3), colour(0)
    assert right[0] > right[2] + 30
    assert left[2] > left[0] + 30
    assert still.min() > 245


def test_flow_of_a_folder_whose_rate_is_not_known_is_worth_a_warning(tmp_path, caplog):
    folder = write_frames_folder(tmp_path / "frames", frames=3)
    guessed = read(senses.flow_of_video, folder).images
    assert "frames: nothing says when its pictures appear" in caplog.text
    caplog.clear()
    stated = read(senses.flow_of_video, folder, rate=30.0).images
    (folder / "timestamps.txt").write_text("0\n0.0333333\n0.0666667\n")
    stamped = read(senses.flow_of_video, folder).images
    assert not caplog.text
    assert np.abs(stated.astype(int) - stamped).max() < 3
    assert np.abs(stated.astype(int) - guessed).max() > 50


def test_flow_of_one_picture_is_absent(tmp_path):
    with pytest.raises(SenseAbsent) as absent:
        read(senses.flow_of_video, write_video(tmp_path / "a.mp4", frames=1))
    assert absent.value.sense == "flow"


@pytest.fixture
def metres():
    return np.linspace(0.5, 5.0, 6 * 8, dtype=np.float32).reshape(6, 8)


def test_metric_depth_is_coloured_by_the_fixed_scale(tmp_path, metres):
    png = write_depth_png(tmp_path / "d.png", np.rint(metres * 1000).astype(np.uint16))
    np.save(tmp_path / "d.npy", metres)
    expected = depth_to_rgb(metres)
    for path in (png, tmp_path / "d.npy"):
        (image,) = read(senses.read_depth_pictures, path).images
        assert np.abs(image.astype(int) - expected).max() <= 8  # a millimetre is a step of colour


def test_the_same_distance_has_the_same_colour_in_every_scene(tmp_path, metres):
    deep = metres.copy()
    deep[3:] *= 2
    np.save(tmp_path / "both.npy", np.stack([metres, deep]))
    found = read(senses.read_depth_pictures, tmp_path / "both.npy")
    assert np.array_equal(found.images[0, :3], found.images[1, :3])
    assert not np.array_equal(found.images[0, 3:], found.images[1, 3:])


def test_depth_that_was_drawn_is_taken_as_it_is(tmp_path):
    folder = write_frames_folder(tmp_path / "d", frames=3)
    video = write_video(tmp_path / "d.mp4")
    for path in (folder, video):
        drawn, picture = (read(f, path) for f in (senses.read_depth_pictures, senses.read_pictures))
        assert np.array_equal(drawn.images, picture.images)
        assert np.array_equal(drawn.times, picture.times)


def depth_folder(path, metres, count=3):
    path.mkdir()
    for number in range(count):
        write_depth_png(path / f"{number}.png", np.rint(metres * (1000 + number)).astype(np.uint16))
    return path


def test_a_folder_of_metric_depth_beside_colour(tmp_path, metres):
    """As RGB-D recordings come: frame-0.color.jpg beside frame-0.depth.png."""
    folder = depth_folder(tmp_path / "scene", metres)
    Image.new("RGB", (8, 6)).save(folder / "0.jpg")
    found = read(senses.read_depth_pictures, folder)
    assert found.images.shape == (3, 6, 8, 3)
    assert np.abs(found.images[0].astype(int) - depth_to_rgb(metres)).max() <= 8


def test_a_damaged_depth_map_is_named(tmp_path, metres):
    folder = depth_folder(tmp_path / "scene", metres)
    truncate(folder / "1.png", 0.5)
    with pytest.raises(MediaError, match=r"1\.png: the image is damaged"):
        read(senses.read_depth_pictures, folder)


def test_a_damaged_picture_of_depth_is_named(tmp_path):
    folder = write_frames_folder(tmp_path / "d", frames=3)
    truncate(folder / sorted(p.name for p in folder.iterdir())[1], 0.5)
    with pytest.raises(MediaError, match="the image is damaged"):
        read(senses.read_depth_pictures, folder)


def test_what_is_no_depth(tmp_path):
    with pytest.raises(MediaError, match=r"a\.mp4"):
        read(senses.read_depth_pictures, write_text(tmp_path / "a.mp4"))
    np.save(tmp_path / "whole.npy", np.zeros((4, 4), np.int32))
    with pytest.raises(MediaError, match="depth in metres as floats"):
        read(senses.read_depth_pictures, tmp_path / "whole.npy")


def test_missing_depth_is_said_once(tmp_path):
    with pytest.raises(MediaError) as error:
        read(senses.read_depth_pictures, tmp_path / "none.npy")
    assert str(error.value).count("no such file") == 1


def test_depth_of_a_sound_is_absent(tmp_path):
    with pytest.raises(SenseAbsent):
        read(senses.read_depth_pictures, write_audio(tmp_path / "a.wav"))


# Point features


def np_file(folder, name="points.npz", **changed):
    arrays = {
        "features": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32),
        "voxels": np.arange(15).reshape(5, 3),
    } | changed
    np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})
    return folder / name


@pytest.mark.parametrize("precision", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("whole", [np.uint8, np.int32, np.int64])
def test_point_features(tmp_path, precision, whole):
    features = np.random.default_rng(0).normal(size=(5, 4)).astype(precision)
    voxels = np.arange(15).reshape(5, 3).astype(whole)
    points = read(senses.read_points, np_file(tmp_path, features=features, voxels=voxels))
    assert points.features.dtype == torch.float32
    assert points.features.numpy() == pytest.approx(features.astype(np.float32))
    assert points.voxels.tolist() == voxels.tolist()


def test_other_arrays_in_the_file_are_passed_over(tmp_path):
    assert len(read(senses.read_points, np_file(tmp_path, colours=np.ones(3))).voxels) == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"features": None}, r"has no array 'features'; it holds 'voxels'"),
        (
            {"features": None, "voxels": None},
            "no array 'xyz' or 'points', nor 'features' with 'voxels'; it holds nothing",
        ),
        ({"features": np.zeros((0, 4), np.float32)}, r"at least one point, found float32 \[0, 4\]"),
        ({"features": np.zeros((5, 0), np.float32)}, r"float32 \[5, 0\]"),
        ({"features": np.zeros(5, np.float32)}, r"floating point \[N, W\]"),
        ({"features": np.zeros((5, 4), np.int64)}, r"found int64"),
        ({"features": np.zeros((5, 4), complex)}, r"found complex128"),
        ({"features": np.zeros((6, 4), np.float32)}, r"integers \[6, 3\].*found int64 \[5, 3\]"),
        ({"voxels": np.zeros((5, 2), int)}, r"integers \[5, 3\]"),
        ({"voxels": np.zeros((5, 3))}, r"found float64"),
        ({"voxels": np.zeros((5, 3), bool)}, r"found bool"),
        ({"features": np.full((5, 4), np.nan)}, r"NaN or infinity in 5 of 5 points.*row 0"),
        ({"features": np.diag([0, 0, 0, np.inf, 0])[:, :4]}, r"in 1 of 5 points, .* row 3"),
        ({"features": np.full((5, 4), 1e300)}, r"NaN or infinity in 5"),  # as float32
        ({"features": np.array([[None]])}, "not a readable NumPy file"),  # would need pickle
    ],
)
def test_point_features_that_cannot_be_used(tmp_path, changed, said):
    with pytest.raises(MediaError, match=said):
        read(senses.read_points, np_file(tmp_path, **changed))


def test_what_is_not_a_file_of_points(tmp_path):
    for path in (write_text(tmp_path / "a.pdf"), tmp_path):
        with pytest.raises(MediaError, match=r"not a point cloud: give a \.ply"):
            read(senses.read_points, path)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(MediaError, match=r"not a readable NumPy file"):
        read(senses.read_points, tmp_path / "text.npz")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_file_of_points(tmp_path, keep):
    path = np_file(tmp_path)
    truncate(path, keep)
    with pytest.raises(MediaError, match=r"not a readable NumPy file"):
        read(senses.read_points, path)


@pytest.mark.parametrize("compressed", [True, False])
def test_no_flipped_bit_of_a_file_of_points_is_a_traceback(tmp_path, compressed):
    save = np.savez_compressed if compressed else np.savez
    packed = io.BytesIO()
    save(packed, features=np.ones((3, 4), np.float32), voxels=np.zeros((3, 3), int))
    whole = packed.getvalue()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            read(senses.read_points, tmp_path / "a.npz")
        except MediaError:
            continue


def test_a_small_file_that_unpacks_to_a_huge_one(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", bytes(10_000_000))
    with pytest.raises(MediaError, match="limit is 1000000 bytes"):
        read(senses.read_points, path, limits=Limits(max_bytes=1_000_000))


# Arrays and pictures of the other senses


def save(path, array):
    np.save(path, array)
    return path


def test_flow_vectors_are_coloured_by_speed(tmp_path):
    flow = np.random.default_rng(0).normal(size=(3, 6, 8, 2)).astype(np.float32)
    found = read(senses.read_flow_pictures, save(tmp_path / "a.npy", flow), rate=4.0)
    assert np.array_equal(found.images, flow_to_rgb(flow / 8 * 4))
    folder = write_frames_folder(tmp_path / "f", frames=3)
    assert np.array_equal(
        read(senses.read_flow_pictures, folder).images, read(senses.read_pictures, folder).images
    )


def test_flow_read_from_a_file_is_coloured_as_flow_of_the_video(tmp_path):
    """The same motion, 3 pixels a frame to the right at 10 frames a second."""
    path = write_video(tmp_path / "a.mkv", frames=10, fps=10, picture=sliding(3))
    made = read(senses.flow_of_video, path).images.reshape(-1, 3).mean(axis=0)
    flow = np.zeros((9, 48, 64, 2), np.float32)
    flow[..., 0] = 3
    given = read(senses.read_flow_pictures, save(tmp_path / "a.npy", flow), rate=10.0).images
    assert np.abs(made - given.reshape(-1, 3).mean(axis=0)).max() < 25


def test_normals_and_temperatures_are_coloured_by_fixed_scales(tmp_path):
    normals = np.random.default_rng(0).normal(size=(3, 6, 8, 3)).astype(np.float32)
    normals[..., 2] = -np.abs(normals[..., 2])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0, 0, 0] = np.nan
    found = read(senses.read_normal_pictures, save(tmp_path / "a.npy", normals))
    assert np.array_equal(found.images, normal_to_rgb(normals))
    celsius = np.linspace(-30, 130, 48).reshape(6, 8)
    found = read(senses.read_thermal_pictures, save(tmp_path / "a.npy", celsius))
    assert np.array_equal(found.images[0], thermal_to_rgb(celsius))


@pytest.mark.parametrize(
    "reader",
    [senses.read_touch_pictures, senses.read_thermal_pictures, senses.read_normal_pictures],
)
def test_pictures_as_arrays_are_taken_as_they_are(tmp_path, reader):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), np.uint8)
    found = read(reader, save(tmp_path / "a.npy", pictures))
    assert np.array_equal(found.images, pictures)
    assert np.array_equal(read(reader, save(tmp_path / "a.npy", pictures[0])).images, pictures[:1])


def test_a_stated_start_moves_the_sound(tmp_path):
    path = write_audio(tmp_path / "a.wav")
    assert read(senses.read_sound, path).start == 0
    assert read(senses.read_sound, path, start=0.4).start == 0.4


def test_a_cloud_is_read_as_it_is(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3 255 0 0\n")
    cloud = read(senses.read_points, tmp_path / "a.xyz")
    assert (cloud.xyz.tolist(), cloud.rgb.tolist()) == ([[1, 2, 3]], [[255, 0, 0]])

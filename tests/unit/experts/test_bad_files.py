"""Broken, odd and huge files, for the reader of every built-in sense: always a MediaError of one
line that names the file, never another exception."""

import contextlib
import io
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import ones

from media_factory import truncate, write_audio, write_frames_folder, write_text, write_video
from open_crema import modality
from open_crema.errors import MediaError, SenseAbsent
from open_crema.media import Clip, Limits, TimeLine

VIDEO = TimeLine(np.arange(6) / 10, 0.6, 64, 48, "video.mp4")
MAPS = ("flow", "depth", "normal", "touch", "thermal")
SENSES = tuple(kind.name for kind in modality.BUILT_INS)
GOOD = {  # an array that each sense takes, [n, H, W(, C)]
    "flow": np.ones((6, 48, 64, 2), np.float32),
    "depth": np.ones((6, 48, 64), np.float32),
    "normal": np.full((6, 48, 64, 3), (0, 0, -1), np.float32),
    "touch": np.ones((6, 48, 64, 3), np.uint8),
    "thermal": np.full((6, 48, 64), 20, np.float32),
}
EVERY_MAP = pytest.mark.parametrize("sense", MAPS)
EVERY_SENSE = pytest.mark.parametrize("sense", SENSES)


def read(sense, path, **changed):
    clip = Clip(**{"frames": 4, "video": None if sense == "video" else VIDEO} | changed)
    return modality.resolve(modality.get(sense).reader)(path, clip)


def refused(sense, path, said, *, names=None, **changed):
    with pytest.raises(MediaError, match=said) as caught:
        read(sense, path, **changed)
    assert str(names or path) in str(caught.value)
    assert "\n" not in str(caught.value)


def save(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def array_folder(path, sense, count=6):
    path.mkdir()
    for i in range(count):
        np.save(path / f"{i}.npy", GOOD[sense][i])
    return path


# --- what every reader refuses --------------------------------------------------------------------

NAMES = ("a.mp4", "a.png", "a.npy", "a.npz", "a.flo", "a.ply", "a.xyz", "a.safetensors", "a.wav")


@EVERY_SENSE
@pytest.mark.parametrize("name", NAMES)
def test_missing_and_empty_files(tmp_path, sense, name):
    refused(sense, tmp_path / name, "no such file")
    (tmp_path / name).touch()
    refused(sense, tmp_path / name, r"the file is empty \(0 bytes\): copy or download it again")


@EVERY_SENSE
@pytest.mark.parametrize("name", NAMES)
def test_text_under_any_name(tmp_path, sense, name):
    with pytest.raises((MediaError, SenseAbsent), match=r"a\.") as caught:
        read(sense, write_text(tmp_path / name))
    assert sense == "audio" or isinstance(caught.value, MediaError)


@EVERY_SENSE
def test_a_file_that_may_not_be_opened(tmp_path, sense, monkeypatch):
    path = write_video(tmp_path / "a.mp4") if sense != "point" else tmp_path / "a.xyz"
    if sense == "point":
        path.write_text("1 2 3")

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    refused(sense, path, "cannot be opened: Permission denied")


@EVERY_SENSE
def test_a_folder_that_may_not_be_listed(tmp_path, sense, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", denied)
    if sense == "audio":
        with pytest.raises(SenseAbsent):
            read(sense, tmp_path)
    else:
        refused(sense, tmp_path, "cannot be listed: Permission denied|not a point cloud")


@EVERY_SENSE
def test_an_empty_folder(tmp_path, sense):
    if sense == "audio":
        with pytest.raises(SenseAbsent):
            read(sense, tmp_path)
    else:
        refused(sense, tmp_path, "holds no images|not a point cloud")


@EVERY_SENSE
def test_a_file_named_through_a_link_is_read(tmp_path, sense):
    outside = tmp_path / "outside"
    outside.mkdir()
    if sense == "point":
        (outside / "a.xyz").write_text("1 2 3")
    elif sense == "audio":
        write_audio(outside / "a.wav")
    else:
        write_video(outside / "a.mp4")
    (found,) = outside.iterdir()
    (tmp_path / found.name).symlink_to(found)
    read(sense, tmp_path / found.name)
    found.unlink()
    refused(sense, tmp_path / found.name, "no such file")


@EVERY_SENSE
def test_bytes_over_the_limit(tmp_path, sense):
    path = tmp_path / ("a.xyz" if sense == "point" else "a.mp4")
    path.write_bytes(b"1 2 3\n" * 10)
    refused(sense, path, r"limit is 10 bytes.*data\.limits\.bytes", limits=Limits(max_bytes=10))


# --- maps -----------------------------------------------------------------------------------------


@EVERY_MAP
def test_what_is_right_is_read(tmp_path, sense):
    """So that the refusals below are of what they change."""
    np.savez(tmp_path / "a.npz", GOOD[sense])
    found = [
        read(sense, save(tmp_path / "a.npy", GOOD[sense])),
        read(sense, tmp_path / "a.npz"),
        read(sense, array_folder(tmp_path / "f", sense)),
    ]
    for frames in found:
        assert frames.images.shape == (4, 48, 64, 3)
        assert frames.images.dtype == np.uint8
        assert np.array_equal(frames.images, found[0].images)
        assert frames.times[-1, 1] == 0.6
    assert len(np.unique(found[0].images.reshape(-1, 3), axis=0)) == 1


@EVERY_MAP
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a[..., None, None], r"expected .*\[n, H, W.*found shape"),
        (lambda a: np.float32(1), r"found shape \(\)"),
        (lambda a: a[:0], r"found shape \(0, "),
        (lambda a: a.astype(np.complex64), "of complex64"),
        (lambda a: a.astype(np.int32), "of int32"),
        (lambda a: a.astype("U4"), "of <U4"),
        (lambda a: a.astype(bool), "of bool"),
        (lambda a: np.array([{}], dtype=object), "not a readable NumPy file"),
        (lambda a: a[:5], None),
    ],
)
def test_arrays_of_other_things(tmp_path, sense, change, said):
    array = change(GOOD[sense])
    if said is None and sense != "flow":  # n pictures have n - 1 flows
        said = r"5 maps, while the video video\.mp4 has 6 pictures.*'times'.*\"rate\""
    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        save(path, array) if name == "a.npy" else np.savez(path, array)
        if said is None:
            read(sense, path)
        else:
            refused(sense, path, said)


@pytest.mark.parametrize("sense", [s for s in MAPS if s != "touch"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_without_one_finite_number(tmp_path, sense, value):
    refused(
        sense,
        save(tmp_path / "a.npy", np.full_like(GOOD[sense], value)),
        "finite number|valid depth",
    )
    some = GOOD[sense].copy()
    some[:, :24] = value
    images = read(sense, save(tmp_path / "a.npy", some)).images
    assert not images[:, :24].any()  # black: unknown
    assert images[:, 24:].any()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_depth_that_is_nowhere_valid(tmp_path, value):
    refused("depth", save(tmp_path / "a.npy", GOOD["depth"] * value), "holds no valid depth in any")
    folder = tmp_path / "f"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(np.full((48, 64), 65535 * (i % 2), np.uint16)).save(folder / f"{i}.png")
    refused("depth", folder, "holds no valid depth in any of the 4 maps")


@EVERY_MAP
def test_one_map_stands_for_the_whole_clip(tmp_path, sense):
    rate = {"rate": 10.0} if sense == "flow" else {}  # its unit is pixels from one to the next
    frames = read(sense, save(tmp_path / "a.npy", GOOD[sense][0]), **rate)
    assert frames.images.shape == (1, 48, 64, 3)
    assert frames.times.tolist() == [[0, 0.6]]


@EVERY_MAP
def test_limits_of_maps(tmp_path, sense):
    for path, names in [
        (save(tmp_path / "a.npy", GOOD[sense]), None),
        (array_folder(tmp_path / "f", sense), "0.npy"),
    ]:
        small = Limits(max_pixels=3000)
        refused(
            sense,
            path,
            r"limit is 3000 pixels, .*64 x 48.*data\.limits\.pixels",
            limits=small,
            names=names,
        )
        short = Limits(max_seconds=0.5)
        refused(sense, path, r"limit is 0\.5 seconds.*data\.limits\.seconds", limits=short)
    few = Limits(max_files=5)
    refused(sense, tmp_path / "f", r"limit is 5 files, this is 6 files.*limits\.files", limits=few)
    write_frames_folder(tmp_path / "g", frames=6)
    refused(sense, tmp_path / "g", "limit is 5 files", limits=few)


@EVERY_MAP
def test_a_sequence_with_a_broken_member(tmp_path, sense):
    folder = array_folder(tmp_path / "f", sense)
    for damage, said in [
        (lambda file: file.write_bytes(b""), r"the file is empty \(0 bytes\)"),
        (lambda file: truncate(save(file, GOOD[sense][1]), 0.5), "not a readable NumPy file"),
        (lambda file: save(file, GOOD[sense][1][:24]), r"32 x 24|64 x 24 pixels, the ones before"),
        (lambda file: save(file, GOOD[sense][:2]), "holds 2 maps: in a folder every file is one"),
    ]:
        damage(folder / "1.npy")
        refused(sense, folder, said, names=folder / "1.npy", frames=6)
    pictures = write_frames_folder(tmp_path / "g", frames=6)
    for data in (b"", b"\x89PNG\r\n\x1a\n"):
        (pictures / "frame2.png").write_bytes(data)
        refused(sense, pictures, "is empty|is damaged", names=pictures / "frame2.png", frames=6)
    Image.new("RGB", (32, 48)).save(pictures / "frame2.png")
    refused(
        sense,
        pictures,
        "32 x 48 pixels, the ones before it 64 x 48",
        frames=6,
        names=pictures / "frame2.png",
    )


@EVERY_MAP
def test_a_sequence_with_a_gap_in_its_numbering(tmp_path, sense):
    folder = array_folder(tmp_path / "f", sense)
    (folder / "3.npy").rename(folder / "30.npy")
    assert len(read(sense, folder).images) == 4


@EVERY_MAP
def test_images_and_arrays_in_one_folder(tmp_path, sense):
    folder = array_folder(tmp_path / "f", sense)
    Image.new("RGB", (64, 48)).save(folder / "0.png")
    refused(sense, folder, "mixes images and .npy files: keep each sequence in a folder")
    pictures = write_frames_folder(tmp_path / "g", frames=6)
    before = read(sense, pictures).images
    np.save(pictures / "poses.npy", np.eye(4))  # beside images, one is about them
    assert np.array_equal(read(sense, pictures).images, before)


@EVERY_MAP
def test_a_count_that_does_not_fit_the_video(tmp_path, sense):
    folder = write_frames_folder(tmp_path / "f", frames=4)
    refused(sense, folder, r'4 maps, while the video .* 6 pictures.*timestamps\.txt.*"rate"')
    assert len(read(sense, folder, rate=5.0).images) == 4


@EVERY_MAP
def test_time_stamps_in_an_archive(tmp_path, sense):
    path = tmp_path / "a.npz"
    np.savez(path, GOOD[sense], times=np.arange(6) / 10)
    assert len(read(sense, path).images) == 4
    for times, said in [
        (np.arange(5), r"6 maps need time stamps \[6\]"),
        (np.arange(6) * -1.0, "must increase"),
        (np.full(6, np.nan), "NaN"),
        (np.arange(6) + 9.0, "no time in common"),
        (np.array(["a"] * 6), "'times' must be numbers"),
    ]:
        np.savez(path, GOOD[sense], times=times)
        refused(sense, path, said)
    for rate, said in [(0.0, "above 0"), (np.inf, "above 0"), ([1, 2], "one number")]:
        np.savez(path, GOOD[sense], rate=rate)
        refused(sense, path, said)


@EVERY_MAP
def test_a_sound_is_no_map(tmp_path, sense):
    with pytest.raises(SenseAbsent):
        read(sense, write_audio(tmp_path / "a.wav"))


# --- values that are of another unit --------------------------------------------------------------


@pytest.mark.parametrize("value", [293.15, 29315.0, -300.0, -9999.0])
def test_temperatures_that_are_not_degrees_celsius(tmp_path, value):
    path = save(tmp_path / "a.npy", np.full((48, 64), value))
    refused("thermal", path, "no scene in degrees Celsius: subtract 273.15 from kelvin")


@pytest.mark.parametrize("sense", ["thermal", "touch", "normal", "flow", "video"])
def test_raw_counts_of_a_sensor_have_no_unit(tmp_path, sense):
    Image.fromarray(np.full((48, 64), 29315, np.uint16)).save(tmp_path / "a.png")
    refused(sense, tmp_path / "a.png", "raw counts .* no unit.*degrees Celsius")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: (n + 1) / 2, "length 1, half of these have 0.707 or more.*decode them"),
        (lambda n: n * 255, "half of these have 255"),
        (lambda n: -n, "point away from the camera"),
        (lambda n: n * 0, "all are zero or NaN"),
    ],
)
def test_normals_of_another_code(tmp_path, change, said):
    refused("normal", save(tmp_path / "a.npy", change(GOOD["normal"])), said)


def test_normals_that_are_nearly_unit_are_scaled(tmp_path):
    exact = read("normal", save(tmp_path / "a.npy", GOOD["normal"])).images
    near = GOOD["normal"] * np.linspace(0.95, 1.04, 64, dtype=np.float32)[:, None]
    assert np.array_equal(read("normal", save(tmp_path / "a.npy", near)).images, exact)


# --- anything at all ------------------------------------------------------------------------------


def _bytes(suffix):
    """A small good file of each kind."""
    made = io.BytesIO()
    match suffix:
        case ".npy":
            np.save(made, np.ones((6, 4, 6), np.float32))
        case ".npz":
            np.savez_compressed(made, depth=np.ones((6, 4, 6), np.float32), times=np.arange(6) / 9)
        case ".png":
            Image.fromarray(np.full((4, 6), 1000, np.uint16)).save(made, "PNG")
        case ".jpg":
            Image.new("RGB", (6, 4)).save(made, "JPEG")
        case ".flo":
            made.write(b"PIEH" + struct.pack("<ii", 6, 4) + np.ones(48, "<f4").tobytes())
        case ".xyz":
            made.write(b"1 2 3 0 0 255\n4 5 6 255 0 0\n")
        case ".ply":
            made.write(
                b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\n"
                b"property float y\nproperty float z\nend_header\n" + np.ones(6, "<f4").tobytes()
            )
    return made.getvalue()


FILES = {s: _bytes(s) for s in (".npy", ".npz", ".png", ".jpg", ".flo", ".xyz", ".ply")}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    path = tmp_path_factory.mktemp("scratch")
    save_file({"features": ones(6, 2, 3)}, path / "good.safetensors")
    FILES[".safetensors"] = (path / "good.safetensors").read_bytes()
    return path


@settings(
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_damage_never_escapes_as_another_error(scratch, data):
    suffix = data.draw(st.sampled_from(sorted(FILES)))
    whole = bytearray(FILES[suffix])
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)
    ):
        whole[at] = value
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    path = scratch / f"a{suffix}"
    path.write_bytes(whole[:cut])
    for sense in SENSES:
        for video in (VIDEO, None):
            with contextlib.suppress(MediaError, SenseAbsent):
                read(sense, path, video=video, limits=Limits(max_pixels=10**6, max_points=10**5))
    os.unlink(path)


@settings(max_examples=60)
@given(suffix=st.sampled_from([*FILES, ".safetensors"]), content=st.binary(max_size=200))
def test_any_bytes_at_all(tmp_path_factory, suffix, content):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    for sense in SENSES:
        with contextlib.suppress(MediaError, SenseAbsent):
            read(sense, path)

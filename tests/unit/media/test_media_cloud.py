"""Point clouds from PLY, text and NumPy files."""

import numpy as np
import pytest

from media_factory import truncate
from open_crema.errors import MediaError
from open_crema.media import Clip, Limits, read_cloud

XYZ = np.array([[0, 1, 2.5], [-3, 4, 5], [6, 7, 8]], np.float32)
RGB = np.array([[0, 128, 255], [1, 2, 3], [255, 255, 255]], np.uint8)
FIELDS = ("x", "y", "z", "red", "green", "blue")


def write_ply(path, form="binary_little_endian", *, colour=True, types=None, before="", after=""):
    names = FIELDS if colour else FIELDS[:3]
    types = types or ["float"] * 3 + ["uchar"] * 3
    header = [f"ply\nformat {form} 1.0\ncomment made for a test\n{before}element vertex {len(XYZ)}"]
    header += [f"property {type} {name}" for type, name in zip(types, names, strict=False)]
    header += [f"{after}end_header\n"]
    data = "\n".join(header).encode()
    if form == "ascii":
        rows = np.hstack([XYZ, RGB]) if colour else XYZ
        data += "".join(" ".join(f"{v:g}" for v in row) + "\n" for row in rows).encode()
    else:
        order = "<" if "little" in form else ">"
        code = {"float": "f4", "double": "f8", "uchar": "u1"}
        rows = np.empty(
            len(XYZ), [(n, order + code[t]) for n, t in zip(names, types, strict=False)]
        )
        for i, name in enumerate(names):
            rows[name] = (XYZ if i < 3 else RGB)[:, i % 3]
        data += rows.tobytes()
    path.write_bytes(data)
    return path


def check(cloud, *, colour=True):
    assert cloud.xyz.dtype == np.float32
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    if colour:
        assert cloud.rgb.dtype == np.uint8
        np.testing.assert_array_equal(cloud.rgb, RGB)
    else:
        assert cloud.rgb is None


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("colour", [True, False])
def test_ply(tmp_path, form, colour):
    check(read_cloud(write_ply(tmp_path / "a.ply", form, colour=colour), Clip()), colour=colour)


def test_ply_as_other_programs_write_it(tmp_path):
    types = ["double"] * 3 + ["uchar"] * 3
    path = write_ply(
        tmp_path / "a.ply",
        types=types,
        after="element face 9\nproperty list uchar int vertex_indices\n",
    )
    check(read_cloud(path, Clip()))
    ascii = write_ply(
        tmp_path / "b.ply",
        "ascii",
        after="element face 1\nproperty list uchar int vertex_indices\n",
    )
    ascii.write_bytes(ascii.read_bytes().replace(b"\n", b"\r\n") + b"3 0 1 2\r\n")
    check(read_cloud(ascii, Clip()))


@pytest.mark.parametrize("name", ["a.xyz", "a.txt"])
def test_text(tmp_path, name):
    rows = [" ".join(map(str, [*p, *c])) for p, c in zip(XYZ, RGB, strict=True)]
    (tmp_path / name).write_text("# x y z r g b\n" + "\n".join(rows) + "\n\n")
    check(read_cloud(tmp_path / name, Clip()))
    (tmp_path / name).write_text("\n".join(",".join(map(str, p)) for p in XYZ))
    check(read_cloud(tmp_path / name, Clip()), colour=False)


@pytest.mark.parametrize("names", [("xyz", "rgb"), ("points", "colors")])
def test_arrays(tmp_path, names):
    np.savez(tmp_path / "a.npz", **{names[0]: XYZ.astype(np.float64), names[1]: RGB})
    check(read_cloud(tmp_path / "a.npz", Clip()))
    np.save(tmp_path / "a.npy", np.hstack([XYZ, RGB]))
    check(read_cloud(tmp_path / "a.npy", Clip()))
    np.save(tmp_path / "a.npy", XYZ)
    check(read_cloud(tmp_path / "a.npy", Clip()), colour=False)


def test_colours_are_fractions_or_whole_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=XYZ, rgb=RGB / 255)
    check(read_cloud(tmp_path / "a.npz", Clip()))
    np.savez(tmp_path / "a.npz", xyz=XYZ, rgb=np.ones((3, 3), np.uint8))
    assert read_cloud(tmp_path / "a.npz", Clip()).rgb.max() == 1


def test_one_point(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3")
    assert read_cloud(tmp_path / "a.xyz", Clip()).xyz.tolist() == [[1, 2, 3]]


def npz(**arrays):
    return lambda path: np.savez(path / "a.npz", **arrays) or path / "a.npz"


def text(data, name="a.xyz"):
    return lambda path: (path / name).write_text(data) and path / name


def ply(old, new):
    def make(path):
        made = write_ply(path / "a.ply", "ascii")
        made.write_text(made.read_text().replace(old, new))
        return made

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (npz(xyz=[[0, 0, 0], [1, np.nan, 1], [1, 1, np.inf]]), "in 2 of 3 points, .* row 1: drop"),
        (npz(xyz=np.full((1, 3), 1e300)), "NaN or infinity in 1 of 1"),
        (npz(xyz=np.zeros((0, 3))), r"at least one, found float64 \[0, 3\]"),
        (npz(xyz=np.zeros((5, 2))), r"\[N, 3\]"),
        (npz(xyz=np.zeros(())), r"found float64 \[\]"),
        (npz(xyz=np.zeros((1, 1, 1, 3))), r"found float64 \[1, 1, 1, 3\]"),
        (npz(xyz=np.zeros((5, 3), complex)), "found complex128"),
        (npz(xyz=np.array([[None] * 3])), "not a readable NumPy file"),
        (npz(xyz=XYZ, rgb=RGB[:2]), r"colours as numbers \[3, 3\], .* found uint8 \[2, 3\]"),
        (npz(xyz=XYZ, rgb=RGB - 300.0), "0 to 255, or fractions 0 to 1; row 0"),
        (npz(xyz=XYZ, rgb=np.full((3, 3), np.nan)), "row 0 is"),
        (npz(other=XYZ), "has no array 'xyz' or 'points'.*it holds 'other'"),
        (text("1 2 3\n1 2\n"), "line 2: expected x y z"),
        (text("1 2\n"), "line 1: expected x y z"),
        (text("1 2 3\na b c\n"), "line 2: expected numbers"),
        (text("1 2 3\nnan 1 1\n"), "row 1"),
        (text("# nothing\n"), "holds no point"),
        (text("nothing", "a.ply"), "does not begin with a whole PLY header"),
        (ply("format", "fromat"), "header holds 'fromat"),
        (ply("vertex 3", "vertex 4"), "cut short: its header promises 4"),
        (ply("vertex 3", "vertex 0"), "it has no point"),
        (ply("vertex 3", "vertex 99999999"), r"limit is 10000000 points"),
        (ply("vertex 3", "vertex -3"), "header holds 'element vertex -3'"),
        (ply("float x", "float a"), "no 'x'"),
        (ply("float x", "list uchar float x"), "lists"),
        (ply("float x", "float y"), "twice"),
        (ply("float x", "quad x"), "header holds 'property quad x'"),
        (ply("-3 4 5", "-3 4"), "not rows"),
        (ply("-3 4 5", "-3 four 5"), "not rows of numbers"),
        (ply("-3 4 5", "-3 nan 5"), "row 1"),
        (lambda p: truncate(write_ply(p / "a.ply"), 0.95), "cut short"),
        (lambda p: p, "not a point cloud"),
        (text("x", "a.pcd"), "not a point cloud: give a .ply"),
    ],
)
def test_refusals(tmp_path, make, said):
    path = make(tmp_path)
    with pytest.raises(MediaError, match=said) as caught:
        read_cloud(path, Clip())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.ply", "b.ply", "a.xyz", "a.npy", "a.npz"])
def test_more_points_than_the_limit(tmp_path, name):
    path = tmp_path / name
    match name:
        case "a.ply":
            write_ply(path)
        case "b.ply":
            write_ply(path, "ascii")
        case "a.xyz":
            path.write_text("1 2 3\n" * 3)
        case "a.npy":
            np.save(path, XYZ)
        case "a.npz":
            np.savez(path, xyz=XYZ)
    with pytest.raises(MediaError, match=r"limit is 2 points, this is .*data\.limits\.points"):
        read_cloud(path, Clip(8, Limits(max_points=2)))
    assert len(read_cloud(path, Clip(8, Limits(max_points=3))).xyz) == 3

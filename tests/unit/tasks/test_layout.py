"""Where media are found, and what is no medium of a sense."""

import pytest

from open_crema.errors import DataError
from open_crema.tasks.layout import MediaIndex


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(b"x")
        return MediaIndex(tmp_path)

    return make


@pytest.mark.parametrize(
    "name",
    ["a.mp4", "a.webm", "video/a.mkv", "videos/a.MP4", "video/a/", "rgbd/a/", "video/a.b.mp4"],
)
def test_a_video_has_several_places_and_endings(touch, tmp_path, name):
    wanted = "a.b" if "a.b" in name else "a"
    assert touch(name).find("video", (wanted,)) == tmp_path / name


@pytest.mark.parametrize("name", ["a.txt", "a.wav", "a.npz", "a/", "audio/a.mp4", "ab.mp4"])
def test_what_is_no_video(touch, name):
    assert touch(name).find("video", ("a",)) is None


def test_senses_have_folders_of_their_own(touch, tmp_path):
    index = touch("audio/a.flac", "flow/a/", "depths/a.npy", "point/a.ply", "point/b.txt", "a.mp4")
    assert index.senses == ["video", "audio", "flow", "depth", "point"]
    found = {sense: index.find(sense, ("a",)) for sense in index.senses}
    assert all(found.values())
    assert index.find("point", ("b",)) == tmp_path / "point" / "b.txt"
    assert index.find("thermal", ("a",)) is None
    assert index.find("audio", ("b", "a")) == tmp_path / "audio" / "a.flac"


def test_a_file_is_taken_before_a_folder(touch, tmp_path):
    index = touch("video/a/", "video/a.mp4")
    assert index.find("video", ("a",)) == tmp_path / "video" / "a.mp4"


def test_names_may_have_folders(touch, tmp_path):
    index = touch("video/1164/a.mp4")
    assert index.find("video", ("1164/a", "a")) == tmp_path / "video" / "1164" / "a.mp4"
    assert index.expected("video", "1164/b") == tmp_path / "video" / "1164" / "b.mp4"
    assert index.expected("flow", "b") == tmp_path / "flow" / "b"


def test_what_lies_beside_is_named(touch, tmp_path):
    index = touch("video/a.txt", "video/a.mp4.part")
    assert index.beside("video", ("a",)) == [tmp_path / "video" / "a.txt"]


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="no folder of media"):
        MediaIndex(tmp_path / "none")


def test_points_of_a_scan_as_scannet_has_it(tmp_path):
    cloud = tmp_path / "scans" / "scene0001_00" / "scene0001_00_vh_clean_2.ply"
    cloud.parent.mkdir(parents=True)
    index = MediaIndex(tmp_path)
    assert "point" in index.senses
    assert index.find("point", ("scene0001_00",)) is None
    assert index.expected("point", "scene0001_00") == cloud
    cloud.touch()
    index = MediaIndex(tmp_path)
    assert index.find("point", ("x", "scene0001_00")) == cloud
    own = tmp_path / "point" / "scene0001_00.npz"  # features made before go first
    own.parent.mkdir()
    own.touch()
    assert MediaIndex(tmp_path).find("point", ("scene0001_00",)) == own

import os

import numpy as np
import pytest

from open_crema.errors import ConfigError, DataError
from open_crema.tasks import load
from open_crema.tasks.media_folder import scan
from rgbd_factory import Plane, pose, write_rgbd


@pytest.fixture
def folder(tmp_path):
    """Fills a folder with empty files and, where a name ends with "/", folders."""
    root = tmp_path / "clips"
    root.mkdir()

    def fill(*names):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.touch()
        return root

    return fill


def media(root, found):
    """id -> sense -> path in the folder."""
    return {
        sample.id: {s: os.path.relpath(path, root) for s, path in sample.media.items()}
        for sample in found.samples
    }


def test_each_video_and_sound_file_is_a_sample(folder):
    root = folder("b.mp4", "a.wav", "deep/er/c.MKV", "deep/a.wav", "v1.2.mov")
    found = scan(root)
    assert media(root, found) == {
        "a.wav": {"audio": "a.wav"},
        "b.mp4": {"video": "b.mp4"},
        "v1.2.mov": {"video": "v1.2.mov"},
        "deep/a.wav": {"audio": "deep/a.wav"},
        "deep/er/c.MKV": {"video": "deep/er/c.MKV"},
    }
    assert all(sample.question == "" for sample in found.samples)
    assert (found.refused, found.ignored) == ({}, ())


def test_what_lies_beside_a_clip_is_its_own_sense(folder):
    root = folder(
        "a.mp4",
        "a.depth/0.png",
        "a.thermal.npz",
        "a.audio.wav",
        "a.flow.mp4",
        "b.wav",
        "b.touch.png",
    )
    assert media(root, scan(root)) == {
        "a.mp4": {
            "video": "a.mp4",
            "depth": "a.depth",
            "thermal": "a.thermal.npz",
            "audio": "a.audio.wav",
            "flow": "a.flow.mp4",
        },
        "b.wav": {"audio": "b.wav", "touch": "b.touch.png"},
    }


def test_a_sense_without_its_clip(folder):
    root = folder("a.audio.wav", "b.depth/0.png", "c.thermal.npz", "x/a.mp4")
    found = scan(root)
    assert media(root, found) == {
        "a.audio.wav": {"audio": "a.audio.wav"},
        "x/a.mp4": {"video": "x/a.mp4"},
    }
    assert found.ignored == ("b.depth/0.png", "c.thermal.npz")


def test_of_a_video_and_a_sound_of_one_name_the_video_has_the_senses(folder):
    root = folder("a.mp4", "a.wav", "a.thermal.npz")
    assert media(root, scan(root)) == {
        "a.mp4": {"video": "a.mp4", "thermal": "a.thermal.npz"},
        "a.wav": {"audio": "a.wav"},
    }


def test_an_rgbd_folder_is_a_clip(tmp_path):
    root = tmp_path / "clips"
    wall = [Plane((0, 0, 1), 2.0)]
    write_rgbd(root / "room", wall, [pose(), pose(yaw=5)])
    np.savez(root / "room.thermal.npz", thermal=np.zeros(3))
    assert media(root, scan(root)) == {"room": {"video": "room", "thermal": "room.thermal.npz"}}


def test_what_belongs_to_no_clip_is_named(folder):
    root = folder(
        "a.mp4", "a.termal.npz", "notes.txt", "pictures/1.png", ".hidden.mp4", ".git/x.mp4"
    )
    found = scan(root)
    assert found.ignored == ("a.termal.npz", "notes.txt", "pictures/1.png")
    assert [sample.id for sample in found.samples] == ["a.mp4"]


def test_the_store_is_passed_over(folder, monkeypatch):
    root = folder("a.mp4", "store/b.mp4")
    assert [s.id for s in scan(root, leave_out=root / "store").samples] == ["a.mp4"]
    monkeypatch.chdir(root)
    assert [s.id for s in scan(".", leave_out=root / "store").samples] == ["a.mp4"]


def test_two_files_for_one_sense(folder):
    root = folder("a.mp4", "a.depth.npz", "a.depth/", "b.wav", "b.audio.wav")
    refused = scan(root).refused
    assert [os.path.basename(path) for path in refused] == ["a.depth", "b.wav"]
    assert "a.depth.npz is given for depth as well" in str(refused)


@pytest.mark.parametrize("content", [(), (".x.mp4",), ("notes.txt", "deep/")])
def test_a_folder_without_any_clip(folder, content):
    with pytest.raises(DataError, match=r"clips: holds no video or sound file"):
        scan(folder(*content))


class TestLinks:
    @pytest.fixture
    def outside(self, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside/secret.mp4").touch()
        return tmp_path / "outside"

    def test_a_clip_that_is_outside(self, folder, outside):
        root = folder("a.mp4")
        (root / "b.mp4").symlink_to(outside / "secret.mp4")
        found = scan(root)
        assert [sample.id for sample in found.samples] == ["a.mp4", "b.mp4"]
        assert list(found.refused) == [str(root / "b.mp4")]
        assert "b.mp4: a symbolic link out of" in found.refused[str(root / "b.mp4")]

    def test_a_sense_that_is_outside(self, folder, outside):
        root = folder("a.mp4", "b.mp4", "b.depth/0.png")
        (root / "a.depth").symlink_to(outside)
        (root / "b.depth/1.png").symlink_to(outside / "secret.mp4")
        found = scan(root)
        assert list(found.refused) == [str(root / "a.depth"), str(root / "b.depth")]
        assert "b.depth/1.png: a symbolic link out" in found.refused[str(root / "b.depth")]

    def test_a_folder_that_is_outside(self, folder, outside):
        root = folder("a.mp4")
        (root / "more").symlink_to(outside)
        found = scan(root)
        assert [sample.id for sample in found.samples] == ["a.mp4"]
        assert list(found.refused) == [str(root / "more")]

    def test_links_inside_lead_nowhere_twice(self, folder):
        root = folder("a.mp4", "deep/b.mp4")
        (root / "again").symlink_to(root / "deep")
        (root / "deep/up").symlink_to(root)
        (root / "c.mp4").symlink_to("a.mp4")
        found = scan(root)
        assert [sample.id for sample in found.samples] == ["a.mp4", "c.mp4", "deep/b.mp4"]
        assert found.refused == {}

    def test_links_to_nothing(self, folder):
        root = folder("a.mp4")
        (root / "b.mp4").symlink_to("b.mp4")
        (root / "c.mp4").symlink_to("gone.mp4")
        assert "b.mp4" in [sample.id for sample in scan(root).samples]

    def test_the_folder_itself_may_be_one(self, folder, tmp_path):
        root = folder("a.mp4")
        (tmp_path / "link").symlink_to(root)
        assert media(tmp_path / "link", scan(tmp_path / "link")) == {"a.mp4": {"video": "a.mp4"}}


def test_a_closed_folder_is_named(folder, monkeypatch):
    root = folder("a.mp4", "closed/b.mp4")
    listed = type(root).iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(type(root), "iterdir", iterdir)
    found = scan(root)
    assert [sample.id for sample in found.samples] == ["a.mp4"]
    assert "cannot be listed (Permission denied)" in found.refused[str(root / "closed")]


def test_a_data_file_of_media_alone(tmp_path):
    path = tmp_path / "media.jsonl"
    path.write_text('{"video": "a.mp4"}\n{"media": {"audio": "b.wav"}, "question": "What?"}\n')
    options = {"answers_required": False, "questions_required": False}
    first, second = load("jsonl", path, **options)
    assert (first.question, dict(first.media)) == ("", {"video": str(tmp_path / "a.mp4")})
    assert "What?" in second.question
    with pytest.raises(DataError, match="field 'question' is missing"):
        load("jsonl", path, answers_required=False)
    path.write_text("\n")
    with pytest.raises(DataError, match=r"media\.jsonl: holds no media"):
        load("jsonl", path, **options)
    with pytest.raises(ConfigError, match="did you mean 'jsonl'"):
        load("json", path)

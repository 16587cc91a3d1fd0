import hashlib
import os
import time
from pathlib import Path

import pytest

from open_crema.data.store import FeatureStore
from open_crema.errors import MediaError


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files whose content was read to hash it."""
    names = []
    digest = hashlib.file_digest

    def count(file, algorithm):
        names.append(os.path.basename(file.name))
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", count)
    return names


def write(path, content, age=100):
    """A file last changed that many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_source_is_hashed_once(store, tmp_path, hashed):
    path = write(tmp_path / "a.mp4", b"content")
    first = store.source_digest(path)
    assert first == hashlib.sha256(b"content").hexdigest()
    assert FeatureStore(store.root).source_digest(str(path)) == first
    assert hashed == ["a.mp4"]


def test_the_digest_is_of_content_not_of_name(store, tmp_path):
    first = store.source_digest(write(tmp_path / "a.mp4", b"content"))
    assert store.source_digest(write(tmp_path / "sub" / "b.avi", b"content")) == first


def test_a_relative_path_is_the_same_source(store, tmp_path, hashed, monkeypatch):
    path = write(tmp_path / "a.mp4", b"content")
    monkeypatch.chdir(tmp_path)
    assert store.source_digest("a.mp4") == store.source_digest(path)
    assert hashed == ["a.mp4"]


def test_new_content_of_the_same_size_is_noticed_by_its_time(store, tmp_path, hashed):
    path = write(tmp_path / "a.mp4", b"content", age=100)
    first = store.source_digest(path)
    write(path, b"CONTENT", age=50)
    assert store.source_digest(path) == hashlib.sha256(b"CONTENT").hexdigest() != first
    assert len(hashed) == 2


def test_a_touched_file_is_hashed_again_to_the_same_digest(store, tmp_path, hashed):
    path = write(tmp_path / "a.mp4", b"content", age=100)
    first = store.source_digest(path)
    write(path, b"content", age=50)
    assert store.source_digest(path) == first
    assert store.source_digest(path) == first
    assert len(hashed) == 2


def test_a_file_changed_just_now_is_not_trusted_by_its_time(store, tmp_path):
    path = tmp_path / "a.mp4"
    moment = time.time()
    digests = set()
    for content in (b"one", b"two"):  # within one tick of a coarse clock
        path.write_bytes(content)
        os.utime(path, (moment, moment))
        digests.add(store.source_digest(path))
    assert len(digests) == 2


def test_a_damaged_record_is_ignored(store, tmp_path):
    path = write(tmp_path / "a.mp4", b"content")
    first = store.source_digest(path)
    (record,) = (store.root / "sources").iterdir()
    for damage in (b"", b"{", b"[]", b"{}", b"3", b"\xff", b'{"stamp": 1, "sha256": "x"}'):
        record.write_bytes(damage)
        assert store.source_digest(path) == first


def test_a_folder_is_its_names_and_contents(store, tmp_path):
    def folder(name, files):
        for file, content in files.items():
            write(tmp_path / name / file, content)
        return store.source_digest(tmp_path / name)

    first = folder("a", {"1.png": b"x", "2.png": b"y"})
    assert folder("b", {"2.png": b"y", "1.png": b"x"}) == first
    assert folder("c", {"1.png": b"y", "2.png": b"x"}) != first
    assert folder("d", {"1.png": b"x", "3.png": b"y"}) != first
    assert folder("e", {"1.png": b"x"}) != first
    assert folder("g", {"rgb/1.png": b"x", "depth/1.png": b"y"}) != folder(
        "h", {"rgb/1.png": b"y", "depth/1.png": b"x"}
    )
    assert folder("f", {"1.png": b"x", "2.png": b"y", ".DS_Store": b"z"}) == first


def test_the_order_in_which_a_disk_lists_a_folder_means_nothing(store, tmp_path, monkeypatch):
    for name in "abcdef":
        write(tmp_path / "clip" / name, name.encode())
    listed = sorted((tmp_path / "clip").iterdir())
    digests = set()
    for order in (listed, listed[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda _, order=order: iter(order))
        digests.add(FeatureStore(tmp_path / f"store{len(digests)}").source_digest(listed[0].parent))
    assert len(digests) == 1


def test_changes_in_the_folders_of_a_folder_are_noticed(store, tmp_path, hashed):
    folder = tmp_path / "scene"
    write(folder / "intrinsics.txt", b"5")
    write(folder / "depth" / "0.png", b"x", age=100)
    first = store.source_digest(folder)
    assert store.source_digest(folder) == first
    assert len(hashed) == 2
    write(folder / "depth" / "0.png", b"y", age=90)
    assert store.source_digest(folder) != first


def test_changes_in_a_folder_are_noticed(store, tmp_path, hashed):
    folder = tmp_path / "clip"
    write(folder / "1.png", b"x", age=100)
    write(folder / "2.png", b"y", age=200)
    first = store.source_digest(folder)
    assert store.source_digest(folder) == first
    assert len(hashed) == 2
    write(folder / "2.png", b"z", age=150)  # still older than its neighbour
    second = store.source_digest(folder)
    assert second != first
    (folder / "2.png").rename(folder / "3.png")
    assert store.source_digest(folder) not in (first, second)


@pytest.mark.parametrize("name", ["missing.mp4", "empty", "pipe", "nul\0name", "x" * 5000])
def test_what_is_no_source(store, tmp_path, name):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match=r"no such|empty folder|neither|cannot be read"):
        store.source_digest(tmp_path / name)


def test_a_check_may_refuse_a_file_before_it_is_hashed(store, tmp_path, hashed):
    def refuse(path, size):
        raise MediaError(f"{path.name} {size}")

    with pytest.raises(MediaError, match=r"a\.mp4 7"):
        store.source_digest(write(tmp_path / "a.mp4", b"content"), check=refuse)
    assert hashed == []


def test_a_file_that_changes_while_it_is_read(store, tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", b"content")
    digest = hashlib.file_digest

    def slow(file, algorithm):
        found = digest(file, algorithm)
        write(path, b"content and more")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(MediaError, match="changed while it was read"):
        store.source_digest(path)

import errno
import hashlib
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from open_crema.data.entry import About, decode
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.errors import CremaError, MediaError, SenseAbsent
from open_crema.features import Features

KEY = feature_key(source="abc", sense="video", frames=8)
ABOUT = About("audio", "encoder/1", 2, (("/clips/ü.mp4", "abc"),))


def make_features(seed=0, segments=2, keys=3, width=4):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(segments, keys, dtype=torch.bool)
    mask[0, -1] = False
    times = torch.arange(2.0 * segments, dtype=torch.float64).reshape(segments, 2) / 3
    return Features(torch.randn(segments, keys, width, generator=generator), mask, times)


def same(a, b):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        and getattr(a, name).dtype == getattr(b, name).dtype
        for name in ("tokens", "mask", "times")
    )


def never():
    raise AssertionError("made although it is in the store")


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def object_of(store, key=KEY):
    return store.root / "objects" / key[:2] / f"{key}.safetensors"


def test_made_once_and_the_same_ever_after(store):
    made = store.get_or_make(KEY, make_features, about=ABOUT)
    again = FeatureStore(store.root).get_or_make(KEY, never, about=ABOUT)
    assert same(made, again)
    assert same(made, as_stored(make_features()))
    assert made.tokens.dtype == torch.bfloat16
    assert made.times.dtype == torch.float64


def test_nothing_under_a_new_key(store):
    assert store.get(KEY) is None


def test_features_of_other_layouts_are_kept(store):
    made = make_features(segments=3, keys=5)
    turned = Features(
        made.tokens.transpose(0, 1).contiguous().transpose(0, 1), made.mask, made.times
    )
    store.get_or_make(KEY, lambda: turned, about=ABOUT)
    assert same(store.get(KEY), as_stored(made))


def test_an_absent_sense_is_kept_with_its_reason(store):
    store.get_or_make(KEY, lambda: SenseAbsent("audio", "the file is mute: ü"), about=ABOUT)
    found = store.get_or_make(KEY, never, about=ABOUT)
    assert isinstance(found, SenseAbsent)
    assert (found.sense, found.reason) == ("audio", "the file is mute: ü")


def test_what_make_raises_comes_through_and_leaves_nothing(store):
    def broken():
        raise MediaError("broken")

    with pytest.raises(MediaError):
        store.get_or_make(KEY, broken, about=ABOUT)
    assert store.get(KEY) is None


def test_keys_depend_on_every_part_and_not_on_their_order():
    assert feature_key(a="1", b=2) == feature_key(b=2, a="1")
    different = [
        {"a": "1", "b": 2},
        {"a": "1", "b": 3},
        {"a": "1", "c": 2},
        {"a": 1, "b": 2},
        {"a": "1"},
    ]
    assert len({feature_key(**parts) for parts in different}) == len(different)


@pytest.mark.parametrize("result", [make_features(), SenseAbsent("audio", "mute")])
def test_every_flipped_bit_is_noticed(store, result):
    store.get_or_make(KEY, lambda: result, about=ABOUT)
    whole = object_of(store).read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        object_of(store).write_bytes(damaged)
        assert store.get(KEY) is None, f"byte {place} of {len(whole)}"


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
def test_a_cut_object_is_made_again(store, share):
    made = store.get_or_make(KEY, make_features, about=ABOUT)
    whole = object_of(store).read_bytes()
    object_of(store).write_bytes(whole[: int(len(whole) * share)])
    assert same(store.get_or_make(KEY, make_features, about=ABOUT), made)
    assert object_of(store).read_bytes() == whole


def test_a_damaged_object_is_named_set_aside_and_made_again(store, caplog):
    made = store.get_or_make(KEY, make_features, about=ABOUT)
    damaged = bytearray(object_of(store).read_bytes())
    damaged[-1] ^= 1
    object_of(store).write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert same(store.get_or_make(KEY, make_features, about=ABOUT), made)
    assert str(object_of(store)) in caplog.text
    assert "checksum" in caplog.text
    assert object_of(store).with_suffix(".damaged").read_bytes() == damaged
    assert same(store.get_or_make(KEY, never, about=ABOUT), made)


def test_an_object_under_the_wrong_key_is_not_believed(store):
    store.get_or_make(KEY, make_features, about=ABOUT)
    other = feature_key(source="other")
    object_of(store, other).parent.mkdir(parents=True, exist_ok=True)
    object_of(store, other).write_bytes(object_of(store).read_bytes())
    assert store.get(other) is None


def test_numbers_under_another_type_are_noticed(store):
    store.get_or_make(KEY, make_features, about=ABOUT)
    whole = object_of(store).read_bytes()
    assert whole.count(b'"F64"') == 1
    object_of(store).write_bytes(whole.replace(b'"F64"', b'"I64"'))
    assert store.get(KEY) is None


@pytest.mark.parametrize("said", [{}, {"sense": "audio", "absent": "mute"}])
def test_an_object_of_an_earlier_version_is_made_again_in_silence(store, caplog, said):
    object_of(store).parent.mkdir(parents=True)
    object_of(store).write_bytes(save({}, {**said, "checksum": "0" * 64}))
    assert store.get(KEY) is None
    made = store.get_or_make(KEY, make_features, about=ABOUT)
    assert same(store.get_or_make(KEY, never, about=ABOUT), made)
    assert caplog.text == ""


def test_what_an_entry_is_about_is_kept_with_it(store):
    odd = About("audio", "e/1", 2, (("/a/\udcff 0000.mp4", "0" * 64), ("/b", "1" * 64)))
    store.put(KEY, SenseAbsent("audio", "mute"), about=odd)
    label, _ = decode(KEY, object_of(store).read_bytes())
    assert (label.about, label.absent) == (odd, "mute")


def test_an_unreadable_object_is_an_error(store):
    object_of(store).mkdir(parents=True)
    with pytest.raises(CremaError, match="cannot be read from the feature store"):
        store.get(KEY)


def test_a_full_disk_is_an_error_that_leaves_no_rubbish(store, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CremaError, match=r"No space left.*data\.store"):
        store.get_or_make(KEY, make_features, about=ABOUT)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CremaError, match="file"):
        FeatureStore(tmp_path / "file").get_or_make(KEY, make_features, about=ABOUT)


def start(target, *arguments, **named):
    """Another process; forked, because importing torch anew would take seconds."""
    process = multiprocessing.get_context("fork").Process(
        target=target, args=arguments, kwargs=named
    )
    process.start()
    return process


def test_a_killed_writer_harms_nobody(store, monkeypatch):
    def die(descriptor):
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        writer = start(store.get_or_make, KEY, make_features, about=ABOUT)
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    assert len(list(store.root.rglob("*.part"))) == 1  # it did die half way
    assert store.get(KEY) is None
    made = store.get_or_make(KEY, make_features, about=ABOUT)
    assert same(store.get_or_make(KEY, never, about=ABOUT), made)


def test_processes_write_one_key_while_another_reads(store, caplog):
    def write_often(features):
        for _ in range(30):
            store.put(KEY, features, about=ABOUT)

    ones = torch.ones(8, 65, 96)
    features = as_stored(Features(ones, ones[:, :, 0] > 0, torch.zeros(8, 2)))
    writers = [start(write_often, features) for _ in range(3)]
    seen = 0
    while any(writer.is_alive() for writer in writers):
        found = store.get(KEY)
        if found is not None:
            seen += 1
            assert same(found, features)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert seen > 0
    assert caplog.text == ""
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [f"{KEY}.safetensors"]


# Sources


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

import errno
import logging
import os
import signal

import pytest
import torch
from safetensors.torch import save

from open_crema.data.entry import About, decode
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.errors import CremaError, MediaError, SenseAbsent
from open_crema.features import Features
from stored import ABOUT, KEY, files, make_features, never, same, start


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
    assert files(store.root) == {}


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CremaError, match="file"):
        FeatureStore(tmp_path / "file").get_or_make(KEY, make_features, about=ABOUT)


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
    assert list(files(store.root)) == [object_of(store).relative_to(store.root).as_posix()]

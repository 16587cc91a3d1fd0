import errno
import json
import logging
import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from open_crema.data import packing
from open_crema.data.entry import About, encode
from open_crema.data.shards import Packed
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.errors import SenseAbsent
from open_crema.features import Features
from stored import ABOUT, KEY, files, killed_at, make_features, never, same, start

KEYS = [feature_key(number=number) for number in range(6)]


def result_of(key):
    number = KEYS.index(key)
    return (
        SenseAbsent("audio", f"mute {number}") if number == 3 else as_stored(make_features(number))
    )


def put(store, *keys):
    for key in keys:
        store.put(key, result_of(key), about=ABOUT)


def equal(found, wanted):
    if isinstance(wanted, SenseAbsent):
        return isinstance(found, SenseAbsent) and str(found) == str(wanted)
    return isinstance(found, Features) and same(found, wanted)


def holds_all(store, keys=KEYS):
    """Also for a reader that has not looked yet."""
    return all(
        equal(reader.get(key), result_of(key))
        for reader in (store, FeatureStore(store.root))
        for key in keys
    )


def shards(store):
    return sorted((store.root / "shards").glob("*.safetensors"))


def loose(store):
    return sorted(key for key, _ in store.loose())


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def packed(store):
    put(store, *KEYS)
    assert store.pack() == len(KEYS)
    return store


def test_packed_entries_are_the_same_entries(packed):
    assert loose(packed) == []
    assert len(shards(packed)) == 1
    assert holds_all(packed)


def test_a_shard_is_a_safetensors_file_of_loose_entries(packed):
    (shard,) = shards(packed)
    with safe_open(shard, "pt") as opened:
        assert sorted(opened.keys()) == sorted(KEYS)
        for key in KEYS:
            kept = bytes(opened.get_tensor(key).numpy())
            assert kept == encode(key, result_of(key), ABOUT)
            assert json.loads(opened.metadata()[key])["about"]["sense"] == "audio"


def test_one_entry_is_read_and_not_the_whole_shard(packed, monkeypatch):
    reader = FeatureStore(packed.root)
    assert reader.get(KEYS[0]) is not None
    (shard,) = shards(packed)
    (place,) = reader.shards.find(KEYS[1])
    damaged = bytearray(place.length + place.start)
    damaged[place.start :] = shard.read_bytes()[place.start : place.start + place.length]
    shard.write_bytes(damaged)  # nothing else of it is left
    assert equal(reader.get(KEYS[1]), result_of(KEYS[1]))


def test_nothing_to_pack(store):
    assert store.pack() == 0
    assert not store.root.exists()
    put(store, KEYS[0])
    assert (store.pack(), store.pack()) == (1, 0)


def test_a_new_shard_is_found_by_a_reader_that_looked_before(store):
    reader = FeatureStore(store.root)
    assert reader.get(KEYS[0]) is None
    put(store, KEYS[0])
    store.pack()
    assert equal(reader.get(KEYS[0]), result_of(KEYS[0]))
    assert reader.get(KEY) is None


def test_a_reader_finds_an_entry_whose_shard_was_joined_with_another(store):
    reader = FeatureStore(store.root)
    put(store, KEYS[0])
    store.pack()
    assert equal(reader.get(KEYS[0]), result_of(KEYS[0]))
    put(store, *KEYS[1:])
    store.pack()
    assert len(shards(store)) == 1
    assert equal(reader.get(KEYS[0]), result_of(KEYS[0]))


def test_packing_after_every_entry_leaves_few_shards(store, monkeypatch):
    keys = [feature_key(n=n) for n in range(40)]
    moved = []
    read = Packed.read
    monkeypatch.setattr(Packed, "read", lambda place: moved.append(place) or read(place))
    for n, key in enumerate(keys):
        store.put(key, as_stored(make_features(n)), about=ABOUT)
        store.pack()
    assert len(shards(store)) <= 6
    assert len(moved) <= 40 * 6  # each entry a few times, not 40 * 40 / 2
    assert all(same(store.get(key), as_stored(make_features(n))) for n, key in enumerate(keys))


@pytest.mark.parametrize(("limit", "value"), [("FULL_ENTRIES", 2), ("FULL_BYTES", 1200)])
def test_a_full_shard_is_followed_by_another(store, monkeypatch, limit, value):
    monkeypatch.setattr(packing, limit, value)
    put(store, *KEYS)
    store.pack()
    assert len(shards(store)) >= 3
    assert holds_all(store)


def test_an_entry_larger_than_a_shard_has_one_for_itself(store, monkeypatch):
    monkeypatch.setattr(packing, "FULL_BYTES", 10)
    put(store, *KEYS)
    store.pack()
    assert len(shards(store)) == len(KEYS)
    assert holds_all(store)


def test_a_loose_entry_takes_precedence_over_a_packed_one(packed):
    packed.put(KEYS[0], as_stored(make_features(99)), about=ABOUT)
    assert same(packed.get(KEYS[0]), as_stored(make_features(99)))
    packed.pack()
    assert same(FeatureStore(packed.root).get(KEYS[0]), as_stored(make_features(99)))


@st.composite
def results(draw):
    if draw(st.booleans()):
        return SenseAbsent(draw(st.sampled_from(["audio", "my_sense"])), draw(st.text(max_size=20)))
    shape = [draw(st.integers(1, 3)) for _ in range(3)]
    numbers = st.floats(width=32, allow_nan=False)
    tokens = torch.tensor(draw(st.lists(numbers, min_size=1, max_size=8)))
    tokens = tokens.repeat(27)[: shape[0] * shape[1] * shape[2]].reshape(shape)
    mask = torch.zeros(shape[:2], dtype=torch.bool)
    mask[:, draw(st.integers(0, shape[1] - 1))] = True
    moments = st.floats(allow_nan=False, allow_infinity=False)
    times = draw(st.lists(moments, min_size=2 * shape[0], max_size=2 * shape[0]))
    return as_stored(Features(tokens, mask, torch.tensor(times, dtype=torch.float64).view(-1, 2)))


abouts = st.builds(
    About,
    sense=st.sampled_from(["audio", "my_sense"]),
    encoder=st.text(max_size=20),
    recipe=st.integers(0, 99),
    sources=st.lists(st.tuples(st.text(), st.text(max_size=64)), max_size=2).map(tuple),
)


@settings(max_examples=30)
@given(st.lists(st.tuples(results(), abouts), min_size=1, max_size=4), st.data())
def test_what_was_put_comes_back_loose_and_packed(items, data):
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(folder)
        for number, (result, about) in enumerate(items):
            if isinstance(result, SenseAbsent):
                result.sense = about.sense
            store.put(feature_key(n=number), result, about=about)
            if data.draw(st.booleans()):
                store.pack()
        for _ in ("as they are", "all packed"):
            for number, (result, _) in enumerate(items):
                found = store.get(feature_key(n=number))
                if isinstance(result, SenseAbsent):
                    assert (found.sense, found.reason) == (result.sense, result.reason)
                else:
                    assert same(found, result)
            store.pack()


# Damage


def test_no_flipped_bit_of_a_shard_gives_wrong_features(store, caplog):
    put(store, *KEYS[2:4])  # features, and an absent sense
    store.pack()
    (shard,) = shards(store)
    whole = shard.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        shard.write_bytes(damaged)
        caplog.clear()
        reader = FeatureStore(store.root)
        found = {key: reader.get(key) for key in KEYS[2:4]}
        assert None in found.values(), f"byte {place} of {len(whole)} is not covered"
        for key, value in found.items():
            assert value is None or equal(value, result_of(key)), f"byte {place}"
        assert str(shard) in caplog.text


def test_a_damaged_entry_of_a_shard_is_named_and_made_again(packed, caplog):
    (shard,) = shards(packed)
    packed.shards.refresh()
    (place,) = packed.shards.find(KEYS[1])
    whole = bytearray(shard.read_bytes())
    whole[place.start + place.length - 1] ^= 4
    shard.write_bytes(whole)
    os.utime(shard, (1, 1))
    with caplog.at_level(logging.WARNING):
        assert packed.get(KEYS[1]) is None
    for part in (str(shard), KEYS[1], "checksum", "audio", "/clips/ü.mp4"):
        assert part in caplog.text
    assert holds_all(packed, [key for key in KEYS if key != KEYS[1]])
    packed.get_or_make(KEYS[1], lambda: result_of(KEYS[1]), about=ABOUT)
    assert loose(packed) == [KEYS[1]]
    caplog.clear()
    assert holds_all(packed)
    packed.pack()
    assert holds_all(packed)
    assert caplog.text == ""


def test_the_same_entry_again_heals_its_damaged_shard(store):
    put(store, KEYS[0])
    store.pack()
    (shard,) = shards(store)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    put(store, KEYS[0])
    store.pack()
    assert files(store.root / "shards") == {shard.name: whole}
    assert loose(store) == []


@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.6, 0.99])
def test_a_truncated_shard_loses_only_what_is_cut_off(packed, share, caplog):
    (shard,) = shards(packed)
    whole = shard.read_bytes()
    cut = int(len(whole) * share)
    packed.shards.refresh()
    places = {place.key: place for place in packed.shards.entries()}
    header = min(place.start for place in places.values())
    shard.write_bytes(whole[:cut])
    reader = FeatureStore(packed.root)
    lost = 0
    for key in KEYS:
        if cut >= header and places[key].start + places[key].length <= cut:
            assert equal(reader.get(key), result_of(key))
        else:
            assert reader.get(key) is None
            lost += 1
    assert lost > 0
    assert str(shard) in caplog.text
    assert ("cut short" if cut else "does not match") in caplog.text
    for key in KEYS:
        reader.get_or_make(key, lambda key=key: result_of(key), about=ABOUT)
    assert holds_all(reader)


def test_a_damaged_loose_entry_is_not_packed(store, caplog):
    put(store, *KEYS)
    path = store.root / "objects" / KEYS[0][:2] / f"{KEYS[0]}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    store.pack()
    assert str(path) in caplog.text
    assert holds_all(store, KEYS[1:])
    assert store.get(KEYS[0]) is None


def test_a_damaged_loose_entry_falls_back_to_its_packed_copy(packed):
    put(packed, KEYS[0])
    path = packed.root / "objects" / KEYS[0][:2] / f"{KEYS[0]}.safetensors"
    path.write_bytes(b"rubbish")
    assert equal(packed.get_or_make(KEYS[0], never, about=ABOUT), result_of(KEYS[0]))


# Killed and concurrent processes, disks that are full or read-only


def test_a_packer_killed_at_any_write_loses_nothing(tmp_path):
    start_from = FeatureStore(tmp_path / "before")
    put(start_from, *KEYS[:2])
    start_from.pack()
    put(start_from, *KEYS[2:])
    point = 0
    while True:
        store = FeatureStore(tmp_path / str(point))
        shutil.copytree(start_from.root, store.root)
        died = killed_at(point, store.pack)
        assert holds_all(store), f"write point {point}"
        store.pack()
        assert holds_all(store), f"write point {point}, packed again"
        assert loose(store) == []
        if not died:
            break
        point += 1
    assert point >= 2 * (3 + len(KEYS[2:]) + 1)  # two fsync, a rename, and what is removed


def test_a_writer_killed_at_any_write_leaves_the_whole_entry_or_none(tmp_path):
    seen = set()
    point = 0
    while True:
        store = FeatureStore(tmp_path / str(point))
        died = killed_at(point, lambda store=store: put(store, KEYS[0]))
        found = store.get(KEYS[0])
        seen.add(found is None)
        assert found is None or equal(found, result_of(KEYS[0]))
        assert equal(
            store.get_or_make(KEYS[0], lambda: result_of(KEYS[0]), about=ABOUT), result_of(KEYS[0])
        )
        if not died:
            break
        point += 1
    assert seen == {True, False}
    assert point >= 4


def test_processes_write_pack_and_read_at_once(store, caplog):
    keys = [feature_key(n=n) for n in range(48)]

    def work(own):
        mine = FeatureStore(store.root)
        order = random.Random(own).sample(range(len(keys)), len(keys))
        for step, n in enumerate(order):
            found = mine.get_or_make(keys[n], lambda n=n: make_features(n), about=ABOUT)
            assert same(found, as_stored(make_features(n)))
            if step % 8 == own:
                mine.pack()
            other = mine.get(keys[order[step // 2]])  # made before: it must be there
            assert same(other, as_stored(make_features(order[step // 2])))

    workers = [start(work, own) for own in range(4)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    store.pack()
    for n, key in enumerate(keys):
        assert same(store.get(key), as_stored(make_features(n)))
    assert loose(store) == []
    assert not any(name.endswith((".part", ".damaged")) for name in files(store.root))
    assert caplog.text == ""


def test_threads_share_a_store(store):
    keys = [feature_key(n=n) for n in range(30)]

    def work(own):
        for n in random.Random(own).sample(range(len(keys)), len(keys)):
            store.get_or_make(keys[n], lambda n=n: make_features(n), about=ABOUT)
            if n % 6 == own:
                store.pack()
            assert same(store.get(keys[n]), as_stored(make_features(n)))

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(work, range(4)))) == 4


def test_a_full_disk_leaves_all_entries_loose(store, monkeypatch, caplog):
    put(store, *KEYS)
    before = files(store.root)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert store.pack() == 0
    assert "No space left" in caplog.text
    assert files(store.root) == before
    assert holds_all(store)


def test_a_read_only_store_is_read(packed, monkeypatch, caplog):
    put(packed, KEYS[0])
    before = files(packed.root)
    opened = os.open

    def read_only(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", path)
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert holds_all(packed)
    assert packed.pack() == 0
    assert "Read-only file system" in caplog.text
    assert files(packed.root) == before


def test_a_symlinked_store_is_the_store_it_points_to(packed, tmp_path):
    (tmp_path / "link").symlink_to(packed.root, target_is_directory=True)
    link = FeatureStore(tmp_path / "link")
    assert holds_all(link)
    link.put(KEY, as_stored(make_features(50)), about=ABOUT)
    link.pack()
    assert same(packed.get(KEY), as_stored(make_features(50)))


def test_two_stores_do_not_share(packed, tmp_path):
    assert FeatureStore(tmp_path / "other").get(KEYS[0]) is None

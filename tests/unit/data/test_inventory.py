import os

import pytest
from safetensors.torch import save

from open_crema.data import inventory
from open_crema.data.entry import About
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.errors import CremaError, SenseAbsent
from stored import ABOUT, files, killed_at, make_features, start

KEYS = [feature_key(number=number) for number in range(5)]
VIDEO = About("video", "eyes/1", 2, (("/clips/a.mp4", "aa"),))


@pytest.fixture
def store(tmp_path):
    """Three packed entries, one of them absent, and two loose ones."""
    store = FeatureStore(tmp_path / "store")
    for number in (0, 1):
        store.put(KEYS[number], as_stored(make_features(number)), about=VIDEO)
    store.put(KEYS[2], SenseAbsent("audio", "mute"), about=ABOUT)
    store.pack()
    store.put(KEYS[3], SenseAbsent("audio", "no sound track"), about=ABOUT)
    store.put(KEYS[4], as_stored(make_features(4)), about=ABOUT)
    return store


def loose_file(store, key):
    return store.root / "objects" / key[:2] / f"{key}.safetensors"


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_summary_counts_by_sense_and_by_encoder(store):
    found = inventory.summary(store)
    assert (found.entries, found.loose, found.shards, found.sources) == (5, 2, 1, 2)
    assert found.bytes == sum(len(data) for data in files(store.root).values())
    assert (found.copies, found.damaged, found.earlier) == (0, 0, 0)
    assert {sense: share.entries for sense, share in found.senses.items()} == {
        "video": 2,
        "audio": 3,
    }
    assert found.senses["audio"].absent == {"mute": 1, "no sound track": 1}
    assert found.senses["video"].absent == {}
    assert {name: share.entries for name, share in found.encoders.items()} == {
        "eyes/1": 2,
        "encoder/1": 3,
    }
    assert found.senses["video"].bytes == found.encoders["eyes/1"].bytes > 0


def test_a_summary_tells_apart_what_is_no_entry(store):
    store.put(KEYS[0], as_stored(make_features()), about=VIDEO)
    flip(loose_file(store, KEYS[4]), 10)
    old = loose_file(store, feature_key(old=1))
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(save({}, {"checksum": "0"}))
    (store.root / "shards" / f"{'0' * 64}.safetensors").write_bytes(b"rubbish")
    found = inventory.summary(store)
    assert (found.entries, found.copies, found.damaged, found.earlier) == (4, 1, 2, 1)


@pytest.mark.parametrize("name", ["missing", "file", "empty"])
def test_a_folder_that_is_no_store(tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CremaError, match=f"{name}: (no such folder|is no feature store)"):
        inventory.open_store(tmp_path / name)


def test_a_whole_store_is_verified_and_not_changed(store):
    before = files(store.root)
    found = inventory.verify(inventory.open_store(store.root))
    assert (found.checked, found.good, found.entries, found.shards) == (5, 5, (), ())
    assert files(store.root) == before


def test_every_damaged_entry_is_named(store):
    store.shards.refresh()
    (place,) = store.shards.find(KEYS[0])
    flip(place.shard, place.start + place.length - 1)
    flip(loose_file(store, KEYS[4]))
    before = files(store.root)
    found = inventory.verify(store)
    assert (found.checked, found.good) == (5, 3)
    assert [(one.file, one.key, one.about) for one in found.entries] == [
        (place.shard, KEYS[0], VIDEO),
        (loose_file(store, KEYS[4]), KEYS[4], ABOUT),
    ]
    assert str(found.entries[0]).endswith("video of /clips/a.mp4")
    assert files(store.root) == before


def test_an_entry_whose_header_is_damaged_is_named_by_the_shard(store):
    store.shards.refresh()
    (place,) = store.shards.find(KEYS[1])
    flip(place.shard, place.start + 1)
    (damage,) = inventory.verify(store).entries
    assert (damage.key, damage.about) == (KEYS[1], VIDEO)
    flip(loose_file(store, KEYS[4]), 1)
    damage = inventory.verify(store).entries[-1]
    assert (damage.key, damage.about) == (KEYS[4], None)
    assert "cannot be read" in str(damage)


def test_a_broken_shard_is_named_beside_the_entries(store):
    (shard,) = (store.root / "shards").iterdir()
    flip(shard, 20)
    found = inventory.verify(store)
    assert (found.checked, found.good) == (2, 2)
    assert [one.file for one in found.shards] == [shard]


def test_a_cut_shard_has_its_lost_entries_named(store):
    (shard,) = (store.root / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    found = inventory.verify(store)
    assert (found.checked, found.good) == (5, 4)
    assert "cut short" in found.entries[0].why


def test_what_a_disk_does_not_give_is_damaged_too(store, monkeypatch):
    bad = loose_file(store, KEYS[4])
    bad.unlink()
    bad.mkdir()
    found = inventory.verify(store)
    assert (found.checked, found.good) == (5, 4)
    assert "directory" in found.entries[0].why


def test_entries_that_are_packed_meanwhile_are_checked_once_each(store, monkeypatch):
    whole = inventory.contents
    calls = []

    def then_pack(of):
        found = whole(of)
        if not calls:
            store.pack()
        calls.append(found)
        return found

    monkeypatch.setattr(inventory, "contents", then_pack)
    found = inventory.verify(store)
    assert (found.checked, found.good) == (5, 5)


def test_a_store_with_what_killed_processes_left_is_whole(store):
    assert killed_at(2, store.pack)  # before the shard has its name
    writer = start(store.put, KEYS[0], as_stored(make_features()), about=VIDEO)
    writer.join(60)
    assert any(name.endswith(".part") for name in files(store.root))
    assert inventory.verify(store).good == inventory.summary(store).entries + 1
    assert os.path.exists(store.root / "pack.lock")

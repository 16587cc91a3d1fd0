import os
import shutil
import time

import pytest
from safetensors.torch import save

from open_crema.data import garbage, inventory
from open_crema.data.entry import About
from open_crema.data.garbage import collect
from open_crema.data.store import FeatureStore, as_stored, feature_key
from open_crema.errors import CremaError
from stored import files, killed_at, make_features, same, start

RECIPE = 7


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def clips(tmp_path):
    """Five clips of different content, settled long ago."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(5):
        write(folder / f"{number}.mp4", f"content {number}")
    return folder


def write(path, content, age=100):
    path.write_text(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def extract(store, *paths, recipe=RECIPE):
    """What an extractor does; returns the key."""
    sources = tuple((str(path), store.source_digest(path)) for path in paths)
    key = feature_key(recipe=recipe, **{f"s{n}": digest for n, (_, digest) in enumerate(sources)})
    about = About("video", "eyes", recipe, sources)
    store.get_or_make(key, lambda: make_features(len(paths)), about=about)
    return key


def reasons(found):
    return sorted(one.why for one in found.removed)


def there(store, *keys):
    return [FeatureStore(store.root).get(key) is not None for key in keys]


@pytest.fixture(params=["loose", "packed", "both"])
def state(request, store):
    """Called between two entries and at the end."""

    def arrange(last=False):
        if request.param == "packed" or (request.param == "both" and not last):
            store.pack()

    return arrange


def test_nothing_that_is_reachable_goes(store, clips, state):
    keys = []
    for clip in sorted(clips.iterdir()):
        keys.append(extract(store, clip))
        state()
    keys.append(extract(store, clips / "0.mp4", clips / "1.mp4"))
    state(last=True)
    before = files(store.root)
    assert collect(store, recipe=RECIPE).removed == ()
    assert files(store.root) == before


def test_what_no_source_reaches_goes_and_the_rest_stays(store, clips, state):
    keys = []
    for clip in sorted(clips.iterdir()):
        keys.append(extract(store, clip))
        state()
    keys.append(extract(store, clips / "0.mp4", clips / "1.mp4"))  # aligned to another
    state(last=True)
    (clips / "1.mp4").unlink()
    write(clips / "2.mp4", "another content", age=50)
    write(clips / "3.mp4", "content 3", age=50)  # touched
    (clips / "4.mp4").rename(clips / "moved.mp4")
    store.source_digest(clips / "moved.mp4")
    bytes_before = sum(len(data) for data in files(store.root).values())
    planned = collect(store, recipe=RECIPE, dry_run=True)
    assert sum(len(data) for data in files(store.root).values()) == bytes_before
    found = collect(store, recipe=RECIPE)
    assert reasons(found) == reasons(planned)
    assert reasons(found).count("source gone or changed") == 3
    assert there(store, *keys) == [True, False, False, True, True, False]
    assert collect(store, recipe=RECIPE).removed == ()
    assert inventory.verify(store).good == 3


def test_an_entry_of_a_source_without_a_record_stays(store, clips):
    young = clips / "young.mp4"
    young.write_text("just written")
    key = extract(store, young)
    for record in (store.root / "sources").glob("*"):
        record.unlink()
    assert collect(store, recipe=RECIPE).removed == ()
    assert there(store, key) == [True]


def test_a_copy_of_the_source_is_enough(store, clips):
    key = extract(store, clips / "0.mp4")
    shutil.copy2(clips / "0.mp4", clips / "copy.mp4")
    store.source_digest(clips / "copy.mp4")
    (clips / "0.mp4").unlink()
    assert "source gone or changed" not in reasons(collect(store, recipe=RECIPE))
    assert there(store, key) == [True]


def test_a_copy_made_just_now_is_enough(store, clips):
    key = extract(store, clips / "0.mp4")
    shutil.copy(clips / "0.mp4", clips / "copy.mp4")
    store.source_digest(clips / "copy.mp4")
    (clips / "0.mp4").unlink()
    collect(store, recipe=RECIPE)
    assert there(store, key) == [True]
    (clips / "copy.mp4").write_text("something else")
    collect(store, recipe=RECIPE)
    assert there(store, key) == [False]


@pytest.mark.parametrize("empty", [True, False])
def test_entries_of_a_disk_that_is_not_mounted_stay_unless_told(store, clips, empty):
    keys = [extract(store, clip) for clip in sorted(clips.iterdir())]
    clips.rename(clips.with_name("unmounted"))
    if empty:
        clips.mkdir()
    found = collect(store, recipe=RECIPE)
    assert (found.removed, found.away) == ((), 5)
    assert all(there(store, *keys))
    found = collect(store, recipe=RECIPE, gone=True)
    assert reasons(found) == ["source gone or changed"] * 5
    assert not any(there(store, *keys))


def test_entries_of_another_recipe_or_version_go(store, clips):
    kept = extract(store, clips / "0.mp4")
    lost = extract(store, clips / "0.mp4", recipe=RECIPE - 1)
    old = store.root / "objects" / "ab" / f"{'ab' * 32}.safetensors"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(save({}, {"checksum": "0", "sense": "audio", "absent": "mute"}))
    assert reasons(collect(store, recipe=RECIPE)) == [
        "made by another recipe",
        "of an earlier version",
    ]
    assert there(store, kept, lost) == [True, False]
    assert not old.exists()


def test_strays_go_when_they_are_old_and_what_was_set_aside(store, clips):
    key = extract(store, clips / "0.mp4")
    objects = store.root / "objects" / key[:2]
    write(objects / ".1.part", "old", age=4000)
    write(objects / ".2.part", "being written", age=10)
    write(objects / "x.damaged", "damaged", age=10)
    found = collect(store, recipe=RECIPE)
    assert reasons(found) == ["set aside as damaged", "stray file of a killed writer"]
    assert [one.size for one in found.removed] == [3, 7]
    assert sorted(path.name for path in objects.iterdir()) == [".2.part", f"{key}.safetensors"]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damaged", ["loose", "packed"])
def test_of_two_copies_the_one_that_can_be_read_stays(store, clips, damaged):
    keys = [extract(store, clip) for clip in sorted(clips.iterdir())]
    store.pack()
    sources = ((str(clips / "0.mp4"), store.source_digest(clips / "0.mp4")),)
    about = About("video", "eyes", RECIPE, sources)
    store.put(keys[0], as_stored(make_features(1)), about=about)
    store.shards.refresh()
    (place,) = store.shards.find(keys[0])
    loose = store.root / "objects" / keys[0][:2] / f"{keys[0]}.safetensors"
    if damaged == "loose":
        flip(loose, -1)
    else:
        flip(place.shard, place.start + place.length - 1)
    collect(store, recipe=RECIPE)
    assert all(there(store, *keys))
    found = inventory.verify(store)
    assert (found.checked, found.good) == (5, 5)


@pytest.mark.parametrize("attempt", range(8))  # which shard comes first depends on their names
def test_shards_that_are_left_with_the_same_entries_do_not_remove_each_other(store, clips, attempt):
    one, two = (write(clips / f"{attempt}{name}.mp4", f"{attempt}{name}") for name in "ab")
    first, second = extract(store, one), extract(store, two)
    store.pack()
    both = files(store.root / "shards")
    shutil.rmtree(store.root / "shards")
    extract(store, one)
    store.pack()
    for name, data in both.items():
        (store.root / "shards" / name).write_bytes(data)
    two.unlink()
    collect(store, recipe=RECIPE)
    assert there(store, first, second) == [True, False]
    assert inventory.summary(store).copies == 0


def test_a_broken_shard_goes(store, clips):
    extract(store, clips / "0.mp4")
    store.pack()
    (shard,) = (store.root / "shards").iterdir()
    flip(shard, 20)
    assert reasons(collect(store, recipe=RECIPE)) == ["damaged"]
    assert inventory.summary(store).damaged == 0


def test_what_the_disk_does_not_give_now_is_left_alone(store, clips):
    extract(store, clips / "0.mp4")
    (store.root / "objects" / "ab" / f"{'ab' * 32}.safetensors").mkdir(parents=True)
    (store.root / "shards" / f"{'ab' * 32}.safetensors").mkdir(parents=True)
    assert collect(store, recipe=RECIPE).removed == ()


def test_killed_at_any_write_it_loses_nothing_that_is_live(store, clips, tmp_path):
    keys = [extract(store, clip) for clip in sorted(clips.iterdir())[:3]]
    store.pack()
    keys += [extract(store, clip) for clip in sorted(clips.iterdir())[3:]]
    (clips / "1.mp4").unlink()
    (clips / "4.mp4").unlink()
    point = 0
    while True:
        other = FeatureStore(tmp_path / str(point))
        shutil.copytree(store.root, other.root)
        died = killed_at(point, lambda other=other: collect(other, recipe=RECIPE))
        live = there(other, keys[0], keys[2], keys[3])
        assert all(live), f"write point {point}"
        collect(other, recipe=RECIPE)
        assert there(other, *keys) == [True, False, True, True, False]
        if not died:
            break
        point += 1
    assert point >= 12


def test_nothing_live_goes_while_others_write_pack_and_collect(store, clips):
    paths = [write(clips / f"many{n}.mp4", f"many {n}") for n in range(24)]

    def work(own):
        mine = FeatureStore(store.root)
        for n, path in enumerate(paths):
            extract(mine, path)
            if n % 5 == own:
                mine.pack()
            if n % 5 == own + 2:
                assert collect(mine, recipe=RECIPE).removed == ()

    def key_of(path):
        digest = store.source_digest(path)
        return feature_key(recipe=RECIPE, s0=digest)

    workers = [start(work, own) for own in range(3)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 3
    for path in paths:
        assert same(FeatureStore(store.root).get(key_of(path)), as_stored(make_features(1)))


def test_an_entry_written_anew_since_it_was_judged_stays(store, clips, monkeypatch):
    key = extract(store, clips / "0.mp4")
    (clips / "0.mp4").unlink()
    remove = garbage._remove

    def written_meanwhile(store, removed):
        write(clips / "0.mp4", "content 0")
        path = store.root / "objects" / key[:2] / f"{key}.safetensors"
        path.rename(path.with_suffix(".kept"))  # its inode is not used again
        extract(store, clips / "0.mp4")
        remove(store, removed)

    monkeypatch.setattr(garbage, "_remove", written_meanwhile)
    collect(store, recipe=RECIPE)
    assert there(store, key) == [True]


def test_a_store_that_cannot_be_written_is_an_error_and_a_dry_run_is_none(
    store, clips, monkeypatch
):
    extract(store, clips / "0.mp4", recipe=1)
    before = files(store.root)

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(CremaError, match=r"cannot be written .*Read-only"):
        collect(store, recipe=RECIPE)
    assert reasons(collect(store, recipe=RECIPE, dry_run=True)) == ["made by another recipe"]
    assert files(store.root) == before

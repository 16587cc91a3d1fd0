"""``crema store info|verify|gc``, on the store that an extractor fills."""

from __future__ import annotations

import json
import os
import time

import pytest
from command_line import tree

import media_factory
from open_crema.config import EncodersConfig
from open_crema.data.extract import Extractor
from open_crema.data.sample import Sample
from open_crema.data.store import FeatureStore
from open_crema.media import Limits
from tiny import one_seeded_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.fixture
def store(tmp_path):
    """The default one: pictures and sound of three clips, the third without sound."""
    store = FeatureStore(tmp_path / "cache" / "features")
    extractor = Extractor(
        ["video", "audio"], EncodersConfig(), frames=2, limits=Limits(), store=store
    )
    for name, sound, frames in (("a", "tone", 10), ("b", "tone", 12), ("c", None, 10)):
        path = tmp_path / "clips" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        media_factory.write_video(path, sound=sound, frames=frames)
        os.utime(path, (time.time() - 100,) * 2)
        for sense in extractor.senses:
            extractor.features(Sample(name, "?", {"video": str(path)}), sense)
        if name == "b":
            store.pack()
    return store


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_info_of_the_default_store(crema, store):
    ran = crema("store", "info")
    assert ran.code == 0
    assert f"{store.root}: 6 entries of 3 sources" in ran.out.replace("\n", "")
    assert "in 1 shards and 2 loose files" in ran.out
    assert "1 without audio: " in ran.out
    for part in ("video", "audio", "loudness", "mean-colour"):
        assert part in ran.out


def test_info_as_json(crema, store):
    found = json.loads(crema("store", "info", store.root, "--json").out)
    assert (found["entries"], found["shards"], found["loose"]) == (6, 1, 2)
    assert found["senses"]["audio"]["entries"] == 3
    assert sum(found["senses"]["audio"]["absent"].values()) == 1


@pytest.mark.parametrize("part", ["info", "verify", "gc"])
def test_a_folder_that_is_no_store_is_refused(crema, tmp_path, part):
    crema("store", part, tmp_path).refused(str(tmp_path), "is no feature store")
    crema("store", part, tmp_path / "none").refused("none", "no such folder")
    crema("store", part).refused("features", "no such folder")  # nothing was ever extracted


def test_verify_of_a_whole_store(crema, store):
    before = tree(store.root)
    ran = crema("store", "verify")
    assert (ran.code, ran.out.strip()) == (0, "6 checked = 6 good + 0 damaged")
    assert tree(store.root) == before


def test_verify_names_what_is_damaged_and_use_makes_it_again(crema, store, tmp_path):
    (shard,) = (store.root / "shards").iterdir()
    flip(shard)
    ran = crema("store", "verify", store.root)
    assert ran.code == 2
    name, total = ran.out.splitlines()
    assert name.startswith(f"{shard}: entry ")
    assert str(tmp_path / "clips") in name
    assert "is damaged (its checksum does not match its content)" in name
    assert total == "6 checked = 5 good + 1 damaged"
    assert ran.err.splitlines()[-1].startswith(f"crema: error: {store.root}: 1 damaged entries;")
    assert "`crema store gc` removes them" in ran.err
    found = json.loads(crema("store", "verify", store.root, "--json").out)
    (damaged,) = found["damaged"]
    assert damaged["file"] == str(shard)
    assert damaged["key"] in name
    assert damaged["sense"] in ("audio", "video")
    assert damaged["sources"][0].startswith(str(tmp_path / "clips"))

    extractor = Extractor(
        ["video", "audio"], EncodersConfig(), frames=2, limits=Limits(), store=store
    )
    for clip in "ab":
        sample = Sample(clip, "?", {"video": str(tmp_path / "clips" / f"{clip}.mp4")})
        for sense in extractor.senses:
            extractor.features(sample, sense)
    assert crema("store", "gc", store.root).code == 0
    assert crema("store", "verify").out.strip() == "6 checked = 6 good + 0 damaged"


def test_verify_names_a_shard_of_which_nothing_can_be_read(crema, store):
    (shard,) = (store.root / "shards").iterdir()
    flip(shard, 30)
    ran = crema("store", "verify")
    assert ran.code == 2
    assert ran.out.splitlines() == [
        f"{shard}: damaged (its header does not match its name)",
        "2 checked = 2 good + 0 damaged",
    ]
    assert "1 whole shards" in ran.err


def test_gc_says_and_then_removes_what_cannot_be_reached(crema, store, tmp_path):
    assert crema("store", "gc").out.strip().endswith("0 removed, 0 bytes")
    (tmp_path / "clips" / "a.mp4").unlink()
    before = tree(store.root)
    planned = json.loads(crema("store", "gc", "--dry-run", "--json").out)
    assert tree(store.root) == before
    entries = [one for one in planned["removed"] if "key" in one]
    assert {one["why"] for one in entries} == {"source gone or changed"}
    assert sorted(one["sense"] for one in entries) == ["audio", "video"]
    ran = crema("store", "gc")
    assert "2 source gone or changed" in ran.out
    assert "3 removed" in ran.out  # and the record of its content
    assert json.loads(crema("store", "info", "--json").out)["entries"] == 4
    assert crema("store", "verify").code == 0


def test_gc_keeps_what_may_be_on_a_disk_that_is_not_mounted(crema, store, tmp_path):
    (tmp_path / "clips").rename(tmp_path / "elsewhere")
    assert "6 entries kept" in crema("store", "gc").out
    crema("store", "gc", "--gone")
    assert json.loads(crema("store", "info", "--json").out)["entries"] == 0

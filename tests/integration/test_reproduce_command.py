"""``crema reproduce senseqa``: a study from end to end, as small as it can be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from open_crema.experiment import shipped_base
from open_crema.model.files import from_pretrained, run_of, save_pretrained


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base that ships, of two of its senses."""
    place = tmp_path_factory.mktemp("base") / "model"
    run = run_of(shipped_base())
    model = from_pretrained(shipped_base(), senses=["video", "audio"])
    save_pretrained(model, place, run=replace(run, model=model.config))
    return place


def test_a_study_is_measured_once(crema, base, tmp_path):
    out = tmp_path / "out"
    command = ("reproduce", "senseqa", "--only", "alone", "--test", "2", "--base", base)
    said = crema(*command, "--out", out)
    assert said.code == 0, said
    table = json.loads((out / "alone.json").read_text())
    assert [line[0] for line in table["rows"]] == ["audio"]
    results = out / "results" / "alone-audio" / "frames-1" / "subsets.json"
    rows = {row["folder"]: row for row in json.loads(results.read_text())}
    assert set(rows) == {"blind", "audio", "video+audio"}
    assert table["rows"][0][1] == str(rows["audio"]["n"])
    assert rows["audio"]["n"] == 2 * len(rows["audio"]["types"])

    before = results.stat().st_mtime_ns
    assert crema(*command, "--out", out).code == 0
    assert results.stat().st_mtime_ns == before  # what has been measured is not done again


def test_studies_are_listed_and_mistakes_named(crema, tmp_path):
    said = crema("reproduce", "senseqa", "--list")
    assert said.code == 0
    assert "fusion" in said.out
    crema("reproduce", "senseqa", "--only", "fusoin").refused("did you mean 'fusion'")
    crema("reproduce", "senseqa", "--test", "3").refused("pairs; give an even number")

"""``crema quickstart`` from end to end, as small as it can be, on the base that ships."""

from __future__ import annotations

import json
import re

from open_crema.experiment import shipped_base
from open_crema.model.files import from_pretrained


def test_a_sense_is_added_scored_and_shown(crema, tmp_path):
    out = tmp_path / "out"
    said = crema(
        *("quickstart", "--sense", "thermal", "--out", out, "--clips", "8", "--test", "2"),
        *("train.alignment.epochs=1", "train.epoch_steps=1", "train.batch_size=2"),
    )
    assert said.code == 0, said
    text = re.sub(r"\s+", " ", said.out)
    assert "expected 60 answers, scored 60" in text  # 10 types, 2 each, given 3 ways
    assert "with thermal:" in text
    assert "without:" in text
    assert "all that need" in text  # its cell may be broken into lines
    assert "aligned by" not in said.out + said.err  # of each file of the page's clips
    page = (out / "report.html").read_text()
    assert "thermal" in page
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", page)
    rows = {p.parent.name: json.loads(p.read_text()) for p in out.glob("results/*/results.json")}
    assert set(rows) == {"blind", "video", "video+thermal"}
    assert all(row["n"] == row["expected"] == 20 for row in rows.values())

    # What the base was it still is, to the last bit: video alone answers as before.
    base, grown = from_pretrained(shipped_base(), senses=["video"]), from_pretrained(out / "model")
    for name, tensor in base.adapter("video").state_dict().items():
        assert tensor.equal(grown.adapter("video").state_dict()[name]), name
    for name, tensor in base.qformer.state_dict().items():
        assert tensor.equal(grown.qformer.state_dict()[name]), name
    assert not bool(grown.adapter("thermal").fresh)

    # Without --model the base is asked, with all its senses.
    clip = next((out / "data" / "test" / "clips").glob("*/video*.mp4"))
    said = crema("ask", clip, "What colour is the cube?", "--options", "red", "blue", "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["answer"] in ("red", "blue")


def test_too_few_clips(crema, tmp_path):
    for option in ("--clips", "--test"):
        for count in ("0", "1", "-3"):
            said = crema("quickstart", "--out", tmp_path / "out", option, count)
            said.refused("at least 2, a pair")
    assert not (tmp_path / "out").exists()

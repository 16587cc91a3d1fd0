"""Curves of lost senses: exact, so that drawing subsets at random comes to the same."""

import json
import random

import pytest
from named_features import ask, dataset
from PIL import Image

import tiny
from open_crema.config import EvalConfig
from open_crema.evaluation.dropout import dropout, table, write
from open_crema.evaluation.run import evaluate_each
from open_crema.evaluation.subsets import choose_subsets

THREE = ("video", "audio", "thermal")


@pytest.fixture(scope="module")
def every():
    model = tiny.crema(*THREE, seed=3)
    colours = ("red", "light blue", "green")
    samples = [
        ask(str(i), options=colours, video=str(i), audio=str(i + 1), thermal=str(i % 3))
        for i in range(24)
    ]
    subsets = choose_subsets("all", THREE)
    return evaluate_each(
        model, dataset(*samples, senses=THREE), subsets, config=EvalConfig(batch_size=8)
    )


def test_the_ends_are_all_senses_and_none(every):
    found = dropout(every)
    by = {e.senses: e for e in every}
    assert found.senses == THREE
    assert found.random[0.0].accuracy == pytest.approx(by[THREE].accuracy)
    assert found.random[1.0].accuracy == pytest.approx(by[()].accuracy)
    assert found.structured[0].accuracy == by[THREE].accuracy
    assert found.structured[3].accuracy == by[()].accuracy
    assert found.structured[1].subsets == 3
    alone = [by[s,].accuracy for s in THREE]
    two = found.structured[2]
    assert (two.least, two.most) == (min(alone), max(alone))


def test_it_is_what_drawing_would_give(every):
    draw = random.Random(0)
    right = {e.senses: [p.correct for p in e.predictions] for e in every}
    total, n = 0, 4000
    for _ in range(n):
        kept = tuple(s for s in THREE if draw.random() >= 0.4)
        total += right[kept][draw.randrange(24)]
    assert dropout(every).random[0.4].accuracy == pytest.approx(total / n, abs=0.03)


def test_every_subset_is_needed(every):
    assert dropout(every[1:]) is None
    assert dropout([e for e in every if len(e.senses) != 2]) is None
    assert dropout([e for e in every if e.senses in ((), ("video",))]) is None


def test_files_and_table(every, tmp_path):
    found = dropout(every)
    write(found, tmp_path / "new")
    kept = json.loads((tmp_path / "new" / "dropout.json").read_text())
    assert [row["rate"] for row in kept["random"]] == [i / 10 for i in range(11)]
    assert [row["missing"] for row in kept["structured"]] == [0, 1, 2, 3]
    assert Image.open(tmp_path / "new" / "dropout.png").format == "PNG"
    assert table(found).row_count == 10

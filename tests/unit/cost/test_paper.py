"""The paper's rows beside ours."""

from collections import Counter

import pytest

from open_crema import cost
from open_crema.cost.paper import CONTRADICT, DIFFERS, MATCH
from open_crema.evaluation import published


@pytest.fixture(scope="module")
def rows():
    return list(cost.paper_rows())


def test_every_published_row_is_there():
    counts = Counter(row.table for row in published.rows())
    assert counts == {1: 9, 2: 9, 3: 11, 4: 12, 5: 18, 6: 12, 7: 12, 8: 10, 12: 6, 13: 6} | {
        14: 2,
        15: 3,
        16: 6,
        17: 2,
        18: 6,
    }
    row = next(r for r in published.rows() if (r.table, r.method, r.letters) == (1, "CREMA", "VAF"))
    assert row.senses == ("video", "audio", "flow")
    assert (row.number("Avg"), row.number("trainable"), row.number("GFLOPs")) == (80.5, 21e6, 1810)
    assert published.rows()[0].number("GFLOPs") is None
    early = [r for r in published.rows() if r.method == "CREMA+early-exit"]
    assert [r.number("epochs") for r in early] == [8, 13, 10, 15]


def test_every_printed_number_has_a_verdict(rows):
    assert len(rows) > 50
    for own in rows:
        printed = {"trainable", "total", "GFLOPs"} & set(own.row.values)
        assert set(own.verdicts) == printed
        for verdict, reason in own.verdicts.values():
            assert verdict in (MATCH, DIFFERS, CONTRADICT)
            assert bool(reason) == (verdict != MATCH)


def test_crema_has_the_published_parameters_but_for_the_38m_of_sqa3d(rows):
    ours = [own for own in rows if own.row.method.startswith("CREMA") and own.row.table != 5]
    wrong = {own.name for own in ours if own.verdicts["trainable"][0] != MATCH}
    assert wrong
    assert all("SQA3D" in name and name.endswith("VPDN") for name in wrong)
    assert {own.trainable for own in ours if own.name in wrong} == {28_428_544}


def test_only_video_alone_has_the_published_operations(rows):
    same = {own.row.letters for own in rows if own.verdicts.get("GFLOPs", ("",))[0] == MATCH}
    assert same == {"V"}


def test_a_fully_trained_qformer_a_sense_is_counted(rows):
    one = next(own for own in rows if own.row.method == "BLIP-2")
    assert one.trainable == 105_137_664 + 24_576 + 1_574_912 + 2_816


def test_rows_are_plain_data(rows):
    plain = rows[0].to_dict()
    assert {"name", "senses", "trainable", "total", "macs", "published"} <= set(plain)
    assert plain["published"]["trainable"] == "108M"

"""The quickstart's table, and which types of question it asks."""

import io

import pytest
from rich.console import Console

from open_crema import quickstart
from open_crema.errors import ConfigError
from open_crema.evaluation.result import Evaluation, Prediction


def prediction(number, kind, said):
    return Prediction(
        id=str(number),
        type=kind,
        question="?",
        answers=("red",),
        prediction=said,
        correct=said == "red",
        options=(),
        probabilities=(),
        senses=("video",),
        absent={},
        blind="red",
        blind_correct=True,
        chance=0.25,
        majority=None,
    )


def evaluation(right):
    said = ["red"] * right + ["blue"] * (4 - right)
    kinds = ("video_colour", "video_side", "thermal_hottest")
    rows = [prediction(i, kind, text) for kind in kinds for i, text in enumerate(said)]
    return Evaluation(senses=("video",), expected=12, predictions=tuple(rows), skipped=())


def test_the_table():
    alone, _ = quickstart.types_of("thermal")
    console = Console(width=120, record=True, file=io.StringIO())
    found = {"video": evaluation(3), "video + thermal": evaluation(1)}
    console.print(quickstart.table(found, alone))
    lines = [" ".join(x.split()) for x in console.export_text().splitlines()]

    def row(name):
        return next(x for x in lines if f" {name} " in f" {x} ")

    for kind in ("video_colour", "thermal_hottest"):
        assert [c.strip() for c in row(kind).strip("│ ").split("│")] == [
            kind,
            "4",
            "25",
            "75 (30 - 95)",
            "25 (5 - 70)",
        ]
    assert [c.strip() for c in row("all that video answers").strip("│ ").split("│")][1:3] == [
        "8",
        "25",
    ]
    assert row("all that need the new sense").count(" 4 ") == 1
    assert "expected 24 answers, scored 24" in " ".join(lines)


@pytest.mark.parametrize("sense", ["audio", "flow", "depth", "normal", "point", "touch", "thermal"])
def test_types(sense):
    """Those of video alone, and those that the sense and video answer between them."""
    alone, added = quickstart.types_of(sense)
    assert alone == (
        "video_colour",
        "video_shape",
        "video_count",
        "video_side",
        "video_exists",
    )
    assert len(added) >= 4
    assert all(name.startswith(f"{sense}_") for name in added)


@pytest.mark.parametrize("sense", ["video", "smell", "thermla"])
def test_a_sense_that_cannot_be_added(sense, tmp_path):
    with pytest.raises(ConfigError, match=f"no sense '{sense}' to add") as error:
        quickstart.run(sense, tmp_path / "out")
    assert ("did you mean" in str(error.value)) == (sense == "thermla")
    assert not (tmp_path / "out").exists()


def test_what_is_given_of_a_sense(tmp_path):
    """Sound is in the video; every other sense has a file of its own."""
    from open_crema.senseqa.files import media_of_clip
    from open_crema.senseqa.sets import Spec, groups

    group = next(groups(Spec("val", 0, 2, ("thermal_side",))))
    media = media_of_clip(group, (0,))
    assert quickstart.given("audio", tmp_path, media) == {}
    for sense in ("flow", "depth", "normal", "point", "touch", "thermal"):
        assert quickstart.given(sense, tmp_path, media) == {sense: tmp_path / media[sense]}

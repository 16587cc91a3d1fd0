import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from open_crema.errors import CremaError, DataError
from open_crema.evaluation.report import curves, table

ROW = {
    "n": 40,
    "correct": 25,
    "accuracy": 0.625,
    "interval": [0.4703, 0.7578],
    "chance": 0.25,
    "majority": None,
    "blind": 0.275,
}
RESULTS = {
    **ROW,
    "types": {"[red]heat": {**ROW, "n": 30}, "": {**ROW, "n": 10, "majority": 0.5}},
    "expected": 45,
    "scored": 40,
    "skipped": {"no answer to compare with": 2, "unusable media": 3},
    "senses": ["video", "audio"],
    "absent": {"audio": {"a mute sound track": 4, "no file given": 1}},
}
STEPS = [
    {"kind": "step", "step": n, "epoch": n // 4, "sense": s, "loss": 3 / (n + 1), "lr": 1e-3}
    for n in range(8)
    for s in ("video", "audio")
]
EPOCHS = [
    {"kind": "epoch", "epoch": 0, "validation": {"accuracy": 0.25}, "exited": {}},
    {"kind": "epoch", "epoch": 1, "validation": {"accuracy": 0.5}, "exited": {"audio": 1}},
]
ALIGN = [{"kind": "align", "epoch": 0, "step": n, "loss": 5 - n} for n in range(4)]


PAIRS = {
    "n": 8,
    "correct": 3,
    "accuracy": 0.375,
    "interval": [0.1368, 0.6943],
    "chance": 0.0625,
    "blind": 0.0,
    "incomplete": 0,
}
NO_PAIRS = dict.fromkeys(PAIRS) | {"n": 0, "correct": 0, "incomplete": 2}
PAIRED = {
    **RESULTS,
    "pairs": {"audio": {**PAIRS, "incomplete": 1}, "thermal": PAIRS, "touch": NO_PAIRS},
    "types": {
        "a type of some length": {**ROW, "pairs": {"audio": PAIRS, "thermal": PAIRS}},
        "alone": {**ROW, "pairs": {}},
        "lost": {**ROW, "pairs": {"touch": NO_PAIRS}},
    },
}


def printed(results, width=120):
    console = Console(width=width, file=io.StringIO())
    console.print(table(results))
    return console.file.getvalue()


@pytest.fixture
def log(tmp_path):
    def write(*lines):
        path = tmp_path / "log.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return path

    return write


def test_the_table_says_what_was_scored_and_against_what():
    text = printed(RESULTS)
    row = next(line for line in text.splitlines() if " all " in line)
    for part in ("40", "25.0", "27.5", "62.5", "47.0 - 75.8", " - "):
        assert part in row
    assert "senses: video, audio" in text
    notes = " ".join(text.split())
    assert "rates in %" in notes
    assert "expected 45 = scored 40 + skipped 5" in notes
    assert "(2 no answer to compare with; 3 unusable media)" in notes
    assert "without audio: 4 a mute sound track; 1 no file given" in notes


def test_names_of_types_are_text_and_not_markup():
    text = printed(RESULTS)
    assert "[red]heat" in text
    assert "(no type)" in text


def test_the_table_of_a_run_without_senses_and_without_blind():
    text = printed({**RESULTS, "senses": [], "absent": {}, "skipped": {}, "blind": None})
    assert "none (question only)" in text
    assert "expected 45 = scored 40 + skipped 0" in text


def cells(text, name):
    (line,) = (line for line in text.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_pairs_have_a_column_and_a_row_for_each_sense():
    text = printed(PAIRED, width=110)
    assert cells(text, "all")[-1] == "37.5 (16)"
    assert cells(text, "a type of some length")[-1] == "37.5 (16)"
    assert cells(text, "alone")[-1] == cells(text, "lost")[-1] == ""
    rates = ["8", "6.2", "-", "0.0", "37.5", "13.7 - 69.4", "-", ""]
    assert cells(text, "pairs: thermal")[1:] == rates
    assert cells(text, "pairs: touch")[1:] == ["0", "-", "-", "-", "-", "-", "-", ""]
    assert "incomplete pairs, not counted: 1 of audio, 2 of touch" in text
    assert "incomplete" not in printed({**PAIRED, "pairs": {"thermal": PAIRS}})


def test_no_number_is_broken_at_100_columns():
    row = {
        **ROW,
        "n": 19200,
        "majority": 1.0,
        "accuracy": 1.0,
        "interval": [0.998, 1.0],
        "lenient": 1.0,
    }
    pairs = {"thermal": {**PAIRS, "n": 9600, "correct": 9600}}
    text = printed({**PAIRED, **row, "pairs": pairs}, width=100)
    assert cells(text, "all")[-3:] == ["99.8 - 100.0", "100.0", "100.0 (9600)"]


def test_results_without_pairs_have_no_column_of_them():
    for results in (RESULTS, {**RESULTS, "pairs": {}}):  # the first as it was before
        text = printed(results)
        assert "pairs" not in text
        assert len(cells(text, "all")) == 8


def test_the_curves_are_a_picture_with_a_panel_for_each_thing_in_the_log(tmp_path, log):
    heights = []
    for lines in (STEPS, STEPS + EPOCHS, ALIGN + STEPS + EPOCHS):
        picture = curves(log(*lines), tmp_path / "new" / "curves.png")
        image = Image.open(picture)
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 1  # something is drawn
        heights.append(image.height)
    assert heights[0] < heights[1] < heights[2]


def test_each_sense_has_its_own_curve(tmp_path, log):
    def colours(lines):
        image = Image.open(curves(log(*lines), tmp_path / "c.png")).convert("RGB")
        return {c for n, c in image.getcolors(1 << 24) if max(c) - min(c) > 100 and n > 20}

    both, one = colours(STEPS), colours([s for s in STEPS if s["sense"] == "video"])
    assert one
    assert len(both) > len(one)


def test_joint_training_and_epochs_without_validation(tmp_path, log):
    lines = [{**s, "sense": "all", "gradient": {"video": 0.1}} for s in STEPS]
    lines += [{"kind": "epoch", "epoch": 0, "exited": {}}]
    assert curves(log(*lines), tmp_path / "c.png").exists()


def test_a_loss_that_is_not_a_number_leaves_a_gap(tmp_path, log):
    lines = [*STEPS, {**STEPS[0], "step": 9, "loss": float("nan")}]
    assert curves(log(*lines), tmp_path / "c.png").exists()


def test_a_last_line_cut_off_by_a_crash_is_left_out(tmp_path, log):
    path = log(*STEPS)
    path.write_text(path.read_text() + '{"kind": "step", "step": 9')
    assert curves(path, tmp_path / "c.png").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no training step"),
        ('{"kind": "epoch", "epoch": 0, "exited": {}}\n', "no training step"),
        ('{"kind": \n{"kind": "step"}\n', "line 1: not valid JSON"),
        ("[1]\n", "line 1: expected a JSON object"),
        ('{"kind": "step", "step": 1}\n', "not a training log"),
        ('{"kind": "step", "step": 1, "sense": "a", "loss": "x"}\n', "not a training log"),
    ],
)
def test_a_log_that_is_none_is_named(tmp_path, text, message):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        curves(path, tmp_path / "c.png")
    assert str(path) in str(error.value)
    assert not (tmp_path / "c.png").exists()


def test_a_missing_log_and_a_place_that_cannot_be_written(tmp_path, log):
    with pytest.raises(DataError, match="gone"):
        curves(tmp_path / "gone.jsonl", tmp_path / "c.png")
    with pytest.raises(CremaError, match="cannot be written"):
        curves(log(*STEPS), tmp_path)

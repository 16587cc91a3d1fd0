"""The paper's numbers, against the paper's text where it is there, and among themselves."""

import re
from pathlib import Path

import pytest

from open_crema import config, modality
from open_crema.evaluation import published
from open_crema.evaluation.published import Printed

ROOT = Path(__file__).resolve().parents[3]
PAPER = ROOT.parent / "shared" / "paper"
LINES = {1: 9, 2: 9, 3: 11, 4: 12, 5: 18, 6: 6, 7: 6, 12: 6, 13: 6, 14: 2, 15: 3, 16: 6, 17: 2, 18: 3}
NEXT = {7: "Table 8:", 14: "Appendix B", 16: "B.1 ", 17: "B.5 ", 18: "B.6 "}


def test_every_printed_row_is_there():
    assert {row.table for row in published.rows()} == set(LINES)
    for number, lines in LINES.items():
        assert max(row.line for row in published.table(number)) == lines
    assert not published.table(8)


def test_a_few_values():
    best = published.table(1)[-1]
    assert best.senses == ("video", "audio", "flow", "depth", "normal")
    assert best.values["Avg."] == 81.7
    assert best.values["Audio-Visual Tem."] == 73.5
    assert (best.trainable, best.gflops) == (Printed("38M"), Printed("1.84K"))
    llama = published.table(3)[0]
    assert llama.values == {
        "Causal Avg.": 72.7,
        "Temporal Avg.": 69.2,
        "Descriptive Avg.": 75.8,
        "Avg.": 72.0,
    }
    assert llama.gflops is None
    point = next(r for r in published.table(18) if r.dataset == "SQA3D" and r.variant == "rank 128")
    assert (point.values["Acc."], point.trainable) == (46.3, Printed("6.3M"))
    assert [row.memory.value / 2**30 for row in published.table(14)] == [46.3, 18.6]


@pytest.fixture(scope="module")
def text():
    files = sorted(PAPER.glob("001_*.txt"))
    if not files:
        pytest.skip("the paper's text is not beside the project")
    return files[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("number", LINES)
def test_each_number_stands_in_the_paper_s_table(text, number):
    start = text.rindex(f"\nTable {number}:")
    stop = text.find(NEXT.get(number, f"\nTable {number + 1}:"), start + 1)
    printed = text[start : stop if stop > start else start + 4000]
    tokens = re.findall(r"\d+(?:\.\d+)?(?:GiB|[KMB](?![a-z]))?", printed.replace(" M", "M"))
    for row in published.table(number):
        sizes = (row.trainable, row.total, row.gflops, row.memory)
        for size in (s for s in sizes if s is not None):
            assert size.text in tokens, (row.method, size)
        for column, value in row.values.items():
            assert {f"{value:.1f}", f"{value:.0f}"} & set(tokens), (row.method, column)
        assert row.letters in printed.replace("A,V", "V, A") or number in (6, 7)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_row_is_one_line_of_the_paper(text, number):
    """Values in their order: the wide tables, where a number in a wrong column is easily missed."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for row in published.table(number):
        values = " ".join(f"{value:.1f}" for value in row.values.values())
        sought = f"{row.trainable.text} {row.gflops.text if row.gflops else '-'}"
        flat = (re.sub(r"(?<= )- (?=[-\d])", "", line) for line in lines)
        mine = [line for line in flat if values in line and row.letters in line]
        if row.method in ("LLaMA-VQA (7B)", "Mirasol3B"):
            sought = row.trainable.text
        assert any(sought in line for line in mine), (row.method, row.letters)


@pytest.mark.parametrize(
    ("text", "value", "step"),
    [("38M", 38e6, 1e6), ("3.8M", 3.8e6, 1e5), ("1.30K", 1300, 10), ("3.1B", 3.1e9, 1e8)],
)
def test_a_printed_size(text, value, step):
    printed = Printed(text)
    assert printed.value == pytest.approx(value)
    assert printed.step == pytest.approx(step)
    assert printed.says(value)
    assert printed.says(value + 0.9 * step)  # cut off
    assert printed.says(value - 0.4 * step)  # rounded
    assert not printed.says(value + 1.1 * step)
    assert not printed.says(value - 0.6 * step)


def test_rows_name_configurations_that_are_them():
    named = {row.config for row in published.rows() if row.config}
    files = {path.stem for path in (ROOT / "configs" / "paper").glob("[!_]*.yaml")}
    assert named == {name for name in files if not name.startswith("pretrain_")}
    for row in published.rows():
        if row.config is None:
            assert row.method != "CREMA"
            continue
        run = config.load(ROOT / "configs" / "paper" / f"{row.config}.yaml")
        assert modality.canonical(run.model.senses) == modality.canonical(row.senses)
        assert row in published.of_config(row.config)

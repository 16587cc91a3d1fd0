"""Two results on the same questions: paired, drawn by clip, and told from chance."""

import itertools
import json

import numpy as np
import pytest
from rich.console import Console

from open_crema import cli
from open_crema.errors import CremaError
from open_crema.evaluation.compare import compare, permutation, table
from open_crema.evaluation.difficulty import split
from open_crema.evaluation.result import Evaluation, Prediction


def line(i, correct, *, clip=None, type="", lenient=True, **other):
    return {
        "id": str(i),
        "type": type,
        "question": "?",
        "answers": ["red"],
        "correct": bool(correct),
        "lenient": lenient,
        "clip": i if clip is None else clip,
        **other,
    }


@pytest.fixture
def write(tmp_path):
    def one(name, *lines):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        text = "".join(json.dumps(said) + "\n" for said in lines)
        (folder / "predictions.jsonl").write_text(text)
        return folder

    return one


def test_the_same_twice_is_no_difference(write):
    a = write("a", *(line(i, i % 2) for i in range(20)))
    found = compare(a, a).strict
    assert (found.n, found.difference, found.interval, found.p) == (20, 0.0, (0.0, 0.0), 1.0)
    assert (found.both, found.neither, found.only_a, found.only_b) == (10, 10, 0, 0)


def test_a_clear_gain(write):
    a = write("a", *(line(i, i < 10, type="t" if i < 20 else "u") for i in range(40)))
    b = write("b", *(line(i, i < 30, type="t" if i < 20 else "u") for i in range(40)))
    found = compare(a, b)
    assert (found.strict.a, found.strict.b, found.strict.difference) == (0.25, 0.75, 0.5)
    assert found.strict.interval[0] > 0.3
    assert found.strict.p < 0.001
    assert compare(b, a).strict.difference == -0.5
    assert {name: one.difference for name, one in found.types.items()} == {"t": 0.5, "u": 0.5}
    assert found.lenient.difference == 0.0


def test_what_questions_of_one_clip_gain_together_counts_once(write):
    a = write("a", *(line(i, False, clip=i // 10) for i in range(40)))
    b = write("b", *(line(i, True, clip=i // 10) for i in range(40)))
    assert compare(a, b).strict.p == pytest.approx(2 / 2**4)


@pytest.mark.parametrize("sums", [[1.0, 1, 1], [2.0, -1, 0, 1], [], [1.0] * 12])
def test_few_clips_are_tried_in_all_ways(sums):
    ways = list(itertools.product((1, -1), repeat=len(sums)))
    seen = abs(sum(sums))
    expected = sum(abs(sum(s * x for s, x in zip(way, sums, strict=True))) >= seen for way in ways)
    assert permutation(np.array(sums)) == pytest.approx(expected / len(ways))


def test_many_clips_agree_with_the_exact_count():
    sums = np.array([1.0] * 9 + [-1.0] * 5)  # 14: drawn; exactly a sign test
    exact = sum(abs(sum(w)) >= 4 for w in itertools.product((1, -1), repeat=14)) / 2**14
    assert permutation(sums) == pytest.approx(exact, abs=0.02)


def test_only_common_questions_are_compared(write):
    a = write("a", line(1, True), line(2, True), {"id": "3", "reason": "unusable media"})
    b = write("b", line(2, False), line(3, True), line(4, True))
    found = compare(a, b)
    assert (found.strict.n, found.only_a, found.only_b) == (1, 1, 2)
    console = Console(width=120, record=True)
    console.print(table(found))
    assert "not compared: 1 questions of A alone, 2 of B" in console.export_text()


def test_what_cannot_be_compared(write, tmp_path):
    a = write("a", line(1, True))
    with pytest.raises(CremaError, match="no question in common"):
        compare(a, write("b", line(2, True)))
    with pytest.raises(CremaError, match="question '1' has another answer in"):
        compare(a, write("c", line(1, True, answers=["blue"])))
    with pytest.raises(CremaError, match="no such file; give a results folder"):
        compare(a, tmp_path / "none")
    with pytest.raises(CremaError, match="holds no scored prediction"):
        compare(a, write("d"))
    with pytest.raises(CremaError, match="line 1: not a prediction: no 'type'"):
        compare(a, write("e", {"id": "1"}))
    (a / "predictions.jsonl").write_text("{cut")
    with pytest.raises(CremaError, match="line 1: not a prediction"):
        compare(a, a)


def test_the_command(write, tmp_path, capsys):
    a = write("a", *(line(i, i % 2, lenient=None) for i in range(8)))
    b = write("b", *(line(i, 1) for i in range(8)))
    command = ["eval", "--compare", str(a), str(b)]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "+50.0" in out
    assert "all, lenient" not in out
    assert cli.main([*command, "--json", "--out", str(tmp_path / "out")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["strict"]["p"] == 2 / 2**4
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == said
    assert cli.main(["eval"]) == 2
    assert "name the YAML file of a training, or a model folder" in capsys.readouterr().err


# Easy and hard


def evaluation(*right):
    predictions = [
        Prediction(
            id=str(i),
            type="",
            question="?",
            answers=("red",),
            prediction="red",
            correct=correct,
            options=(),
            probabilities=(),
            senses=("video",),
            absent={},
            blind=None,
            blind_correct=None,
            chance=0.5,
            majority=None,
        )
        for i, correct in enumerate(right)
    ]
    return Evaluation(("video",), len(right), tuple(predictions), ())


def test_easy_is_what_the_other_model_has_right(write):
    by = write("zero-shot", line(0, True), line(1, False), line(2, False))
    found = split(evaluation(True, True, False, True), by)
    assert (found["easy"]["n"], found["easy"]["accuracy"]) == (1, 1.0)
    assert (found["hard"]["n"], found["hard"]["accuracy"]) == (2, 0.5)
    assert found["unknown"] == 1
    assert split(evaluation(True), by)["hard"] is None
    with pytest.raises(CremaError, match="answers none of these questions"):
        split(evaluation(True), write("other", line(7, True)))

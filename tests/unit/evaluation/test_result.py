import dataclasses
import hashlib
import json

import pytest
import torch
from named_features import ask, dataset

import tiny
from open_crema.config import Config, EvalConfig, from_dict
from open_crema.errors import CremaError, DataError
from open_crema.evaluation.result import Evaluation, write
from open_crema.evaluation.run import evaluate

COLOURS = ("red", "blue")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_bytes(b'{"question": "?"}\n')
    return path


@pytest.fixture(scope="module")
def model():
    return tiny.crema()


@pytest.fixture(scope="module")
def evaluation(model):
    samples = [
        ask("a", options=COLOURS, video="1", audio="2", type="colour"),
        ask("b", answer="zwölf", video="2", audio="mute", type="count", question="how many"),
        ask("c", video="broken", type="count"),
    ]
    return evaluate(model, dataset(*samples), config=EvalConfig(max_new_tokens=3), train=samples)


def test_results_hold_the_rates_and_where_they_came_from(tmp_path, model, evaluation, data):
    config = from_dict({"seed": 3, "name": "run"})
    place = write(evaluation, tmp_path / "out", config=config, model=model, data=data)
    assert place == tmp_path / "out" / "results.json"
    results = json.loads(place.read_text())
    assert results["accuracy"] == evaluation.accuracy
    assert results["interval"] == list(evaluation.overall.interval)
    assert {"chance", "majority", "blind", "n", "correct"} <= set(results)
    assert set(results["types"]) == {"colour", "count"}
    assert (results["expected"], results["scored"]) == (3, 2)
    assert results["skipped"] == {"unusable media": 1}
    assert results["senses"] == ["video", "audio"]
    assert results["absent"] == {"audio": {"a mute sound track": 1}}
    assert results["seed"] == 3
    assert from_dict(results["config"]) == config
    assert results["data"]["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert results["model"]["llm"] == "tiny-llama-0"
    assert set(results["model"]["adapters"]) == {"video", "audio"}
    assert results["code"]["open_crema"] == "0.1.0"
    assert len(results["code"]["sha256"]) == 64


def test_a_line_for_every_sample(tmp_path, model, evaluation, data):
    write(evaluation, tmp_path, config=Config(), model=model, data=data)
    text = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    chosen, said, skipped = lines
    assert [o["option"] for o in chosen["options"]] == list(COLOURS)
    assert sum(o["probability"] for o in chosen["options"]) == pytest.approx(1, abs=1e-5)
    best = max(chosen["options"], key=lambda o: o["probability"])
    assert chosen["prediction"] == best["option"]
    assert chosen["correct"] == (chosen["prediction"] == "red")
    assert chosen["senses"] == ["video", "audio"]
    assert said["answers"] == ["zwölf"]
    assert said["options"] == []
    assert said["absent"] == {"audio": "a mute sound track"}
    assert skipped["reason"] == "unusable media"
    assert "broken.mp4" in skipped["detail"]


def test_equal_runs_give_equal_files(tmp_path, model, evaluation, data):
    for name in ("one", "two"):
        write(evaluation, tmp_path / name, config=Config(), model=model, data=data)
    for file in ("results.json", "predictions.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_other_weights_have_another_fingerprint(tmp_path, model, evaluation, data):
    def adapters(place):
        return json.loads(place.read_text())["model"]["adapters"]

    one = adapters(write(evaluation, tmp_path, config=Config(), model=model, data=data))
    moved = tiny.crema()
    with torch.no_grad():
        next(moved.adapters["audio"].parameters()).add_(1e-3)
    two = adapters(write(evaluation, tmp_path, config=Config(), model=moved, data=data))
    assert one["video"] == two["video"]
    assert one["audio"] != two["audio"]


def test_old_results_are_gone_when_new_ones_cannot_be_written(tmp_path, model, evaluation, data):
    write(evaluation, tmp_path, config=Config(), model=model, data=data)
    (tmp_path / "predictions.jsonl").unlink()
    (tmp_path / "predictions.jsonl").mkdir()
    with pytest.raises(CremaError, match="cannot be written"):
        write(evaluation, tmp_path, config=Config(), model=model, data=data)
    assert not (tmp_path / "results.json").exists()


def test_a_missing_data_file_is_named(tmp_path, model, evaluation):
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        write(evaluation, tmp_path, config=Config(), model=model, data=tmp_path / "gone.jsonl")


def test_there_is_no_score_for_an_unnamed_part(evaluation):
    with pytest.raises(CremaError, match="no score: 4 samples were expected, 2 were scored and 1"):
        dataclasses.replace(evaluation, expected=4)
    with pytest.raises(CremaError, match="no score"):
        dataclasses.replace(evaluation, predictions=evaluation.predictions[:1])
    with pytest.raises(CremaError, match="no score: none of 0"):
        Evaluation(("video",), 0, (), ())


def test_without_types_there_are_no_rows_of_types(model):
    data = dataset(ask("a", options=COLOURS, video="1"))
    assert evaluate(model, data, config=EvalConfig()).types == {}


def test_results_are_plain_finite_json(tmp_path, model, evaluation, data):
    place = write(evaluation, tmp_path, config=Config(), model=model, data=data)
    for text in [place.read_text(), *(tmp_path / "predictions.jsonl").read_text().splitlines()]:
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

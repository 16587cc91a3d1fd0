"""crema eval on several sets of senses at once, and the curve of early exit."""

from __future__ import annotations

import json

import pytest
import torch
from command_line import QUESTION, tree, write_lines

import media_factory
from open_crema import experiment
from open_crema.config import load
from open_crema.data.store import FeatureStore
from open_crema.model.files import from_pretrained, save_pretrained
from open_crema.predictor import Predictor

pytestmark = pytest.mark.usefixtures("stand_ins")

TEXTS = ("What colour is it?", "What is ringing?", "Is it near?", "Who is there?", "Why?")
OPTIONS = ["red", "a phone", "yes"]
COSTS = {"video": "read_pictures", "audio": "sound_of_video"}


@pytest.fixture
def asked(place):
    """Two clips, of which one is silent, with and without options."""
    media_factory.write_video(place / "silent.mp4")
    lines = []
    for i, text in enumerate(TEXTS):
        line = {**QUESTION, "question": text, "type": f"t{i % 2}"}
        lines += [
            {**line, "id": f"{i}-choice", "options": OPTIONS},
            {**line, "id": f"{i}-open"},
            {**line, "id": f"{i}-silent", "options": OPTIONS, "video": "silent.mp4"},
        ]
    write_lines(place / "test.jsonl", *lines)
    return lines


@pytest.fixture
def stirred(place, model):
    """The saved model with adapters that make a difference."""
    run, folder = experiment.load_run(place / "run.yaml")
    made = from_pretrained(folder)
    torch.manual_seed(3)
    with torch.no_grad():
        for adapter in made.adapters.values():
            for parameter in adapter.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
    save_pretrained(made, folder, run=run)
    return folder


@pytest.fixture
def costs(tmp_path):
    """What was measured on this machine before: sound is cheaper than pictures."""

    def write(**seconds):
        home = tmp_path / "cache"
        home.mkdir(exist_ok=True)
        kept = {
            f"{sense} by open_crema.experts.senses:{COSTS[sense]}": [s]
            for sense, s in seconds.items()
        }
        (home / "sense_costs.json").write_text(json.dumps(kept))

    return write


@pytest.mark.usefixtures("asked")
def test_each_folder_is_what_a_run_of_its_own_writes(crema, stirred, place):
    together = crema("eval", stirred, "--subsets", "all")
    assert together.code == 0
    assert "written to" in together.out
    results = place / "out/results"
    assert {p.name for p in results.iterdir()} == {
        "blind",
        "video",
        "audio",
        "video+audio",
        "subsets.json",
        "dropout.json",
        "dropout.png",
    }
    for name in ("video", "audio", "video+audio"):
        senses, out = name.split("+"), place / "alone" / name
        alone = crema("eval", stirred, "--no-drop-one", "--senses", *senses, "--out", out)
        assert alone.code == 0
        assert tree(results / name) == tree(place / "alone" / name)
    rows = json.loads((results / "subsets.json").read_text())
    assert [row["folder"] for row in rows] == ["blind", "video", "audio", "video+audio"]
    for row in rows:
        assert (row["n"], row["expected"], list(row["types"])) == (15, 15, ["t0", "t1"])
        assert f"│ {row['folder']} " in together.out
    assert rows[0]["accuracy"] == rows[0]["blind"] == rows[3]["blind"]
    said = [(results / row["folder"] / "predictions.jsonl").read_text() for row in rows]
    assert len(set(said)) == 4


def test_as_json_and_of_fewer_senses(crema, model, place):
    ran = crema("eval", model, "--senses", "audio", "--subsets", "drop-one", "--json")
    rows = json.loads(ran.out)["subsets"]
    assert [row["senses"] for row in rows] == [["audio"], []]
    assert json.loads((place / "out/results/subsets.json").read_text()) == rows


def test_what_is_not_there_is_refused_before_any_work(crema, model, place):
    crema("eval", model, "--subsets", "video+adio").refused("'adio'", "did you mean 'audio'")
    crema("eval", model, "--subsets", "dropone").refused("did you mean 'drop-one'")
    crema("eval", model, "--subsets", "all", "--senses", "vidio").refused("did you mean 'video'")
    crema("eval", model, "--subsets", "audio", "--senses", "video").refused("no sense 'audio'")
    assert not (place / "out/results").exists()


def test_without_them_nothing_is_new(crema, model, place):
    assert crema("eval", model).code == 0
    results = place / "out/results"
    assert {p.name for p in results.iterdir()} == {
        "results.json",
        "predictions.jsonl",
        "drop-one",
    }
    assert {p.name for p in (results / "drop-one").iterdir()} == {"video", "audio", "subsets.json"}
    assert "confidence" not in json.loads(
        (results / "predictions.jsonl").read_text().split("\n")[0]
    )


def test_the_curve_is_what_ask_does_at_each_confidence(crema, stirred, place, costs, asked):
    costs(video=0.5, audio=0.2)
    ran = crema("eval", stirred, "--confidence-curve")
    assert ran.code == 0, ran.err
    assert "always + video (all)" in ran.out
    results = place / "out/results"
    assert {p.name for p in results.iterdir()} == {
        "video",
        "audio",
        "video+audio",
        "subsets.json",
        "exit_curve.json",
        "exit_curve.png",
    }
    kept = json.loads((results / "exit_curve.json").read_text())
    assert (kept["order"], kept["measured"]) == (["audio", "video"], ["video", "audio"])
    points = kept["points"]
    assert len(points) > 3
    ends = [*(p["threshold"] for p in points[1:]), 1.0]
    run = load(place / "run.yaml")
    llm = from_pretrained(stirred)
    for point, end in list(zip(points, ends, strict=True))[:: max(1, len(points) // 4)]:
        predictor = Predictor(
            llm,
            data=run.data,
            eval=run.eval,
            store=FeatureStore(place / "cache/features"),
            confidence=(point["threshold"] + end) / 2,
        )
        correct, senses, seconds = 0, 0, 0.0
        for line in asked:
            predictor.set_media(place / line["video"])
            answer = predictor.ask(line["question"], line.get("options"))
            correct += answer.answer == "red"
            senses += len(answer.senses)
            seconds += sum({"video": 0.5, "audio": 0.2}[s] for s in answer.senses)
        assert point["correct"] == correct
        assert point["senses"] == pytest.approx(senses / 15)
        assert point["seconds"] == pytest.approx(seconds / 15)


def test_the_curve_beside_other_subsets(crema, model, costs, place):
    costs(video=0.5)
    ran = crema("eval", model, "--confidence-curve", "--subsets", "blind", "--json")
    said = json.loads(ran.out)
    assert [row["folder"] for row in said["subsets"]] == ["blind", "video", "audio", "video+audio"]
    assert said["exit_curve"]["price"] == {"audio": 0.25, "video": 0.5}
    assert said["exit_curve"]["measured"] == ["video"]
    assert json.loads((place / "out/results/exit_curve.json").read_text()) == said["exit_curve"]

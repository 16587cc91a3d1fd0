"""RGB-D folders with a sound beside each, from files to answers, with the real frozen parts:
extract, train a base, add two senses to it, evaluate every subset, ask."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from command_line import tree, write_lines, write_yaml

import media_factory
from open_crema import cli, weights
from rgbd_factory import ROOM, pose, write_rgbd

QUESTIONS = {"turn": "Does the camera turn left or right?", "sound": "What do you hear?"}
ADDED = ["audio", "depth"]

pytestmark = pytest.mark.skipif(
    any(weights.state(name) != "ready" for name in weights.MANIFEST),
    reason="pretrained weights are not in the cache; run `crema doctor --fetch`",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rgbd")
    for split, count in (("train", 4), ("test", 2)):
        lines = []
        for i in range(count):
            side, loud = (-1) ** i, i % 4 < 2
            name = f"{split}{i}"
            cameras = [pose((0.01 * len(split), 0, 0.02 * i), yaw=side * 4 * t) for t in range(3)]
            write_rgbd(folder / "clips" / name, ROOM, cameras)
            (folder / "clips" / name / "timestamps.txt").write_text("0\n0.1\n0.2\n")
            sound = "tone" if loud else media_factory.np.random.default_rng(i).normal(0, 0.1, 48000)
            media_factory.write_audio(folder / f"{name}.wav", sound=sound)
            said = {"turn": "left" if side < 0 else "right", "sound": "tone" if loud else "noise"}
            lines += [
                {
                    "id": f"{name}-{kind}",
                    "video": f"clips/{name}",
                    "media": {"audio": f"{name}.wav"},
                    "question": question,
                    "answer": said[kind],
                    "type": kind,
                }
                for kind, question in QUESTIONS.items()
            ]
        write_lines(folder / f"{split}.jsonl", *lines)
    run = {
        "out": str(folder / "base"),
        "model": {
            "senses": ["video"],
            "qformer": {"layers": 1, "width": 32, "heads": 2, "ffn": 32, "queries": 2},
            "lora": {"rank": 2},
        },
        "data": {
            "train": str(folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "store": str(folder / "store"),
            "store_frames": 3,
            "frames": 2,
        },
        "train": {"epochs": 1, "batch_size": 4, "warmup_steps": 0, "lr": 1e-3, "threads": 1},
        "eval": {"max_new_tokens": 3},
    }
    write_yaml(folder / "base.yaml", run)
    grown = {
        "base": "base.yaml",
        "out": str(folder / "grown"),
        "model": {"senses": ["video", *ADDED]},
        "train": {"init": str(folder / "base" / "model"), "scope": "own"},
    }
    write_yaml(folder / "grown.yaml", grown)
    return folder


def crema(*arguments):
    assert cli.main([str(a) for a in arguments]) == 0


def extract(place, split):
    senses = ["--senses", "video", *ADDED, "point"]
    config = ["--config", place / "base.yaml", "--out", place / "store"]
    crema("extract", place / f"{split}.jsonl", *senses, *config)


@pytest.fixture(scope="module")
def extracted(place):
    for split in ("train", "test"):
        extract(place, split)
    return place


@pytest.fixture(scope="module")
def grown(extracted):
    crema("train", extracted / "base.yaml")
    crema("train", extracted / "grown.yaml")
    return extracted


def test_a_second_extraction_makes_nothing(extracted, capsys):
    def results():
        return {f for part in ("objects", "shards") for f in tree(extracted / "store" / part)}

    before = results()
    extract(extracted, "train")
    assert "nothing to do" in capsys.readouterr().out
    assert results() == before


def test_the_store_is_whole(extracted, capsys):
    crema("store", "verify", extracted / "store", "--json")
    found = json.loads(capsys.readouterr().out)
    # video, depth and point of six clips; of their sounds, four are the same file
    assert found["checked"] == found["good"] == 6 * 3 + 3


def test_adding_senses_moves_nothing_of_the_base(grown):
    base, model = tree(grown / "base" / "model"), tree(grown / "grown" / "model")
    tensors = [name for name in base if name.endswith(".safetensors")]
    assert tensors
    assert all(model[name] == base[name] for name in tensors)
    for sense in ADDED:
        assert f"adapters/{sense}/adapter.safetensors" in model


SUBSETS = [list(s) for n in (1, 2, 3) for s in combinations(["video", *ADDED], n)]


@pytest.mark.parametrize("senses", SUBSETS, ids="+".join)
def test_every_subset_of_senses_is_scored_on_the_same_questions(grown, senses, tmp_path, capsys):
    crema("eval", grown / "grown.yaml", "--senses", *senses, "--results", tmp_path, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["expected"] == found["n"] == 4
    lines = [json.loads(x) for x in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert all(line["senses"] == senses for line in lines)


def ask(grown, *more):
    model = grown / "grown" / "model"
    crema("ask", grown / "clips" / "test0", QUESTIONS["turn"], "--model", model, "--json", *more)


def test_a_question_about_a_folder_and_a_sound(grown, capsys):
    ask(grown, "--sense", f"audio={grown / 'test0.wav'}", "--options", "left", "right")
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] in ("left", "right")
    assert set(answer["senses"]) == {"video", *ADDED}
    assert answer["absent"] == {}


def test_an_rgbd_folder_alone_is_video_and_depth_without_sound(grown, capsys):
    ask(grown)
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["senses"]) == {"video", "depth"}
    assert "no sound" in answer["absent"]["audio"]

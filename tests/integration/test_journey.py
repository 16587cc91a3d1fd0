"""A user's way from clips to answers, with the real frozen encoders and the real frozen LLM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import tree, write_yaml

import media_factory
from open_crema import cli, weights

SENSES = ["video", "audio"]
OPTIONS = ["red", "green", "blue", "yellow"]

pytestmark = pytest.mark.skipif(
    any(weights.state(name) != "ready" for name in weights.MANIFEST),
    reason="pretrained weights are not in the cache; run `crema doctor --fetch`",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Clips, questions and ``run.yaml``: the README's quickstart, as small as can be."""
    examples = os.path.join(os.path.dirname(__file__), "..", "..", "examples")
    sys.path.insert(0, examples)
    try:
        import make_clips
    finally:
        sys.path.remove(examples)
    folder = tmp_path_factory.mktemp("journey")
    make_clips.write_split(folder, "train", 2, seed=0)
    make_clips.write_split(folder, "test", 2, seed=0)
    media_factory.write_video(folder / "mute.mp4", sound="mute")
    media_factory.write_video(folder / "cut.mp4", sound="tone")
    media_factory.truncate(folder / "cut.mp4", 0.4)
    for split in ("train", "test"):
        path = folder / f"{split}.jsonl"
        first = json.loads(path.read_text().splitlines()[0])
        assert first["type"] == "colour"
        choice = {**first, "id": "choice", "options": OPTIONS}
        mute = {"id": "mute", "video": "mute.mp4", "question": "What is it?", "answer": "a square"}
        with path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in (choice, mute))
    with (folder / "test.jsonl").open("a") as file:
        file.write(json.dumps({**mute, "id": "cut", "video": "cut.mp4"}) + "\n")
    run = {
        "name": "journey",
        "out": str(folder / "out"),
        "model": {
            "senses": SENSES,
            "qformer": {"layers": 1, "width": 32, "heads": 2, "ffn": 32, "queries": 2},
            "lora": {"rank": 2},
        },
        "data": {
            "train": str(folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "store": str(folder / "store"),
            "store_frames": 2,
            "frames": 2,
        },
        "train": {
            "epochs": 2,
            "batch_size": 3,
            "qformer": "alignment",
            "warmup_steps": 1,
            "lr": 1e-3,
            "threads": 1,
            "alignment": {"epochs": 2, "batch_size": 8, "random_rows": 16},
        },
        "eval": {"max_new_tokens": 3},
    }
    write_yaml(folder / "run.yaml", run)
    return folder


@pytest.fixture(scope="module")
def model(place):
    """``crema train run.yaml``, paid for once."""
    assert cli.main(["train", str(place / "run.yaml")]) == 0
    return place / "out" / "model"


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


class TestTraining:
    def test_files(self, place, model):
        assert set(tree(model)) == {
            "config.json",
            "run.yaml",
            "qformer.safetensors",
            "fusion.safetensors",
            *(
                f"adapters/{sense}/{part}"
                for sense in SENSES
                for part in ("adapter.safetensors", "config.json")
            ),
        }
        out = place / "out"
        assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
        kept = {"step-00000002", "step-00000004"}
        assert {p.name for p in (out / "checkpoints").iterdir()} == kept
        assert {p.name for p in out.iterdir()} >= {"model", "log.jsonl", "checkpoints"}
        timed = [json.loads(line) for line in (out / "timing.jsonl").read_text().splitlines()]
        assert [line["step"] for line in timed] == [0, 1, 2, 3]
        assert all(line["seconds"] > 0 for line in timed)

    def test_log(self, place, model):
        lines = log_of(place / "out")
        kinds = [line["kind"] for line in lines]
        # 6 questions: one batch an epoch of alignment; two of training, each a sub-step a sense
        assert kinds == ["align"] * 2 + (["step"] * 4 + ["epoch"]) * 2
        steps = [line for line in lines if line["kind"] == "step"]
        assert [s["step"] for s in steps] == [0, 0, 1, 1, 2, 2, 3, 3]
        assert [s["sense"] for s in steps] == SENSES * 4
        assert all(0 < s["loss"] < 20 and s["gradient"] > 0 for s in steps)

    def test_running_it_again_changes_nothing(self, crema, place, model):
        before = tree(place / "out")
        again = crema("train", place / "run.yaml")
        assert (again.code, again.out.strip()) == (0, str(model))
        after = tree(place / "out")
        assert after.keys() == before.keys()
        assert {n for n in after if after[n] != before[n]} <= {"curves.png"}

    def test_fresh_discards_what_was_there(self, crema, place, model):
        """First refused, as another configuration; then begun anew. In a copy of the run."""
        out = place / "copy"
        subprocess.run(["cp", "-r", place / "out", out], check=True)
        short = ["train.alignment.epochs=1", "train.epochs=0", "seed=1", f"out={out}"]
        crema("train", place / "run.yaml", *short).refused("seed", "--fresh", alone=False)
        assert crema("train", place / "run.yaml", *short, "--fresh").code == 0
        assert [line["kind"] for line in log_of(out)] == ["align"]
        assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000000"]
        old, new = ((f / "qformer.safetensors").read_bytes() for f in (model, out / "model"))
        assert old != new

    def test_killed_and_run_again_it_is_the_same_model(self, place, model):
        out = place / "killed"
        command = [sys.executable, "-m", "open_crema.cli", "train", place / "run.yaml"]
        command += [f"out={out}"]
        with (place / "stderr.txt").open("w") as errors:
            first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
            log = out / "log.jsonl"
            deadline = time.monotonic() + 120
            # in the middle of the second epoch: between two sub-steps or inside one
            while not log.exists() or log.read_text().count('"step"') < 5 * 2:
                assert first.poll() is None, (place / "stderr.txt").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert not (out / "model").exists()
        again = subprocess.run(command, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert again.stdout.strip() == str(out / "model")
        whole, resumed = tree(model), tree(out / "model")
        assert whole.keys() == resumed.keys()
        assert {n for n in whole if whole[n] != resumed[n]} <= {"run.yaml"}
        assert (place / "out/log.jsonl").read_bytes() == (out / "log.jsonl").read_bytes()


@pytest.fixture(scope="module")
def found(place, model):
    """``crema eval run.yaml``, paid for once."""
    assert cli.main(["eval", str(place / "run.yaml")]) == 0
    return json.loads((place / "out/results/results.json").read_text())


class TestEvaluation:
    def test_all_are_accounted_for(self, found):
        assert (found["expected"], found["scored"]) == (7, 6)
        assert found["skipped"] == {"unusable media": 1}
        assert found["n"] == found["scored"]
        assert found["senses"] == SENSES
        (reason,) = found["absent"]["audio"]
        assert found["absent"] == {"audio": {reason: 1}}
        assert 0 < found["chance"] < 1
        assert 0 <= found["blind"] <= 1
        assert sum(row["n"] for row in found["types"].values()) == 6

    def test_predictions(self, place, found):
        text = (place / "out/results/predictions.jsonl").read_text()
        lines = {line["id"]: line for line in map(json.loads, text.splitlines())}
        assert len(lines) == 7
        shares = [o["probability"] for o in lines["choice"]["options"]]
        assert [o["option"] for o in lines["choice"]["options"]] == OPTIONS
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert lines["choice"]["prediction"] == OPTIONS[shares.index(max(shares))]
        assert lines["mute"]["senses"] == ["video"]
        assert lines["mute"]["absent"].keys() == {"audio"}
        assert "cut short" in lines["cut"]["detail"]

    def test_one_sense_alone(self, crema, place, model, found):
        """As a table, from the model folder alone, beside the other results."""
        out = place / "deaf"
        said = crema("eval", model, "--senses", "video", "--results", out)
        assert said.code == 0, said.err
        assert "senses: video" in said.out
        assert "expected 7 = scored 6 + skipped 1 (1 unusable media)" in said.out
        for heading in ("chance", "blind", "accuracy", "N"):
            assert heading in said.out
        alone = json.loads((out / "results.json").read_text())
        assert (alone["senses"], alone["scored"]) == (["video"], 6)
        assert alone["blind"] == found["blind"]

    def test_json(self, crema, place, model):
        """On a data file of one's own: only JSON on stdout."""
        own = place / "own.jsonl"
        own.write_text((place / "test.jsonl").read_text().splitlines()[0] + "\n")
        said = crema("eval", model, "--data", own, "--json", "--results", place / "own")
        assert said.code == 0, said.err
        found = json.loads(said.out)
        assert (found["expected"], found["scored"], found["skipped"]) == (1, 1, {})
        assert found["data"]["path"] == str(own)
        assert found == json.loads((place / "own/results.json").read_text())


class TestAsking:
    def test_an_open_question_in_a_process_of_its_own(self, place, model):
        command = [sys.executable, "-m", "open_crema.cli", "ask", place / "clips/test0000.mp4"]
        command += ["What do you hear?", "--model", model, "--json"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        answer = json.loads(ran.stdout)
        assert answer["answer"]
        assert "options" not in answer
        assert answer["absent"] == {}
        assert list(answer["senses"]) == SENSES
        assert answer["senses"]["video"] == {"gate": None, "segments": 2}
        assert 0 < answer["senses"]["audio"]["gate"] <= 1
        assert answer["senses"]["audio"]["segments"] >= 1
        seconds = answer["seconds"]
        assert set(seconds) == {"load", "read+encode", "answer"}
        assert set(seconds["read+encode"]) == set(SENSES)
        assert min(seconds["load"], seconds["answer"], *seconds["read+encode"].values()) > 0

    def test_options_about_a_mute_clip(self, crema, place, model):
        arguments = ["ask", place / "mute.mp4", "What colour is it?", "--model", model]
        arguments += ["--options", "red", "light blue", "green"]
        said = crema(*arguments, "--json")
        assert (said.code, said.err) == (0, "")
        answer = json.loads(said.out)
        shares = {o["option"]: o["probability"] for o in answer["options"]}
        assert list(shares) == ["red", "light blue", "green"]
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert answer["answer"] == max(shares, key=shares.get)
        assert list(answer["senses"]) == ["video"]
        assert answer["absent"].keys() == {"audio"}
        words = crema(*arguments)
        assert words.out.splitlines()[0] == answer["answer"]
        assert len(words.out.splitlines()) == 4
        assert f"without audio: {answer['absent']['audio']}" in words.err
        assert "used video: 2 segments" in words.err

    def test_a_sound_of_its_own_and_no_video(self, crema, place, model):
        sound = media_factory.write_audio(place / "tone.wav", seconds=2)
        said = crema("ask", "-", "What do you hear?", "--model", model, "--sense", f"audio={sound}")
        assert said.code == 0, said.err
        assert "used audio: 1 segments" in said.err
        assert "without video: " in said.err

    def test_a_sense_that_the_model_does_not_have(self, crema, place, model):
        depth = f"depth={place / 'mute.mp4'}"
        said = crema("ask", place / "mute.mp4", "How far?", "--model", model, "--sense", depth)
        said.refused("no adapter for 'depth'", "it has video, audio")

    def test_the_cost_of_it(self, crema, place):
        said = crema("cost", place / "run.yaml", "--json")
        assert said.code == 0
        (row,) = json.loads(said.out)
        assert row["senses"] == list(SENSES)
        assert row["total"] == row["trainable"] + row["frozen"]
        assert row["macs"] == row["operations"]["total"]
        counted = row["parameters"]
        assert set(counted["trainable"]["senses"]) == set(SENSES)
        assert counted["trainable"]["total"] == row["trainable"]
        assert (
            counted["frozen"]["llm"]["parameters"]
            == weights.lookup("smollm2-135m-instruct-q4_1").parameters
        )

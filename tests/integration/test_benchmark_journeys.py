"""Every benchmark from its official files to a score: checked, trained on for an epoch, evaluated,
reported; with the real frozen encoders and LLM, on media made on the spot in its layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import write_yaml

import benchmark_files as made
import media_factory
from open_crema import cli, weights

pytestmark = pytest.mark.skipif(
    any(weights.state(name) != "ready" for name in weights.MANIFEST),
    reason="pretrained weights are not in the cache; run `crema doctor --fetch`",
)

SENSES = {
    "music_avqa": ["video", "audio"],
    "nextqa": ["video", "flow"],
    "sqa3d": ["video", "point"],
    "perception_test": ["video", "depth"],
    "vggsound": ["video", "audio"],
    "touchqa": ["video", "touch"],
    "thermalqa": ["video", "thermal"],
    "audiocaps": ["audio"],
    "scanqa": ["point"],
}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def _video(folder: Path, clip: str) -> None:
    media_factory.write_video(folder / f"{clip}.mp4", frames=8, fps=8, sound="tone")


def _pictures(folder: Path, clip: str) -> None:
    media_factory.write_frames_folder(folder / clip, frames=4)


def _sound(folder: Path, clip: str) -> None:
    media_factory.write_audio(folder / f"{clip}.wav", seconds=1)


def _points(folder: Path, clip: str) -> None:
    random = np.random.default_rng(len(clip))
    features = random.normal(size=(64, 384)).astype(np.float32)
    voxels = random.integers(0, 60, (64, 3)).astype(np.int64)
    np.savez(folder / f"{clip}.npz", features=features, voxels=voxels)


def _depth(folder: Path, clip: str) -> None:
    (folder / clip).mkdir()
    for i in range(8):
        depth = np.full((48, 64), 1000 + 100 * i, np.uint16)
        media_factory.write_depth_png(folder / clip / f"{i}.png", depth)


MAKERS = {
    ("nextqa", "video"): (_video, "video/1164"),
    ("sqa3d", "video"): (_pictures, "video"),
    ("vggsound", "video"): (_video, "."),
    ("touchqa", "video"): (_pictures, "video"),
    ("thermalqa", "video"): (_pictures, "video"),
    "video": (_video, "video"),
    "audio": (_sound, "audio"),
    "depth": (_depth, "depth"),
    "point": (_points, "point"),
    "touch": (_pictures, "touch"),
    "thermal": (_pictures, "thermal"),
}
MADE_OF_VIDEO = {("music_avqa", "audio"), ("vggsound", "audio"), ("nextqa", "flow")}


def lay_out(task: str, folder: Path) -> None:
    """Annotations of all splits, and the media of their clips."""
    entries = made.ENTRIES[task]
    made.write(task, folder, entries[:1], "train")
    path = made.write(task, folder, entries, "test")
    from open_crema import tasks

    loader = tasks.get(task)
    clips = {sample.clip for sample in loader.load(path, media_root=folder)}
    for sense in SENSES[task]:
        if (task, sense) not in MADE_OF_VIDEO:
            make, place = MAKERS.get((task, sense)) or MAKERS[sense]
            (folder / "media" / place).mkdir(parents=True, exist_ok=True)
            for clip in sorted(clips):
                make(folder / "media" / place, clip)


def configuration(task: str, folder: Path, senses: list[str], **data: object) -> Path:
    run = {
        "name": task,
        "out": str(folder / "out"),
        "model": {
            "senses": senses,
            "qformer": {"layers": 1, "width": 32, "heads": 2, "ffn": 32, "queries": 2},
            "lora": {"rank": 2},
        },
        "data": {
            "task": task,
            "train": str(folder),
            "test": str(folder),
            "media_root": str(folder / "media"),
            "store": str(folder / "store"),
            "store_frames": 1,
            "frames": 1,
            **data,
        },
        "train": {"epochs": 1, "batch_size": 2, "warmup_steps": 1, "threads": 1},
        "eval": {"max_new_tokens": 2},
    }
    return write_yaml(folder / "run.yaml", run)


@pytest.mark.parametrize("task", sorted(SENSES))
def test_from_official_files_to_a_score(task, tmp_path, capsys):
    lay_out(task, tmp_path)
    check = ["data", "check", task, "--annotations", str(tmp_path), "--json"]
    assert cli.main([*check, "--media", str(tmp_path / "media")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == 3
    missing = {sense: one["missing"] for sense, one in found["media"].items()}
    assert all(why == {} for why in missing.values()), missing

    run = configuration(task, tmp_path, SENSES[task])
    assert cli.main(["train", str(run)]) == 0
    model, results = tmp_path / "out" / "model", tmp_path / "results"
    capsys.readouterr()
    dropped = set(SENSES[task]) if task in ("music_avqa", "nextqa") else set()
    command = ["eval", str(model), "--out", str(results)]
    assert cli.main(command if dropped else [*command, "--no-drop-one"]) == 0
    table = capsys.readouterr().out
    said = json.loads((results / "results.json").read_text())
    assert (said["expected"], said["scored"], said["skipped"]) == (2, 2, {})
    assert said["absent"] == {}, "every sense was there"
    assert said["scores"]["task"] == task
    assert said["blind"] is not None
    assert 0 <= said["bootstrap"][0] <= said["accuracy"] <= said["bootstrap"][1] <= 1
    assert set(said.get("drop_one", {})) == dropped
    assert ("beside the paper" in table) is bool(said.get("published", {}).get("rows"))
    predictions = (results / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 2
    assert cli.main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<img" in page or "<audio" in page or task == "scanqa"


@pytest.mark.parametrize(
    ("task", "kind", "senses"),
    [
        ("music_avqa", "audio_first", ["video", "audio"]),
        ("sqa3d", "point_colour", ["video", "point"]),
        ("nextqa", "video_colour", ["video", "flow"]),
    ],
)
def test_senseqa_in_the_layout_of_a_benchmark(task, kind, senses, tmp_path, capsys):
    """Media that show what is asked, checked, trained on and scored as that benchmark's."""
    for split in ("train", "test"):
        command = ["data", "make", "senseqa", "--n", "4", "--types", kind, "--split", split]
        assert cli.main([*command, "--out", str(tmp_path / split)]) == 0
    folders = {split: tmp_path / split / "official" / task for split in ("train", "test")}
    capsys.readouterr()
    check = ["data", "check", task, "--annotations", str(folders["test"])]
    assert cli.main([*check, "--media", str(folders["test"]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == 4
    assert all(one["missing"] == {} for one in found["media"].values())
    assert set(found["media"]) >= set(senses) - {"flow"}

    data = {split: str(folder) for split, folder in folders.items()}
    run = configuration(task, tmp_path, senses, **data, media_root=None)
    assert cli.main(["train", str(run)]) == 0
    results = tmp_path / "results"
    assert cli.main(["eval", str(run), "--no-drop-one", "--out", str(results)]) == 0
    said = json.loads((results / "results.json").read_text())
    assert (said["expected"], said["scored"], said["absent"]) == (4, 4, {})


def test_zero_shot_with_senses_from_the_command_line(tmp_path, capsys):
    """The base that ships, on two benchmarks that it was never trained on."""
    lay_out("music_avqa", tmp_path)
    lay_out("perception_test", tmp_path / "other")
    from open_crema import experiment

    base = str(experiment.shipped_base())
    command = ["eval", base, "--task", "MUSIC-AVQA", "--annotations", str(tmp_path)]
    command += ["--media", str(tmp_path / "media"), "--senses", "video", "audio", "--no-drop-one"]
    command += ["--option", "split=real", "--out", str(tmp_path / "results")]
    assert cli.main(command) == 0
    said = json.loads((tmp_path / "results" / "results.json").read_text())
    assert (said["expected"], said["training"]["zero_shot"]) == (1, True)
    assert said["published"]["zero_shot"]
    assert {row["table"] for row in said["published"]["rows"]} == {5, 15}
    assert said["published"]["differs"] == ""
    path = made.write("perception_test", tmp_path / "other", made.ENTRIES["perception_test"])
    command = ["eval", base, "--task", "perception_test", "--annotations", str(path)]
    command += ["--media", str(tmp_path / "other" / "media"), "--senses", "video", "--easy-hard"]
    out = str(tmp_path / "second")
    assert cli.main([*command, str(tmp_path / "results"), "--out", out]) == 2
    assert "answers none of these questions" in capsys.readouterr().err
    assert cli.main([*command[:-1], "--out", out]) == 0
    assert cli.main([*command, out, "--out", str(tmp_path / "third")]) == 0
    third = json.loads((tmp_path / "third" / "results.json").read_text())
    difficulty = third["difficulty"]
    right = round(third["accuracy"] * 2)
    assert [(difficulty[k] or {"n": 0})["n"] for k in ("easy", "hard")] == [right, 2 - right]
    assert cli.main(["eval", "--compare", out, str(tmp_path / "third"), "--json"]) == 0


def test_a_clip_with_an_official_row(tmp_path, capsys):
    """VGGSound's 3qesirWAGt4 ('dog barking' in test.csv), as the repository's list has it."""
    clip = SHARED / "media" / "vggsound_sample"
    files = sorted(clip.glob("3qesirWAGt4*")) if clip.is_dir() else []
    if not files:
        pytest.skip("the clip and VGGSound's list (../shared/data) are not here")
    listed = (SHARED / "annotations" / "vggsound" / "test.csv").read_text().splitlines()
    row = next(line for line in listed if line.startswith("3qesirWAGt4"))
    assert row.endswith(",dog barking")
    stat = (SHARED / "annotations" / "vggsound" / "stat.csv").read_text()
    (tmp_path / "stat.csv").write_text(stat)
    (tmp_path / "test.csv").write_text(row + "\n")
    (tmp_path / "train.csv").write_text(row + "\n")
    (tmp_path / "media").mkdir()
    name = row.split(".mp4")[0]
    (tmp_path / "media" / f"{name}.mp4").symlink_to(files[0])
    run = configuration("vggsound", tmp_path, ["video", "audio"])
    assert cli.main(["train", str(run)]) == 0
    out = str(tmp_path / "results")
    assert cli.main(["eval", str(tmp_path / "out" / "model"), "--out", out]) == 0
    said = json.loads((tmp_path / "results" / "results.json").read_text())
    assert (said["scored"], said["absent"]) == (1, {})
    assert said["chance"] == pytest.approx(1 / 309)
    line = json.loads((tmp_path / "results" / "predictions.jsonl").read_text().splitlines()[0])
    assert (line["answers"], line["id"]) == (["dog barking"], name)


def test_a_question_whose_sense_is_not_there(tmp_path, capsys):
    """A mute video under a question about its sound: answered, counted, and said why."""
    lay_out("music_avqa", tmp_path)
    media_factory.write_video(tmp_path / "media" / "video" / "00000028.mp4", frames=8, fps=8)
    run = configuration("music_avqa", tmp_path, ["video", "audio"])
    assert cli.main(["train", str(run)]) == 0
    assert cli.main(["eval", str(tmp_path / "out" / "model"), "--out", str(tmp_path / "r")]) == 0
    said = json.loads((tmp_path / "r" / "results.json").read_text())
    assert sum(said["absent"]["audio"].values()) == 1
    assert "no sound track" in str(said["absent"])
    (tmp_path / "media" / "video" / "va00000108.mp4").unlink()
    assert cli.main(["eval", str(tmp_path / "out" / "model"), "--out", str(tmp_path / "s")]) == 0
    said = json.loads((tmp_path / "s" / "results.json").read_text())
    assert (said["scored"], said["skipped"]) == (1, {"unusable media": 1})
    assert "no such file" in (tmp_path / "s" / "predictions.jsonl").read_text()
    (tmp_path / "media" / "video" / "00000028.mp4").unlink()
    capsys.readouterr()
    assert cli.main(["train", str(run), f"out={tmp_path / 'again'}"]) == 2
    assert "00000028.mp4: no such file" in capsys.readouterr().err


def test_test_answers_do_not_choose_the_epoch(tmp_path, capsys):
    lay_out("nextqa", tmp_path)
    test = tmp_path / "test.csv"
    run = configuration("nextqa", tmp_path, ["video"], test=str(test), validation=str(test))
    assert cli.main(["train", str(run)]) == 2
    assert "data.validation and data.test are the same file" in capsys.readouterr().err
    copy = tmp_path / "val.csv"
    copy.write_text(test.read_text())
    run = configuration("nextqa", tmp_path, ["video"], test=str(test), validation=str(copy))
    assert cli.main(["train", str(run)]) == 2
    assert "has the same content as data.test" in capsys.readouterr().err

"""`crema data check`: what is counted, what is wrong, which media are missing."""

import json
from pathlib import Path

import pytest

import benchmark_files as made
from media_factory import write_audio, write_video
from open_crema import cli, tasks
from open_crema.errors import DataError
from open_crema.tasks.check import check

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "annotations"


@pytest.mark.parametrize("task", sorted(made.ENTRIES))
def test_every_task_is_counted(task, tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        made.write(task, tmp_path, made.ENTRIES[task][:count], split)
    found = check(tasks.get(task), tmp_path)
    assert found.questions == 3
    assert found.counts["train"]["all types"] == 2
    assert found.counts["test"]["all types"] == 1
    assert (found.broken, found.unanswered) == (False, 0)
    assert json.dumps(found.to_dict())


def test_all_that_is_wrong_is_counted_at_once(tmp_path):
    entries = [
        made.music(number=1),
        made.music(number=1),
        made.music(number=2, anser=""),
        made.music(number=3, anser="theremin"),
        made.music(number=4, colour="red"),
        {k: v for k, v in made.music(number=5).items() if k != "type"},
        made.music(number=6, templ_values="[]"),
    ]
    path = made.write("music_avqa", tmp_path, entries)
    found = check(tasks.get("music_avqa"), path)
    assert (found.questions, found.unanswered, found.broken) == (4, 1, True)
    said = {p.text: (p.fatal, p.count) for p in found.problems}
    assert said["an id is given twice"] == (True, 1)
    assert said["field 'type' is missing"] == (True, 1)
    assert said["unknown field 'colour', not read"] == (False, 1)
    assert said["answer 'theremin' is none of the benchmark's 42"] == (False, 1)
    twice = next(p for p in found.problems if p.text == "an id is given twice")
    assert "line 11 (entry 2): id '1' is already that of line 2 (entry 1)" in twice.places[0]


def test_the_command(tmp_path, capsys):
    path = made.write("nextqa", tmp_path, made.ENTRIES["nextqa"])
    assert cli.main(["data", "check", "NExT-QA", "--annotations", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 questions in 2 videos" in out
    assert "duplicate ids: 0; empty answers: 0; unknown fields: 0" in out
    assert cli.main(["data", "check", "nextqa", "--annotations", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["test"]["CW"] == 1
    made.write("nextqa", tmp_path, [made.next_qa(answer=9)])
    assert cli.main(["data", "check", "nextqa", "--annotations", str(path)]) == 2
    said = capsys.readouterr()
    assert f"{path}, line 2: field 'answer' is 9; it must be one of 0 to 4" in said.err
    assert "0 questions" in said.out
    with path.open("a") as file:
        file.write("cut")
    assert cli.main(["data", "check", "nextqa", "--annotations", str(path)]) == 2
    assert "line 3: 1 cells, but there are 13 columns" in capsys.readouterr().err


def test_options_of_a_task(tmp_path, capsys):
    made.write("music_avqa", tmp_path, made.ENTRIES["music_avqa"])
    command = ["data", "check", "music_avqa", "--annotations", str(tmp_path), "--json"]
    assert cli.main([*command, "--option", "split=real"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 1
    assert cli.main([*command, "--option", "real"]) == 2
    assert "write NAME=VALUE" in capsys.readouterr().err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Videos of MUSIC-AVQA: one whole, one mute, one cut, one of another kind, two missing."""
    folder = tmp_path_factory.mktemp("music")
    entries = [made.music(f"0000000{i}", i) for i in range(7)]
    made.write("music_avqa", folder, entries)
    media = folder / "media"
    (media / "video").mkdir(parents=True)
    write_video(media / "video" / "00000000.mp4", sound="tone")
    write_video(media / "video" / "00000001.mkv")
    (media / "video" / "00000002.mp4").write_bytes(b"no video")
    (media / "video" / "00000003.txt").write_text("here is a video")
    (media / "video" / "00000004.mp4").touch()
    write_audio(media / "video" / "00000005.mp4")
    return folder


def test_media_are_looked_for(place):
    found = check(tasks.get("music_avqa"), place, place / "media")
    video, audio = found.media["video"], found.media["audio"]
    assert video.expected == audio.expected == 7
    assert video.missing == {
        "a file that cannot be opened as media": 1,
        "only a file that is no video (.txt)": 1,
        "an empty file": 1,
        "no moving pictures in the file": 1,
        "no file": 1,
    }
    assert audio.missing == {
        "no sound track in the file": 1,
        "a file that cannot be opened as media": 1,
        "an empty file": 1,
        "no file of its own, and no video to make it from": 2,
    }
    assert list(video.examples["no file"]) == ["00000006"]


def test_missing_media_are_a_table(place, capsys):
    command = ["data", "check", "music_avqa", "--annotations", str(place), "--media"]
    assert cli.main([*command, str(place / "media")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "media, by clip" in out
    assert "1 no sound track in the file: 00000001" in out
    assert cli.main([*command, str(place / "none")]) == 2
    assert "no folder of media" in capsys.readouterr().err


def test_your_own_questions(tmp_path, capsys):
    line = {"video": "a.mp4", "question": "What?", "answer": "x", "id": "1"}
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {"id": "2"}) + "\n")
    write_video(tmp_path / "a.mp4")
    found = check(tasks.get("jsonl"), path, tmp_path)
    assert (found.questions, found.clips) == (2, 1)
    assert found.media["video"].missing == {}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line) + "\n")
    assert cli.main(["data", "check", "jsonl", "--annotations", str(path)]) == 2
    assert "line 2: id '1' is already that of line 1" in capsys.readouterr().err


def test_no_annotations(tmp_path):
    with pytest.raises(DataError, match="holds no annotation file of SQA3D"):
        check(tasks.get("sqa3d"), tmp_path)
    with pytest.raises(DataError, match="no such data file"):
        check(tasks.get("nextqa"), tmp_path / "val.csv")


OFFICIAL = {
    "music_avqa": ("val", 4568, 3815, {"Visual Location": 613, "Audio Comparative": 295}),
    "nextqa": (
        "val",
        4996,
        570,
        {"CW": 1924, "TN": 895, "CH": 683, "TC": 663, "DO": 305, "DL": 295, "DC": 177, "TP": 54},
    ),
    "sqa3d": ("test", 3519, 67, {"What": 1144, "Is": 652, "Others": 569}),
    "perception_test": ("all", 1126, 237, {"physics": 425, "memory": 74}),
    "vggsound": ("test", 15446, 15446, {}),
    "scanqa": ("val", 4675, 71, {}),
    "audiocaps": ("val", 2475, 495, {}),
}


@pytest.mark.parametrize("task", sorted(OFFICIAL))
def test_the_official_files(task):
    if not SHARED.is_dir():
        pytest.skip("the benchmarks' own files (../shared/data/annotations) are not here")
    split, questions, clips, types = OFFICIAL[task]
    found = check(tasks.get(task), SHARED / task)
    assert (found.questions, found.clips, found.broken) == (questions, clips, False)
    assert found.unanswered == 0
    assert {name: found.counts[split][name] for name in types} == types
    if task == "vggsound":
        assert (found.answers, found.candidates) == (309, 309)
    if task == "music_avqa":
        assert found.counts["val, real"]["all types"] == 3681
        assert [p.text for p in found.problems] == []

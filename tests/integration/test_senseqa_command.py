"""``crema data make senseqa`` and ``show``, as a user runs them: stopped, killed, and mistaken."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import tree
from PIL import Image

from open_crema import cli
from open_crema.tasks import jsonl

QUESTIONS, GROUPS = (
    200,
    100,
)  # what a machine makes in a few seconds, however long it holds its breath
N = ("--n", str(QUESTIONS), "--seed", "3", "--types", "audio_voice", "point_turned")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The set, made at one go by one process."""
    folder = tmp_path_factory.mktemp("sets") / "whole"
    assert cli.main([*make(folder), "--workers", "1"]) == 0
    return folder


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "open_crema.cli", *make(folder), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def make(folder: Path) -> list[str]:
    return ["data", "make", "senseqa", *N, "--out", str(folder)]


def test_what_it_makes_is_read_by_the_task_and_by_others(whole):
    samples = jsonl.load(whole / "questions.jsonl")
    assert len(samples) == QUESTIONS
    assert all(Path(path).is_file() for sample in samples for path in sample.media.values())
    assert all(len(sample.media) == 7 for sample in samples)
    official = whole / "official"
    avqa = json.loads((official / "music_avqa" / "avqa-train.json").read_text())
    videos = official / "music_avqa" / "videos"
    assert {f"{entry['video_id']}.mp4" for entry in avqa} == {p.name for p in videos.iterdir()}
    with (official / "nextqa" / "train.csv").open() as file:
        assert len(list(csv.DictReader(file))) == QUESTIONS
    assert len(list((official / "sqa3d" / "scans").iterdir())) == GROUPS


def test_killed_stopped_and_continued_it_ends_the_same(whole, tmp_path):
    """SIGKILL leaves no worker behind that goes on writing; Ctrl-C comes to all processes, and one
    line is said. SIGTERM is below."""
    folder, draw = tmp_path / "set", random.Random(1)

    def groups() -> set[str]:
        clips = folder / "clips"
        names = os.listdir(clips) if clips.exists() else []
        return {name for name in names if not name.startswith(".")}

    def life(end: Callable[[int], None]) -> tuple[int, str]:
        """Ends it some time after it has made a group, and then another."""
        before, process = len(groups()), start(folder)
        while process.poll() is None and len(groups()) < before + 2:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        end(process.pid)
        _, err = process.communicate(timeout=60)  # until no process holds its streams any more
        assert len(groups()) < GROUPS
        return process.returncode, err.splitlines()[-1] if err else ""

    again = "run the same command again to continue"
    assert life(lambda pid: os.kill(pid, signal.SIGKILL))[0] == -9
    held = groups()
    said = life(lambda pid: os.killpg(pid, signal.SIGINT))
    assert said == (130, f"crema: interrupted; {again}")
    assert held < groups()
    assert not [name for name in tree(folder) if "/." in f"/{name}"]
    assert cli.main([*make(folder), "--workers", "1"]) == 0
    assert tree(folder) == tree(whole)


def test_sigterm_ends_it_and_says_how_to_go_on(tmp_path):
    folder, out = tmp_path / "set", tmp_path / "err"
    child = os.fork()
    if not child:
        code = 3
        try:
            with out.open("w") as sys.stderr:
                code = cli.main([*make(folder), "--workers", "1"])
        finally:
            os._exit(code)
    while not list(folder.glob("clips/train*")):
        time.sleep(0.005)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    said = out.read_text().splitlines()[-1]
    assert said == "crema: stopped by SIGTERM; run the same command again to continue"
    assert not [name for name in tree(folder) if "/." in f"/{name}"]


def test_a_complete_set_is_extended_and_then_left_alone(crema, whole, tmp_path):
    some = ["--seed", "3", "--types", "point_turned", "audio_voice"]

    def run(n: int):
        out = ("--out", tmp_path / "set", "--workers", "1")
        return crema("data", "make", "senseqa", "--n", n, *some, *out)

    assert run(3).code == 0
    smaller = tree(tmp_path / "set")
    larger = run(QUESTIONS)
    assert larger.code == 0
    assert tree(tmp_path / "set") == tree(whole)
    assert len(smaller) < len(tree(whole))
    said = rf": {QUESTIONS} clips in \d+\.\d s, \d+\.\d a second, \d+\.\d MB\n"
    assert re.fullmatch(re.escape(str(tmp_path / "set")) + said, larger.out)
    again = run(QUESTIONS)
    assert (again.code, again.err) == (0, "")
    assert again.out == f"{tmp_path / 'set'}: {QUESTIONS} clips, complete already; nothing to do\n"
    run(QUESTIONS - 1).refused(
        f"is a set of {QUESTIONS} questions, asked for are only {QUESTIONS - 1}",
        "choose another folder",
    )
    manifest = tmp_path / "set" / "senseqa.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 0}))
    before = tree(tmp_path / "set")
    run(QUESTIONS).refused(
        "holds SenseQA of version 0, asked for is version 1; choose another folder"
    )
    assert tree(tmp_path / "set") == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["make", "senseqa", "--n", "0", "--out", "new"], "0 questions: give at least 1"),
        (["make", "senseqa", "--n", "-4", "--out", "new"], "-4 questions: give at least 1"),
        (["make", "sensqa", "--n", "4", "--out", "new"], "did you mean 'senseqa'? known: senseqa"),
        (["make", "foo", "--n", "4", "--out", "new"], "unknown data set 'foo': known: senseqa"),
        (
            ["make", "senseqa", "--n", "4", "--out", "new", "--types", "audio_vice"],
            "unknown type 'audio_vice' of SenseQA: did you mean 'audio_voice'?",
        ),
        (["make", "senseqa", "--n", "4", "--out", "new", "--split", "tset"], "did you mean 'test'"),
        (["make", "senseqa", "--n", "4", "--out", "new", "--seed", "-1"], "seed -1: give a number"),
        (["make", "senseqa", "--n", "4", "--out", "new", "--frames", "1"], "1 key frames: give 3"),
        (["make", "senseqa", "--n", "4", "--out", "new", "--workers", "-1"], "-1 workers: give 1"),
        (["make", "senseqa", "--n", "4", "--out", "file"], "is a file; choose another name"),
        (["make", "senseqa", "--n", "4", "--out", "file/new"], "cannot be written"),
        (["make", "senseqa", "--n", "4", "--out", "."], "is not empty, and no folder of SenseQA"),
        (["show", "senseqa", "--type", "point_side", "--out", "no/x.png"], "cannot be written"),
        (["show", "senseqa", "--type", "point_sid", "--out", "x.png"], "did you mean 'point_side'"),
        (
            ["show", "senseqa", "--type", "point_side", "--index", "-1", "--out", "x.png"],
            "index -1: give 0 to",
        ),
        (["show", "foo", "--type", "point_side", "--out", "x.png"], "unknown data set 'foo'"),
    ],
)
def test_a_mistake_is_one_line_and_touches_nothing(crema, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    crema("data", *arguments).refused(said)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("arguments", [["--n", "many"], ["--seed", "x"], ["--workers", "two"], []])
def test_what_is_no_number_or_missing_is_refused(crema, arguments):
    ran = crema("data", "make", "senseqa", "--out", "new", *arguments)
    assert ran.code == 2
    assert "crema data make: error: " in ran.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write there")
def test_a_folder_that_cannot_be_written_is_refused(crema, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    crema("data", "make", "senseqa", "--n", "4", "--out", tmp_path / "locked" / "set").refused(
        "cannot be written (Permission denied)"
    )


def test_show(crema, tmp_path):
    path = tmp_path / "x.png"
    ran = crema("data", "show", "senseqa", "--type", "touch_same", "--index", "2", "--out", path)
    assert (ran.code, ran.out) == (0, f"written to {path}\n")
    with Image.open(path) as image:
        assert image.width > 800

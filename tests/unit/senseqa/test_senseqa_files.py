"""A set as files: each thing once, the same however it came about, and never half a thing."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest
from filelock import FileLock

import faults
from faults import no_waiting_for_the_disk  # noqa: F401
from open_crema.errors import ConfigError, CremaError, MediaError
from open_crema.senseqa import group_files
from open_crema.senseqa.clips import GroupClips
from open_crema.senseqa.files import make
from open_crema.senseqa.sets import Spec, groups
from open_crema.senseqa.types import TYPES

SEVERAL = ("video_colour", "audio_voice", "point_turned", "two_first_left")
SPEC = Spec("val", 0, 13, SEVERAL)  # ten of the first round, and a part of the second


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of SPEC, made at one go by this process alone."""
    folder = tmp_path_factory.mktemp("sets") / "made"
    make(SPEC, folder, workers=1)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Groups of two or three small files, for what does not depend on what is in them."""

    def fill(group, folder):
        media = [group_files.media_of(group, variant) for variant in group.variants]
        for name in {one[sense] for one in media for sense in ("video", "point")}:
            (folder / name).write_text(f"{group.name} {name}")

    monkeypatch.setattr(group_files, "_fill", fill)


def tree(folder):
    """Every file with its content, also those whose names begin with a dot."""
    every = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in every}


def lines(folder):
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def test_what_a_folder_holds(made):
    assert sorted(p.name for p in made.iterdir()) == [
        "clips",
        "official",
        "questions.jsonl",
        "senseqa.json",
    ]
    manifest = json.loads((made / "senseqa.json").read_text())
    assert manifest["format"] == "SenseQA folder 1"
    assert {name: manifest[name] for name in asdict(SPEC)} == {
        **asdict(SPEC),
        "types": list(SPEC.types),
    }
    assert (manifest["version"], manifest["complete"]) == (1, True)
    assert manifest["code"].startswith("open-crema ")
    found = lines(made)
    assert [line["id"] for line in found] == [q.id for g in groups(SPEC) for q in g.questions]
    for line in found:
        assert all((made / path).is_file() for path in (line["video"], *line["media"].values()))


def test_a_file_is_there_once_for_all_worlds_that_share_it(made):
    def names(kind):
        (folder,) = (made / "clips").glob(f"val0-{kind}-0")
        return sorted(p.name for p in folder.iterdir())

    shared = ["depth.npz", "files.json", "mask.npz", "normal.npz", "thermal.npz", "touch.npz"]
    scenes = ["scene-0.json", "scene-1.json"]
    videos = ["video-0.mp4", "video-1.mp4"]
    for kind in ("video_colour", "audio_voice"):
        assert names(kind) == sorted([*shared, *scenes, *videos, "flow.npz", "point.ply"])
    assert names("point_turned") == sorted(
        [*shared, *scenes, "video.mp4", "flow.npz", "point-0.ply", "point-1.ply"]
    )
    scenes = [f"scene-{i}{j}.json" for i in (0, 1) for j in (0, 1)]
    assert names("two_first_left") == sorted(
        [*shared, *scenes, *videos, "flow-0.npz", "flow-1.npz", "point.ply"]
    )


def test_a_pair_differs_in_its_sense_alone(made):
    """As the files say it: another video for another sound, with the same pictures."""
    by_pair = {}
    for line in lines(made):
        for sense, pair in line["pairs"].items():
            by_pair.setdefault((sense, pair), []).append(line)
    whole = {pair: both for pair, both in by_pair.items() if len(both) == 2}
    assert len(whole) == 8
    for (sense, _), (one, other) in whole.items():
        assert one["question"] == other["question"]
        assert one["answer"] != other["answer"]
        differing = {s for s in one["media"] if one["media"][s] != other["media"][s]}
        if one["video"] != other["video"]:
            differing.add("audio" if sense == "audio" else "video")
        assert differing == {sense}
        if sense == "audio":
            first, second = (pictures(made / line["video"]) for line in (one, other))
            assert first == second
            assert (made / one["video"]).read_bytes() != (made / other["video"]).read_bytes()


def pictures(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0)]


def test_truth_is_written_beside_the_media(made):
    for group in groups(SPEC):
        folder = made / "clips" / group.name
        for clip in GroupClips(replace(group, first=len(group.variants))):
            number = "".join(map(str, clip.variant))
            scene = json.loads((folder / f"scene-{number}.json").read_text())
            assert scene == json.loads(json.dumps(asdict(clip.scene), default=sorted))
            held = np.load(folder / "mask.npz", allow_pickle=False)
            np.testing.assert_array_equal(held["mask"], clip.mask)
            np.testing.assert_array_equal(held["times"], [[0, 1], [1, 2], [2, 3], [3, 4]])


def test_no_world_of_a_group_has_a_mask_of_its_own():
    for kind in TYPES.values():
        (group,) = groups(Spec("val", 1, 1, (kind.name,)))
        of = GroupClips(group)
        masks = [of.renderer(world).mask() for world in group.variants]
        assert all(np.array_equal(mask, masks[0]) for mask in masks), kind.name


def test_two_processes_make_the_same_bytes(made, tmp_path):
    found = make(SPEC, tmp_path / "set", workers=2)
    assert tree(tmp_path / "set") == tree(made)
    size = sum(len(data) for name, data in tree(made).items() if name.startswith("clips/"))
    assert (found.clips, found.bytes, found.complete_before) == (13, size, False)


def test_killed_at_any_moment_it_ends_the_same(made, tmp_path):
    draw, folder, kills = random.Random(0), tmp_path / "set", 0
    while True:
        child = os.fork()
        if not child:
            code = 1
            try:
                make(SPEC, folder, workers=1)
                code = 0
            finally:
                os._exit(code)
        time.sleep(draw.uniform(0.02, 0.1 + kills / 20))  # soon enough for a quick machine
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills > 2
    make(SPEC, folder, workers=1)
    assert tree(folder) == tree(made)


FEW = Spec("val", 0, 5, ("video_side", "audio_first"))
FEWER = replace(FEW, count=3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("before", [0, 1])
def test_killed_at_any_change_of_a_file_it_ends_the_same(tmp_path, before):
    """A new set, and one of a single question that is made larger."""
    make(FEWER, tmp_path / "whole", workers=1)
    expected = tree(tmp_path / "whole")
    start = tmp_path / "start"
    if before:
        make(replace(FEWER, count=before), start, workers=1)
    point = 0
    while True:
        point += 1
        folder = tmp_path / str(point)
        if before:
            shutil.copytree(start, folder)
        died = faults.killed(lambda folder=folder: make(FEWER, folder, workers=1), at=point)
        make(FEWER, folder, workers=1)
        assert tree(folder) == expected, f"killed at point {point}"
        if not died:
            break
        shutil.rmtree(folder)
    assert point > 25


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path):
    make(FEWER, tmp_path / "whole", workers=1)
    expected, codes, point = tree(tmp_path / "whole"), [], 0
    while not codes or codes[-1]:
        point += 1
        folder = tmp_path / str(point)
        codes.append(
            faults.full_disk(lambda folder=folder: make(FEWER, folder, workers=1), at=point)
        )
        make(FEWER, folder, workers=1)
        assert tree(folder) == expected, f"full at point {point}"
    assert set(codes[:-1]) == {2}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_goes_wrong_with_media_is_said(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(group_files, "write", _fail)
    with pytest.raises(MediaError, match=r"flow.npz: cannot be written .*; then run the same comm"):
        make(FEW, tmp_path / "set", workers=workers)
    assert [p.name for p in (tmp_path / "set").iterdir() if p.name != "clips"] == ["senseqa.json"]


def _fail(group, place):
    raise MediaError(f"{place}/flow.npz: cannot be written (no space left)")


@pytest.mark.usefixtures("small")
def test_what_a_power_loss_has_spoilt_is_made_again(tmp_path):
    folder = tmp_path / "set"
    make(FEW, folder, workers=1)
    expected = tree(folder)
    manifest = json.loads((folder / "senseqa.json").read_text())
    (folder / "senseqa.json").write_text(json.dumps({**manifest, "complete": False}))
    first, second, third, *_ = sorted((folder / "clips").iterdir())
    (first / "point.ply").write_bytes(b"")
    data = (second / "point.ply").read_bytes()
    (second / "point.ply").write_bytes(bytes(len(data)))
    (third / "files.json").write_bytes(b"")
    assert not make(FEW, folder, workers=1).complete_before
    assert tree(folder) == expected


@pytest.mark.usefixtures("small")
def test_a_complete_folder_is_left_alone(tmp_path):
    folder = tmp_path / "set"
    make(FEW, folder, workers=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    made = make(FEW, folder, workers=1)
    assert (made.clips, made.complete_before) == (5, True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    shutil.rmtree(next((folder / "clips").iterdir()))
    assert not make(FEW, folder, workers=1).complete_before
    assert set(folder.rglob("*")) == set(before)


@pytest.mark.usefixtures("small")
def test_a_larger_count_extends_it_and_a_smaller_one_is_refused(tmp_path):
    make(replace(FEW, count=3), tmp_path / "grown", workers=1)
    make(FEW, tmp_path / "grown", workers=1)
    make(FEW, tmp_path / "whole", workers=1)
    expected = tree(tmp_path / "whole")
    assert tree(tmp_path / "grown") == expected
    with pytest.raises(ConfigError, match=r"is a set of 5 questions, asked for are only 4; take"):
        make(replace(FEW, count=4), tmp_path / "grown", workers=1)
    assert tree(tmp_path / "grown") == expected


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "train"}, "holds SenseQA of split val, asked for is split train; choose"),
        ({"seed": 3}, "of seed 0, asked for is seed 3"),
        ({"frames": 5}, "of frames 4, asked for is frames 5"),
        ({"types": ("video_side",)}, "of types video_side, audio_first, asked for is types vid"),
        ({"types": tuple(TYPES)}, "asked for is types all; choose another folder"),
    ],
)
def test_another_set_is_not_mixed_in(tmp_path, change, said):
    make(FEW, tmp_path / "set", workers=1)
    before = tree(tmp_path / "set")
    with pytest.raises(ConfigError, match=said):
        make(replace(FEW, **change), tmp_path / "set", workers=1)
    assert tree(tmp_path / "set") == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "senseqa.json").write_text("{}")
    before = tree(tmp_path)
    for name, said in (
        ("file", "is a file; choose another name"),
        ("mine", r"is not empty, and no folder of SenseQA .*; choose another folder"),
        ("broken", "is damaged; remove the folder"),
        ("file/set", "cannot be written"),
    ):
        with pytest.raises(CremaError, match=said):
            make(FEW, tmp_path / name, workers=1)
    with pytest.raises(ConfigError, match="-1 workers: give 1 or more"):
        make(FEW, tmp_path / "new", workers=-1)
    assert tree(tmp_path) == before


@pytest.mark.usefixtures("small")
def test_one_process_at_a_time(tmp_path):
    (tmp_path / "set").mkdir()
    with (
        FileLock(tmp_path / "set" / ".lock"),
        pytest.raises(CremaError, match="another process is making this set; wait"),
    ):
        make(FEW, tmp_path / "set", workers=1)
    make(FEW, tmp_path / "set", workers=1)
    assert not (tmp_path / "set" / ".lock").exists()


def test_a_worker_that_is_killed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(group_files, "write", _die)
    with pytest.raises(CremaError, match=r"has been killed, .* with fewer workers than 2"):
        make(FEW, tmp_path / "set", workers=2)
    assert not (tmp_path / "set" / ".lock").exists()


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

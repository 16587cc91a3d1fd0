"""TouchQA and ThermalQA, built of small data sets in the layouts of Touch and Go and Thermal-IM."""

import json

import numpy as np
import pytest
from PIL import Image

from media_factory import frame_number, grey_level, write_frames_folder, write_video
from open_crema import cli, tasks
from open_crema.errors import ConfigError, DataError
from open_crema.media.source import DEFAULT_LIMITS, list_images
from open_crema.tasks.build import build
from open_crema.tasks.check import check

REFERENCE = "Concrete: 0\n'Wood': 3 (planks)\nSynthetic Fabric: 8\n"
FPS = 6


@pytest.fixture
def touch_and_go(tmp_path):
    """Two recordings of 24 frames: wood twice with a gap, fabric, and frames that nobody knows."""
    source = tmp_path / "touch_and_go"
    lines = []
    for name in ("20220410_a", "20220410_b"):
        folder = source / "dataset" / name
        folder.mkdir(parents=True)
        write_video(folder / "video.mp4", frames=24, fps=FPS, picture=grey_level)
        write_video(folder / "gelsight.mp4", frames=24, fps=FPS, picture=grey_level)
        known = [(i, 3) for i in range(4)] + [(i, 3) for i in range(12, 18)]
        known += [(i, 8) for i in range(18, 22)] + [(22, -1)]
        lines += [f"{name}/{i:010d}.jpg,{kind}" for i, kind in known]
    (source / "label.txt").write_text("\n".join(lines) + "\n")
    (source / "category_reference.txt").write_text(REFERENCE)
    return source


@pytest.fixture
def thermal_im(tmp_path):
    source = tmp_path / "thermal_im"
    for name in ("0001", "0002"):
        folder = source / name
        folder.mkdir(parents=True)
        write_video(folder / "RGBT_RGB.mp4", frames=28, fps=4, picture=grey_level)
        write_video(folder / "RGBT_T.mp4", frames=28, fps=4, picture=grey_level)
        actions = [
            {"start": 0, "end": 1.0, "action": "sit", "object": "sofa"},
            {"start": 2, "end": 5.5, "action": "lean_on", "object": "wall"},
            {"start": 6, "end": 7.0, "action": "walk", "object": ""},  # nothing is seen after it
        ]
        (folder / "annotation.json").write_text(json.dumps(actions))
    return source


def numbers(folder):
    files = list_images(folder, DEFAULT_LIMITS)
    return [frame_number(np.asarray(Image.open(file).convert("RGB"))) for file in files]


def test_touches_are_runs_of_one_material(touch_and_go, tmp_path):
    built = build("touchqa", touch_and_go, tmp_path / "out")
    assert (built.counts, built.recordings, built.left) == ({"train": 1, "test": 5}, 2, 0)
    assert any("the paper has 714 train and 3212 test" in note for note in built.notes)
    assert any("drawn with seed 0" in note for note in built.notes)
    samples = tasks.load("touchqa", tmp_path / "out", split="test")
    samples += tasks.load("touchqa", tmp_path / "out", split="train")
    answers = {s.id: s.answers[0] for s in samples}
    assert answers == {
        f"20220410_{name}-{start}": what
        for name in "ab"
        for start, what in ((0, "wood"), (12, "wood"), (18, "synthetic fabric"))
    }
    for sense in ("video", "touch"):
        # Three a second of six: every other frame, from the beginning of the touch to its end.
        assert numbers(tmp_path / "out" / sense / "20220410_a-12") == [12, 14, 16]
    times = (tmp_path / "out" / "touch" / "20220410_a-12" / "timestamps.txt").read_text().split()
    assert [float(t) for t in times] == pytest.approx([0, 1 / 3, 2 / 3])
    found = check(tasks.get("touchqa"), tmp_path / "out", tmp_path / "out")
    assert {sense: one.missing for sense, one in found.media.items()} == {"video": {}, "touch": {}}


def test_pictures_that_were_extracted_will_do(touch_and_go, tmp_path):
    for folder in (touch_and_go / "dataset").iterdir():
        for stream in ("video", "gelsight"):
            (folder / f"{stream}.mp4").unlink()
            write_frames_folder(folder / f"{stream}_frame", frames=60, picture=grey_level)
    build("touchqa", touch_and_go, tmp_path / "out")
    assert numbers(tmp_path / "out" / "touch" / "20220410_a-0") == [0, 10]  # of 30 a second
    assert check(tasks.get("touchqa"), tmp_path / "out").questions == 4, "no gap of a second"


def test_the_split_is_the_seeds_and_whole_recordings(touch_and_go, tmp_path):
    def split(seed, name):
        build("touchqa", touch_and_go, tmp_path / name, seed=seed)
        return [e["qid"] for e in json.loads((tmp_path / name / "train.json").read_text())]

    assert split(0, "a") == split(0, "b")
    assert len({tuple(split(seed, f"s{seed}")) for seed in range(6)}) == 2


def test_the_authors_split_comes_first(touch_and_go, tmp_path):
    entry = {"video": "20220410_a", "qid": "1", "start": 6, "end": 11, "answer": "brick"}
    for split in ("train", "test"):
        (touch_and_go / f"{split}.json").write_text(json.dumps([entry]))
    built = build("touchqa", touch_and_go, tmp_path / "out")
    assert built.counts == {"train": 1, "test": 1}
    assert not any("drawn" in note for note in built.notes)
    assert numbers(tmp_path / "out" / "video" / "20220410_a-6") == [6, 8, 10]
    (touch_and_go / "test.json").write_text(json.dumps([entry | {"video": "none"}]))
    with pytest.raises(DataError, match=r"test.json, line 1 \(entry 1\): field 'video'"):
        build("touchqa", touch_and_go, tmp_path / "other")


def test_what_is_seen_after_an_action(thermal_im, tmp_path):
    built = build("thermalqa", thermal_im, tmp_path / "out")
    assert sum(built.counts.values()) == 4
    everything = check(tasks.get("thermalqa"), tmp_path / "out", tmp_path / "out")
    assert everything.answers == 2
    assert not everything.media["thermal"].missing
    # From second 1 to 4, four a second, three of them kept each second.
    assert numbers(tmp_path / "out" / "thermal" / "0001-0") == [4, 5, 6, 8, 9, 10, 12, 13, 14]
    assert numbers(tmp_path / "out" / "video" / "0001-1") == [22, 23, 24, 26]


def test_the_command_goes_on(thermal_im, tmp_path, capsys):
    command = ["data", "build", "thermalqa", "--source", str(thermal_im), "--out"]
    assert cli.main([*command, str(tmp_path / "out")]) == 0
    assert "3 train, 1 test questions of 2 recordings" in capsys.readouterr().out
    kept = tmp_path / "out" / "video" / "0001-0" / "0000.png"
    before = kept.stat().st_mtime_ns
    (tmp_path / "out" / "train.json").unlink()
    assert cli.main([*command, str(tmp_path / "out")]) == 0
    assert kept.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "train.json").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("label.txt", "nonsense\n", "line 1: 'nonsense' is not RECORDING/FRAME.jpg,NUMBER"),
        ("label.txt", "20220410_a/0000000001.jpg,7\n", "line 1: 7 is none of category_reference"),
        ("label.txt", "gone/0000000001.jpg,3\n", "gone is labelled, but"),
        ("label.txt", "20220410_a/0000000001.jpg,-1\n", "holds no question of TouchQA"),
        ("category_reference.txt", "Wood: many\n", "line 1: 'Wood: many' is not NAME: NUMBER"),
    ],
)
def test_broken_sources(touch_and_go, tmp_path, file, content, message):
    (touch_and_go / file).write_text(content)
    with pytest.raises(DataError, match=message):
        build("touchqa", touch_and_go, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_refusals(thermal_im, tmp_path):
    with pytest.raises(ConfigError, match="cannot build 'nextqa': known: touchqa, thermalqa"):
        build("nextqa", thermal_im, tmp_path / "out")
    with pytest.raises(DataError, match="no such folder"):
        build("touchqa", tmp_path / "none", tmp_path / "out")
    (thermal_im / "0002" / "annotation.json").write_text('[{"action": "sit", "end": "soon"}]')
    with pytest.raises(DataError, match=r"line 1 \(entry 1\): field 'end' must be seconds"):
        build("thermalqa", thermal_im, tmp_path / "out")

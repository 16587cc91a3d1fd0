"""``crema data lessons``: a file that training reads, of captions and several questions a clip."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from open_crema import cli, modality, tasks
from open_crema.data.sample import Sample
from open_crema.errors import ConfigError
from open_crema.senseqa import group_files, lessons
from open_crema.senseqa.captions import WORDS, caption
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.files import make
from open_crema.senseqa.more import facts
from open_crema.senseqa.sets import Group, Spec, groups
from open_crema.tasks import jsonl

TYPES = ("video_colour", "audio_voice", "thermal_hottest", "two_first_left", "normal_tilt")
SPEC = Spec("train", 2, 27, TYPES)  # two rounds of 12, and a part of the third


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The set, with empty files for media, that a test may add a file to."""

    def fill(group: Group, folder: Path) -> None:
        media = [group_files.media_of(group, variant) for variant in group.variants]
        for name in {path for one in media for path in one.values()}:
            (folder / name).write_text(name)

    folder = tmp_path_factory.mktemp("sets") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_files, "_fill", fill)
        patch.setattr(os, "sync", lambda: None)
        make(SPEC, folder, workers=1)
    return folder


def clips_of(samples: list[Sample]) -> set[str]:
    return {sample.id.partition("-more")[0] for sample in samples}


def own_questions() -> dict[str, tuple[Group, tuple[int, ...], object]]:
    """id -> group, variant and question of the set"""
    return {
        question.id: (group, variant, question)
        for group in groups(SPEC)
        for variant, question in zip(group.variants, group.questions, strict=False)
    }


SENSES = [("video",), ("video", "audio"), ("thermal", "video"), ("audio",), ("point", "touch")]


@pytest.mark.parametrize("senses", SENSES, ids="+".join)
def test_the_file_is_read_by_the_task_and_its_media_are_there(folder, senses):
    path, asked, clips = lessons.write(folder, senses, 5)
    samples = tasks.load("jsonl", path)
    assert len(samples) == asked
    assert clips <= SPEC.count
    for sample in samples:
        assert sample.media
        assert all(Path(file).is_file() for file in sample.media.values())
        assert set(sample.media) == set(senses) - ({"audio"} if "video" in senses else set())
        assert set(sample.needs) <= set(senses)
        assert not sample.pairs
    if senses == ("audio",):
        assert {Path(file).suffix for s in samples for file in s.media.values()} == {".mp4"}


def test_its_name_has_the_senses_in_their_order(folder):
    path, _, _ = lessons.write(folder, ["thermal", "video", "thermal"], 1)
    assert path == folder / "lessons-video+thermal.jsonl"


def test_the_first_question_about_a_clip_has_its_captions(folder):
    path, _, clips = lessons.write(folder, ("video", "thermal"), 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [fields for fields in lines if "captions" in fields]
    assert len(told) == clips > SPEC.count / 2
    own = own_questions()
    seen = set()
    for fields in lines:
        clip = fields["id"].partition("-more")[0]
        assert ("captions" in fields) == (clip not in seen), fields["id"]
        if clip not in seen:
            group, variant, _ = own[clip]
            scene = group.asked.worlds[variant]
            assert fields["captions"] == {s: caption(scene, s) for s in ("video", "thermal")}
            assert all(len(words) == WORDS for words in fields["captions"]["thermal"])
        seen.add(clip)
    assert len(seen) == clips
    assert seen <= set(own)


def test_a_clip_has_its_own_question_where_the_senses_answer_it_and_others(folder):
    path, _, _ = lessons.write(folder, ("video", "thermal"), 3)
    samples = jsonl.load(path)
    ids, asked = {sample.id for sample in samples}, 0
    for name, (group, variant, question) in own_questions().items():
        assert (name in ids) == (set(question.needs) <= {"video", "thermal"})
        more = [sample for sample in samples if sample.id.startswith(f"{name}-more")]
        assert len(more) <= 3
        asked += len(more)
        true = {(f.text, f.answer) for i in range(30)
                for f in facts(group.asked.worlds[variant], Draw(name, i))}  # fmt: skip
        texts = {text for text, _ in true}
        for sample in more:
            text = sample.question.removeprefix("Question: ").partition("?")[0] + "?"
            assert text != question.text
            said = [t for t in texts if f" {t} " in f" {sample.question} "]
            if said:  # other orders of naming are drawn elsewhere
                assert (max(said, key=len), sample.answers[0]) in true, sample
    assert asked > 2 * SPEC.count


def test_no_question_is_asked_twice_of_a_clip(folder):
    path, asked, clips = lessons.write(folder, ("video", "audio", "thermal"), 40)
    texts = set()
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        texts.add((fields["id"].partition("-more")[0], fields["question"]))
    assert len(texts) == asked
    assert asked > 5 * clips


def test_own_leaves_clips_out_whose_question_is_not_answered(folder):
    _, _, clips = lessons.write(folder, ("video", "audio"), 2)
    assert clips == SPEC.count
    path, asked, clips = lessons.write(folder, ("video", "audio"), 2, own=True)
    answered = {name for name, (_, _, question) in own_questions().items()
                if set(question.needs) <= {"video", "audio"}}  # fmt: skip
    assert clips == len(answered) < SPEC.count
    samples = jsonl.load(path)
    assert len(samples) == asked
    assert clips_of(samples) == answered


def test_it_is_the_same_file_each_time(folder):
    path, _, _ = lessons.write(folder, ("video", "audio"), 6)
    first = path.read_bytes()
    lessons.write(folder, ("audio", "video"), 6)
    assert path.read_bytes() == first


def test_a_file_that_was_not_finished_is_none(folder, monkeypatch):
    path, _, _ = lessons.write(folder, ("video", "touch"), 6)
    whole, real, left = path.read_bytes(), lessons.lessons, iter(range(5))

    def dies(*arguments):
        next(left)
        return real(*arguments)

    monkeypatch.setattr(lessons, "lessons", dies)
    with pytest.raises(StopIteration):
        lessons.write(folder, ("video", "touch"), 2)
    assert path.read_bytes() == whole
    monkeypatch.undo()
    make(SPEC, folder, workers=1)
    lessons.write(folder, ("video", "touch"), 6)
    assert path.read_bytes() == whole
    assert not list(folder.glob(".lessons*"))


def test_answers_that_are_far_too_common_are_thinned_out():
    every, kept = Counter(), Counter()
    for group in groups(Spec("train", 1, 120)):
        scene, draw = group.asked.worlds[group.variants[0]], group.draw.sub("x")
        every.update((fact.type, fact.answer) for fact in facts(scene, draw))
        chosen = lessons.chosen(scene, group.draw.sub("x"), {"video"}, 1000)
        kept.update((fact.type, fact.answer) for fact in chosen)
    common = "video_count", "one"
    assert every[common] > 100
    assert 0.08 < kept[common] / every[common] < 0.25
    assert kept["video_shape", "ball"] == every["video_shape", "ball"] > 10


@pytest.fixture
def crema(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["data", "lessons", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_command(folder, crema):
    code, out, err = crema(folder, "--senses", "video", "--senses", "audio", "--more", "2", "--own")
    path = folder / "lessons-video+audio.jsonl"
    samples = jsonl.load(path)
    clips = len(clips_of(samples))
    assert (code, err) == (0, "")
    assert out == f"{path}: {len(samples)} questions about {clips} clips\n"


def test_without_own_it_is_of_all_clips(folder, crema):
    code, out, _ = crema(folder, "--senses", "thermal")
    assert code == 0
    assert out.startswith(f"{folder}/lessons-thermal.jsonl: ")
    assert out.endswith(" clips\n")


@pytest.mark.parametrize(
    ("senses", "more", "message"),
    [
        (("vidio",), "3", "unknown sense 'vidio': did you mean 'video'?"),
        (("video", "termal"), "3", "did you mean 'thermal'?"),
        (("video",), "0", "0 more questions a clip: give at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(folder, crema, senses, more, message):
    before = sorted(folder.iterdir())
    code, out, err = crema(folder, "--senses", *senses, "--more", more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert sorted(folder.iterdir()) == before


def test_a_sense_of_another_package_is_none_of_the_set_s(folder, monkeypatch):
    imu = replace(modality.get("touch"), name="imu")
    monkeypatch.setitem(modality._registry, "imu", imu)
    with pytest.raises(ConfigError, match="SenseQA has no 'imu'; its senses are video, audio"):
        lessons.write(folder, ["video", "imu"], 3)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_a_set(tmp_path, crema, there):
    place = tmp_path / "set"
    if there:
        place.mkdir()
    code, _, err = crema(place, "--senses", "video")
    assert code == 2
    assert f"{place}: is no folder of SenseQA (senseqa.json is missing)" in err


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "senseqa.json").read_text())


@pytest.mark.parametrize("missing", ["complete", "clips"])
def test_a_set_that_is_not_whole(folder, tmp_path, crema, missing):
    about = manifest_of(folder)
    if missing == "complete":
        about["complete"] = False
    (tmp_path / "senseqa.json").write_text(json.dumps(about))
    (tmp_path / "questions.jsonl").write_text("")
    code, _, err = crema(tmp_path, "--senses", "video")
    assert code == 2
    assert f"{tmp_path}: its making was cut short; run `crema data make` on it again" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": None}, "is damaged"),
        ({"seed": "x"}, "is damaged"),
        ({"frames": ...}, "is damaged"),
        ({"version": 0}, "holds SenseQA of version 0, asked for is version 1"),
        ({"types": ["video_color"]}, "unknown type 'video_color'"),
    ],
)
def test_a_manifest_of_another_program(folder, tmp_path, change, message):
    about = manifest_of(folder) | change
    about = {name: value for name, value in about.items() if value is not ...}
    (tmp_path / "senseqa.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=message):
        lessons.write(tmp_path, ["video"], 3)

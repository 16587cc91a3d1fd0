"""Every benchmark's official files: what is read of them, and what is refused, with its place."""

import json
import re

import pytest

import benchmark_files as made
from open_crema import tasks
from open_crema.errors import ConfigError, DataError

ALL = sorted(made.ENTRIES)
LISTS = ["music_avqa", "touchqa", "scanqa"]  # files of one JSON list


def load(task, folder, entries=None, **options):
    path = made.write(task, folder, made.ENTRIES[task] if entries is None else entries)
    return tasks.load(task, path, media_root=folder, options=options)


def refused(task, folder, entries, *parts):
    path = made.write(task, folder, entries)
    with pytest.raises(DataError) as caught:
        tasks.load(task, path, media_root=folder)
    for part in (str(folder), *parts):
        assert part in str(caught.value), f"no {part!r} in: {caught.value}"


@pytest.mark.parametrize("task", ALL)
def test_entries_become_samples(task, tmp_path):
    samples = load(task, tmp_path)
    assert len(samples) == 2
    assert len({s.id for s in samples}) == 2
    for sample in samples:
        assert sample.answers
        assert sample.question
        assert sample.clip
        assert sample.split == "test"
        assert sample.target
        assert tasks.get(task).senses[0] in sample.media
        assert not tasks.get(task).types or sample.type in tasks.get(task).types


@pytest.mark.parametrize("task", ALL)
def test_a_folder_gives_the_files_of_a_split(task, tmp_path):
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        made.write(task, tmp_path, made.ENTRIES[task][:count], split)
    for split, count in (("train", 2), ("validation", 1), ("test", 1)):
        if (task, split) == ("vggsound", "validation"):
            continue  # it has none
        assert len(tasks.load(task, tmp_path, split=split)) == count
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no annotation file"):
        tasks.load(task, tmp_path / "empty", split="test")


@pytest.mark.parametrize("task", ALL)
def test_a_byte_order_mark_changes_nothing(task, tmp_path):
    plain = load(task, tmp_path)
    path = made.write(task, tmp_path, made.ENTRIES[task])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert tasks.load(task, path, media_root=tmp_path) == plain


@pytest.mark.parametrize("task", ALL)
def test_a_file_cut_in_half_names_its_line(task, tmp_path):
    path = made.write(task, tmp_path, made.ENTRIES[task])
    text = path.read_text()
    if path.suffix == ".csv":
        path.write_text(text.rstrip().rpartition(",")[0] + "\n")
        part = r"line \d+: \d+ cells?, but there are \d+ columns"
    else:
        path.write_text(text[: len(text) // 2])
        part = r"line \d+: not valid JSON"
    with pytest.raises(DataError, match=re.escape(str(path)) + ", " + part):
        tasks.load(task, path, media_root=tmp_path)


@pytest.mark.parametrize("task", ALL)
def test_an_id_given_twice_names_both_places(task, tmp_path):
    entry = made.ENTRIES[task][0]
    said = "is there twice" if task == "sqa3d" else "is already that of"
    refused(task, tmp_path, [entry, dict(entry)], said, "line")


@pytest.mark.parametrize("task", ALL)
def test_a_name_that_leaves_the_media_folder_is_refused(task, tmp_path):
    entry = dict(made.ENTRIES[task][0])
    key = next(k for k in ("video_id", "video", "scene_id", "file", "youtube_id") if k in entry)
    refused(task, tmp_path, [entry | {key: "../../etc/passwd"}], "which is no name of a file")


@pytest.mark.parametrize("task", [task for task in ALL if task != "vggsound"])
def test_a_missing_key_is_named(task, tmp_path):
    needed = {
        "music_avqa": "anser",
        "nextqa": "a3",
        "sqa3d": "question",
        "perception_test": "options",
        "touchqa": "answer",
        "thermalqa": "qid",
        "audiocaps": "caption",
        "scanqa": "question",
    }[task]
    entry = {k: v for k, v in made.ENTRIES[task][0].items() if k != needed}
    refused(task, tmp_path, [entry], needed, "line 1" if task in ("nextqa", "audiocaps") else "")


@pytest.mark.parametrize("task", LISTS)
def test_a_wrong_type_is_named_with_its_line_and_entry(task, tmp_path):
    first, second = (dict(e) for e in made.ENTRIES[task])
    key = {"music_avqa": "question_content", "touchqa": "answer", "scanqa": "answers"}[task]
    second[key] = 5
    path = made.write(task, tmp_path, [first, second])
    line = next(
        i for i, text in enumerate(path.read_text().splitlines(), 1) if i > 2 and text == "  {"
    )
    with pytest.raises(DataError, match=rf"line {line} \(entry 2\): field '{key}' must be"):
        tasks.load(task, path, media_root=tmp_path)


def test_what_is_no_list_of_objects_is_refused(tmp_path):
    for content, message in (({}, "must be a list of objects"), ([1], "expected an object")):
        path = tmp_path / "avqa-test.json"
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            tasks.load("music_avqa", path)
    path.write_text('[{"video_id": 1, "video_id": 2}]')
    with pytest.raises(DataError, match="field 'video_id' is given twice"):
        tasks.load("music_avqa", path)
    path.write_bytes("[]".encode("utf-16"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        tasks.load("music_avqa", path)
    path.write_text("[]")
    with pytest.raises(DataError, match="holds no questions"):
        tasks.load("music_avqa", path)


def test_names_and_options(tmp_path):
    assert tasks.get("MUSIC-AVQA").name == "music_avqa"
    assert tasks.get("NExT_QA").name == "nextqa"
    assert tasks.get("3D-LLM").name == "scanqa"
    with pytest.raises(ConfigError, match="did you mean 'sqa3d'"):
        tasks.get("sq3d")
    with pytest.raises(ConfigError, match="no option 'splt': did you mean 'split'"):
        tasks.get("music_avqa", {"splt": "real"})
    with pytest.raises(ConfigError, match="may be all, real, synthetic"):
        tasks.get("music_avqa", {"split": "true"})


# MUSIC-AVQA


def test_slots_are_filled_in_order(tmp_path):
    first, second = load("music_avqa", tmp_path)
    assert first.question == (
        "Question: Is the electric bass in the video always playing? Based on the frames and audio "
        "information, answer the question using a single word or phrase."
    )
    assert "Is the guzheng louder than the piano?" in second.question
    assert (second.type, second.needs, second.answers) == ("Audio Comparative", ("audio",), ("no",))
    _, second = load("music_avqa", tmp_path, slots="first-in-all")
    assert "Is the guzheng louder than the guzheng?" in second.question


def test_real_videos_have_numbers(tmp_path):
    assert [s.clip for s in load("music_avqa", tmp_path, split="real")] == ["00000028"]


def test_files_of_a_part_are_left_out_beside_the_whole(tmp_path):
    whole = made.write("music_avqa", tmp_path, made.ENTRIES["music_avqa"], "train")
    part = whole.with_name("avqa-train_real.json")
    part.write_text(json.dumps(made.ENTRIES["music_avqa"][:1]))
    assert len(tasks.load("music_avqa", tmp_path, split="train")) == 2
    whole.unlink()
    assert len(tasks.load("music_avqa", tmp_path, split="train")) == 1


def test_an_id_in_two_files_of_a_split(tmp_path):
    made.write("scanqa", tmp_path, made.ENTRIES["scanqa"], "test")
    made.write("scanqa", tmp_path, made.ENTRIES["scanqa"][:1], "test_w_obj")
    with pytest.raises(
        DataError, match=r"test_w_obj.json, line 2 .* is already that of .*test.json"
    ):
        tasks.load("scanqa", tmp_path, split="test")


def test_other_spellings_of_lists(tmp_path):
    entry = made.music(type="['Visual', 'Location']", templ_values="['drum']")
    (sample,) = load("music_avqa", tmp_path, [entry])
    assert sample.type == "Visual Location"
    assert "the drum in" in sample.question
    (sample,) = load("music_avqa", tmp_path, [made.music(type=["Visual", "Counting"])])
    assert sample.type == "Visual Counting"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"type": '["Audio"'}, "field 'type' must be a string that holds a list"),
        ({"type": '["Audio", "Location"]'}, "known: Audio: Counting, Comparative"),
        ({"templ_values": "[]"}, "0 values for the 1 slots"),
        ({"question_content": ""}, "field 'question_content' is empty"),
        ({"question_id": True}, "field 'question_id' must be a string"),
    ],
)
def test_broken_fields_of_music(tmp_path, other, message):
    refused("music_avqa", tmp_path, [made.music(**other)], message)


def test_spaces_for_underscores_and_no_answer(tmp_path):
    (sample,) = load("music_avqa", tmp_path, [made.music(anser="acoustic_guitar")])
    assert sample.answers == ("acoustic guitar",)
    (sample,) = load("music_avqa", tmp_path, [made.music(anser=" ")])
    assert sample.answers == ()


# NExT-QA


def test_options_are_letters(tmp_path):
    first, second = load("nextqa", tmp_path)
    assert first.options == ("roll", "tap", "strum", "hit", "pat")
    assert first.answers == ("strum",)
    assert first.target == "Option C"
    assert first.question == (
        "Question: how do they play Option A: roll Option B: tap Option C: strum Option D: hit "
        "Option E: pat Considering the information presented in the frame, select the correct "
        "answer from the options."
    )
    assert (first.id, first.type, second.type) == ("4010069381_6", "CH", "CW")
    assert load("nextqa", tmp_path, target="text")[0].target == "strum"


def test_sevilas_json(tmp_path):
    entry = {k: v for k, v in made.next_qa().items() if k.startswith("a") or k == "question"}
    path = tmp_path / "val.json"
    path.write_text(json.dumps([{**entry, "video": "401", "qid": "TN_401_6", "num_option": 5}]))
    (sample,) = tasks.load("nextqa", path)
    assert (sample.type, sample.answers, sample.split) == ("TN", ("strum",), "val")
    path.write_text(json.dumps([{**entry, "video": "401", "qid": "QQ_401_6"}]))
    with pytest.raises(DataError, match=r"line 1 \(entry 1\): field 'qid': the type 'QQ'"):
        tasks.load("nextqa", path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"answer": "strum"}, "line 2: field 'answer' must be a whole number from 0 on"),
        ({"answer": 5}, "line 2: field 'answer' is 5; it must be one of 0 to 4"),
        ({"type": "XX"}, "line 2: field 'type': the type 'XX' is none of"),
        # A column that was shifted: the question stands where the height was.
        ({"height": "how do they play"}, "line 2: field 'height' must be a whole number"),
        ({"a1": ""}, "line 2: field 'a1' is empty"),
    ],
)
def test_broken_rows(tmp_path, other, message):
    refused("nextqa", tmp_path, [made.next_qa(**other)], message)


def test_videos_are_found_by_the_map(tmp_path):
    (tmp_path / "video" / "1164").mkdir(parents=True)
    (tmp_path / "video" / "1164" / "4010069381.mp4").write_bytes(b"x")
    first, second = load("nextqa", tmp_path)
    assert first.media["video"].endswith("video/1164/4010069381.mp4")
    assert second.media["video"].endswith("video/1164/2435100235.mp4"), "looked for and missed"


# SQA3D, ScanQA, 3D-LLM


def test_questions_are_joined_with_their_answers(tmp_path):
    first, second = load("sqa3d", tmp_path)
    assert first.question == (
        "I am standing by the ottoman. Question: What instrument in front of me is ebony and "
        "ivory? Based on the frames and 3D Model information, answer the question using a single "
        "word or phrase."
    )
    assert (first.answers, first.type, second.type) == (("piano",), "What", "Can")
    assert load("sqa3d", tmp_path, wording="released")[0].question == (
        "i am standing by the ottoman. Question: what instrument in front of me is ebony and "
        "ivory? Based on the frames and 3D Model information, answer the question using a single "
        "word or phase."
    )


@pytest.mark.parametrize(
    ("question", "first", "released"),
    [
        ("Is what I see a chair?", "Is", "What"),
        ("Where is the door?", "Others", "Is"),
        ("Am I tall?", "Others", "Others"),
        ("Which show is on?", "Which", "How"),
    ],
)
def test_the_six_classes(tmp_path, question, first, released):
    entry = made.situated(question=question)
    assert load("sqa3d", tmp_path, [entry])[0].type == first
    assert load("sqa3d", tmp_path, [entry], types="released")[0].type == released


def test_annotations_that_do_not_fit(tmp_path):
    path = made.write("sqa3d", tmp_path, made.ENTRIES["sqa3d"])
    beside = tmp_path / path.name.replace("questions", "sqa_annotations")
    answers = json.loads(beside.read_text())

    def broken(message, change):
        changed = json.loads(json.dumps(answers))
        change(changed["annotations"])
        beside.write_text(json.dumps(changed))
        with pytest.raises(DataError, match=message):
            tasks.load("sqa3d", path)

    broken("question_id 220602000002 is not in", lambda rows: rows.pop(0))
    broken("scene_id 'scene0050_00' is 'x' in", lambda rows: rows[0].update(scene_id="x"))
    broken("is there twice", lambda rows: rows.append(rows[0]))
    broken("field 'answers' is missing", lambda rows: rows[0].pop("answers"))
    with pytest.raises(DataError, match="holds the answers; name the file of questions"):
        tasks.load("sqa3d", beside)
    beside.unlink()
    with pytest.raises(DataError, match=r"sqa_annotations_test_scannetv2.json, must lie beside"):
        tasks.load("sqa3d", path)


def test_sqa3d_in_the_layout_of_scanqa(tmp_path):
    path = tmp_path / "SQA_test.json"
    entry = {"scene_id": "scene0050_00", "situation": "I sit", "question": "Is it red?"}
    path.write_text(json.dumps([{**entry, "answers": ["no"]}, {**entry, "answers": ["yes"]}]))
    first, second = tasks.load("sqa3d", path)
    assert first.question.startswith("I sit. Question: Is it red?")
    assert (first.id, second.id) == ("scene0050_00-line-1", "scene0050_00-line-2")


def test_several_answers_are_accepted_each_once(tmp_path):
    first, _ = load("scanqa", tmp_path)
    assert first.answers == ("dark brown", "brown")
    assert first.question.endswith("Based on 3D Model information, answer the question.")
    (sample,) = load("scanqa", tmp_path, [made.scanned(answers=["a", "a", ""])])
    assert sample.answers == ("a",)
    entry = {k: v for k, v in made.scanned().items() if k != "answers"}  # as a test file has it
    assert load("scanqa", tmp_path, [entry])[0].answers == ()


# PerceptionTest


def test_three_options(tmp_path):
    first, second = load("perception_test", tmp_path)
    assert (first.answers, first.target, second.type) == (("yes",), "Option B", "memory")
    assert first.clip == second.clip == "video_5945"
    with pytest.raises(DataError, match=r"\(mc_question, entry 1\): field 'options' has 2"):
        load("perception_test", tmp_path, [made.perceived(options=["yes", "no"])])
    with pytest.raises(DataError, match="field 'area' is 'maths'"):
        load("perception_test", tmp_path, [made.perceived(area="maths")])
    with pytest.raises(DataError, match="field 'answer_id' is 3; it must be one of 0 to 2"):
        load("perception_test", tmp_path, [made.perceived(answer_id=3)])


def test_the_explorers_layout_and_videos_without_questions(tmp_path):
    path = tmp_path / "explorer.json"
    own = {k: v for k, v in made.perceived().items() if k != "video"}
    path.write_text(json.dumps({"video_1": [own], "video_2": [], "video_3": {"other": []}}))
    task = tasks.get("perception_test")
    (sample,) = task.load(path)
    assert sample.clip == "video_1"
    assert task.named == {"video_1", "video_2", "video_3"}


# VGGSound, AudioCaps


def test_classes_are_the_candidates(tmp_path):
    first, second = load("vggsound", tmp_path)
    assert first.clip == "glLQrEijrKg_000300"
    assert first.candidates == second.candidates == ("dog barking", "parrot talking")
    assert "the frames and audio information" in first.question


def test_an_answer_out_of_vocabulary(tmp_path):
    path = made.write("vggsound", tmp_path, made.ENTRIES["vggsound"])
    path.write_text("glLQrEijrKg_000300.mp4,dog barking\nLDoXsip0BEQ_000177.mp4,cat barking\n")
    with pytest.raises(DataError, match=r"line 2: class 'cat barking' is none of the 2 in stat"):
        tasks.load("vggsound", path)


def test_the_list_of_all_videos(tmp_path):
    path = tmp_path / "vggsound.csv"
    path.write_text('---g-f_I2yQ,1,"people marching",test\n--0PQM4-hqg,30,waterfall,train\n')
    (sample,) = tasks.load("vggsound", tmp_path, split="test")
    assert (sample.clip, sample.split) == ("---g-f_I2yQ_000001", "test")
    path.write_text("---g-f_I2yQ,one,people marching,test\n")
    with pytest.raises(DataError, match="line 1: field 'start' must be a whole number"):
        tasks.load("vggsound", path)


def test_captions_and_questions(tmp_path):
    first, _ = load("audiocaps", tmp_path)
    assert (first.id, first.clip) == ("97151", "vfY_TJq7n_U_000130")
    assert first.answers == ("Ducks quack",)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "vfY_TJq7n_U_130.wav").write_bytes(b"x")
    assert load("audiocaps", tmp_path)[0].media["audio"].endswith("vfY_TJq7n_U_130.wav")
    path = tmp_path / "qa_train.csv"
    path.write_text("youtube_id,start_time,question,answer\nabc,30,What quacks?,a duck\n")
    (sample,) = tasks.load("audiocaps", path)
    assert sample.question.startswith("Question: What quacks? Based on the audio information")
    assert (sample.answers, sample.split) == (("a duck",), "train")
    path.write_text("youtube_id,text\nabc,x\n")
    with pytest.raises(DataError, match="no column 'caption' and no column 'question'"):
        tasks.load("audiocaps", path)


# TouchQA, ThermalQA


def test_the_question_is_the_papers(tmp_path):
    touch, _ = load("touchqa", tmp_path)
    assert touch.question == (
        "Question: What material is the person touching? Based on the frames and touch map "
        "information, answer the question using a single word or phrase."
    )
    assert touch.needs == ("touch",)
    thermal, _ = load("thermalqa", tmp_path)
    assert "What action might have occurred before this video?" in thermal.question
    with pytest.raises(DataError, match="field 'start' must be a whole number"):
        load("touchqa", tmp_path, [made.sensed(start=-1)])

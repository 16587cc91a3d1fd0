"""The official layouts: the fields, kinds and conventions of the real files, where these are."""

import ast
import csv
import itertools
import json
import math
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_crema.senseqa import layouts
from open_crema.senseqa.group_files import media_of
from open_crema.senseqa.layouts import Layouts
from open_crema.senseqa.sets import SPLITS, Group, Spec, groups
from open_crema.senseqa.types import TYPES
from open_crema.senseqa.types.video import NUMBERS

REAL = Path(__file__).parents[4] / "shared" / "data" / "annotations"
ROUNDS = [group for group in groups(Spec("val", 0, 180)) if group.turn < 2]
real = pytest.mark.skipif(not REAL.exists(), reason=f"the official files are not at {REAL}")


def lay_out(folder, chosen, split="val"):
    """Layouts of stand-ins for media, each of which says what it is."""
    made = Layouts(split, folder / "official")
    for group in chosen:
        for variant in group.variants[: group.first]:
            media = {}
            for sense, name in media_of(group, variant).items():
                path = media[sense] = folder / group.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{group.name}/{name}")
            made.add(group, variant, media)
    made.write()
    return folder / "official"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("layouts"), ROUNDS)


def asked(*names):
    return {
        q.id: (group, variant, q)
        for group in ROUNDS
        if group.kind.name in names
        for variant, q in zip(group.variants, group.questions, strict=True)
    }


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def fields(value):
    """Names and types, without what is in them; a whole number will do where any will."""
    if isinstance(value, dict):
        return {name: fields(item) for name, item in value.items()}
    if isinstance(value, list):
        return "list" if not value or isinstance(value[0], str) else [fields(value[0])]
    return "number" if isinstance(value, (int, float)) else type(value).__name__


SOUNDING = [name for name, kind in TYPES.items() if "audio" in kind.needs]
SITUATED = [name for name, kind in TYPES.items() if "point" in kind.needs]
WIDE = [name for name, kind in TYPES.items() if kind.choices >= 5]


def test_music_avqa_as_its_loader_reads_it(official):
    table = load(official / "music_avqa" / "avqa-val.json")
    expected = asked(*SOUNDING)
    assert len(table) == len(expected) > 20
    for entry, (group, variant, question) in zip(table, expected.values(), strict=True):
        # As the official loader has it: a word with a "<" is the next value, the last character
        # is the question mark.
        words, values = (
            entry["question_content"].rstrip().split(" "),
            iter(ast.literal_eval(entry["templ_values"])),
        )
        words[-1] = words[-1][:-1]
        read = " ".join(next(values) if "<" in word else word for word in words)
        assert re.sub(r"[,.]", "", question.text[:-1]) == re.sub(r"[,.]", "", read)
        assert next(values, None) is None
        assert entry["anser"] == question.answer
        video = official / "music_avqa" / "videos" / f"{entry['video_id']}.mp4"
        assert video.read_text() == f"{group.name}/{media_of(group, variant)['video']}"
    assert len({entry["question_id"] for entry in table}) == len(table)


@real
def test_music_avqa_has_the_fields_and_kinds_of_the_real_file(official):
    ours, theirs = (load(folder / "music_avqa" / "avqa-val.json") for folder in (official, REAL))
    assert {json.dumps(list(entry)) for entry in ours} == {json.dumps(list(theirs[0]))}
    assert all(fields(entry) == fields(theirs[0]) for entry in (*ours, *theirs))
    assert {entry["type"] for entry in ours} <= {entry["type"] for entry in theirs}
    assert all(re.fullmatch(r"\d{8}", entry["video_id"]) for entry in (*ours, theirs[0]))
    assert {*NUMBERS, "yes", "no"} <= {entry["anser"] for entry in theirs}
    marks = [
        {mark for entry in table for mark in re.findall("<.*?>", entry["question_content"])}
        for table in (ours, theirs)
    ]
    assert marks[0] == {"<Object>"} < marks[1]


def sqa(folder, split):
    name = f"v1_balanced_{{}}_{split}_scannetv2.json"
    asked, said = (
        load(folder / "sqa3d" / name.format(part)) for part in ("questions", "sqa_annotations")
    )
    return asked, said


def test_sqa3d_holds_the_situated_questions(official):
    table, answers = sqa(official, "val")
    expected = asked(*SITUATED)
    rows = zip(table["questions"], answers["annotations"], expected.values(), strict=True)
    seen = set()
    for entry, answer, (group, variant, question) in rows:
        assert entry["question_id"] == answer["question_id"]
        assert f"{entry['situation']} {entry['question']}" == question.text
        assert [a["answer"] for a in answer["answers"]] == [question.answer]
        scene = entry["scene_id"]
        assert scene == answer["scene_id"]
        assert re.fullmatch(r"scene\d{4}_\d{2}", scene)
        media = media_of(group, variant)
        scan = official / "sqa3d" / "scans" / scene / f"{scene}_vh_clean_2.ply"
        assert scan.read_text() == f"{group.name}/{media['point']}"
        video = official / "sqa3d" / "video" / f"{scene}.mp4"
        assert video.read_text() == f"{group.name}/{media['video']}"
        seen.add(scene)
    assert len(seen) == len(expected)


def test_sqa3d_says_where_one_stands_and_looks(official):
    """Turned from -x, measured from the middle of the scan: what is asked about lies there."""
    _, answers = sqa(official, "val")
    rows = zip(answers["annotations"], asked(*SITUATED).values(), strict=True)
    faced = set()
    for answer, (group, variant, _) in rows:
        z, w = answer["rotation"]["_z"], answer["rotation"]["_w"]
        assert z * z + w * w == pytest.approx(1)
        cos, sin = w * w - z * z, 2 * z * w
        ahead = (-cos, -sin)
        scene = group.asked.worlds[variant]
        room = scene.room
        middle = (room.front - room.back) / 2
        stand = (answer["position"]["x"], answer["position"]["y"] + middle)
        if group.kind.name == "point_turned":
            (kind,) = re.findall(r"face the (\w+)\.", group.asked.situation)
            (one,) = [f for f in scene.fixtures if f.kind == kind]
            assert stand == pytest.approx((0, middle))
            x, y, _ = one.solids[0].centre
            away = (x - stand[0], y - stand[1])
            along = away[0] * ahead[0] + away[1] * ahead[1]
            assert along > abs(away[0] * ahead[1] - away[1] * ahead[0]) * 0.8
            faced.add(one.place)
        else:
            assert stand == pytest.approx((0, 0))
            assert ahead == pytest.approx((0, 1))
    assert faced


@pytest.mark.parametrize(
    ("place", "ahead"),
    [("front", (0, 1)), ("left", (-1, 0)), ("behind", (0, -1)), ("right", (1, 0))],
)
def test_every_side_of_the_room_can_be_faced(place, ahead):
    z, w = layouts._FACING[place]
    assert (z * z - w * w, -2 * z * w) == pytest.approx(ahead)


@real
def test_sqa3d_has_the_fields_of_the_real_files(official):
    ours, theirs = sqa(official, "val"), sqa(REAL, "test")
    for own, other, table in zip(ours, theirs, ("questions", "annotations"), strict=True):
        assert list(own) == list(other)
        assert own["info"] != other["info"]
        assert own["license"].keys() == other["license"].keys()
        for name in ("data_type", "data_subtype", "task_type"):
            assert own.get(name) == other.get(name)
        described = {json.dumps(fields(entry)) for entry in own[table]}
        assert described <= {json.dumps(fields(entry)) for entry in other[table]}
    for entry in (*ours[1]["annotations"], *theirs[1]["annotations"]):
        assert (entry["question_type"], entry["answer_type"]) == ("N/A", "other")
        (answer,) = entry["answers"]
        assert (answer["answer_confidence"], answer["answer_id"]) == ("yes", 1)
        assert entry["rotation"]["_x"] == entry["rotation"]["_y"] == entry["position"]["z"] == 0


@real
def test_sqa3d_looks_along_minus_x_where_it_is_not_turned():
    """Rays from two places that are said to face one thing meet before both, if they start out
    along -x, and less often if they start out elsewhere."""
    table, answers = sqa(REAL, "test")
    stands = {a["question_id"]: (a["position"], a["rotation"]) for a in answers["annotations"]}
    facing = {}
    for entry in table["questions"]:
        position, rotation = stands[entry["question_id"]]
        stand = (position["x"], position["y"], 2 * math.atan2(rotation["_z"], rotation["_w"]))
        for thing in re.findall(r"facing (?:the|a|an|my) (\w+)", entry["situation"].lower()):
            facing.setdefault((entry["scene_id"], thing), set()).add(stand)
    pairs = [pair for stands in facing.values() for pair in itertools.combinations(stands, 2)]
    meetings = {start: sum(meet(*pair, start) for pair in pairs) for start in (0, 90, 180, 270)}
    others = max(count for start, count in meetings.items() if start != 180)
    assert meetings[180] > 1.3 * others, meetings


def meet(one, other, start):
    """Whether the rays meet, 0.2 to 4 m before both."""
    (ax, ay, a), (bx, by, b) = one, other
    a, b = a + math.radians(start), b + math.radians(start)
    across = math.sin(b - a)
    if abs(across) < 0.15:
        return False
    x, y = bx - ax, by - ay
    first = (x * math.sin(b) - y * math.cos(b)) / across
    second = (x * math.sin(a) - y * math.cos(a)) / across
    return 0.2 < first < 4 and 0.2 < second < 4


def nextqa(folder, split):
    with (folder / "nextqa" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, load(folder / "nextqa" / "map_vid_vidorID.json")


def test_nextqa_holds_what_has_five_candidates(official):
    rows, paths = nextqa(official, "val")
    expected = asked(*WIDE)
    assert len(rows) == len(expected) > 20
    for row, (group, variant, question) in zip(rows, expected.values(), strict=True):
        options = [row[f"a{i}"] for i in range(5)]
        assert options[int(row["answer"])] == question.answer
        assert set(options) <= set(question.candidates)
        assert question.options in ((), tuple(options))
        assert all(other.answer in options for other in group.questions)
        assert row["question"] + "?" == question.text.lower()
        assert (row["frame_count"], row["width"], row["height"]) == ("4", "112", "112")
        assert row["type"] == ("DC" if "how many" in row["question"] else "DO")
        video = official / "nextqa" / "videos" / f"{paths[row['video']]}.mp4"
        assert video.read_text() == f"{group.name}/{media_of(group, variant)['video']}"
        assert str(int(row["video"])) == row["video"]
    assert len({(row["video"], row["qid"]) for row in rows}) == len(rows)
    assert set(paths) == {row["video"] for row in rows}


@real
def test_nextqa_has_the_columns_and_kinds_of_the_real_file(official):
    (ours, paths), (theirs, their_paths) = nextqa(official, "val"), nextqa(REAL, "val")
    assert list(ours[0]) == list(theirs[0])
    numbers = ("video", "frame_count", "width", "height", "answer", "qid")
    assert all(row[name].isdigit() for row in (*ours, *theirs) for name in numbers)
    assert {row["type"] for row in ours} <= {row["type"] for row in theirs}
    for every in (paths, their_paths):
        assert all(re.fullmatch(rf"\d{{4}}/{video}", path) for video, path in every.items())
    ends = re.compile(r"[a-z].*[^?]")
    assert all(ends.fullmatch(row["question"]) for row in ours)
    assert sum(bool(ends.fullmatch(row["question"])) for row in theirs) > 0.99 * len(theirs)
    written, official_bytes = (
        (folder / "nextqa" / "val.csv").read_bytes() for folder in (official, REAL)
    )
    assert (b"\r" in written) == (b"\r" in official_bytes)


def test_ids_do_not_depend_on_the_rest_of_the_set(official, tmp_path):
    some = lay_out(tmp_path, [g for g in ROUNDS if g.kind.name in ("audio_count", "point_side")])
    every, few = (load(f / "music_avqa" / "avqa-val.json") for f in (official, some))
    assert [entry for entry in every if entry in few] == few != []
    every, few = (sqa(f, "val")[1]["annotations"] for f in (official, some))
    assert [entry for entry in every if entry in few] == few != []
    every, few = (nextqa(f, "val")[0] for f in (official, some))
    assert [row for row in every if row in few] == few != []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SPLITS),
            st.integers(0, 2**24 - 1),
            st.integers(0, 10**6),
            st.sampled_from([kind for kind in TYPES.values() if kind.choices >= 5]),
            st.integers(0, 1),
        ),
        min_size=2,
        unique=True,
    )
)
def test_no_two_questions_share_a_number(places):
    numbers = [
        layouts._number(Group(kind, split, seed, turn, 4, 2), (variant,))
        for split, seed, turn, kind, variant in places
    ]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 2**63 for number in numbers)


def test_media_are_links_or_copies(official, tmp_path, monkeypatch):
    files = [path for path in official.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert all(path.stat().st_nlink > 1 for path in files if path.suffix != ".csv")

    def no_links(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    copied = lay_out(tmp_path, ROUNDS)
    for path in files:
        copy = copied / path.relative_to(official)
        assert copy.read_bytes() == path.read_bytes()
        assert copy.stat().st_nlink == 1


def test_a_set_without_a_kind_has_no_layout_of_it(tmp_path):
    chosen = [group for group in ROUNDS if group.kind.name in ("audio_first", "flow_what")]
    assert [path.name for path in lay_out(tmp_path, chosen).iterdir()] == ["music_avqa"]

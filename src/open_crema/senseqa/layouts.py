"""Questions of a set in the layouts of data sets that others have loaders for, with their media.

::

    music_avqa/avqa-SPLIT.json                     types that need sound
    music_avqa/videos/VIDEO.mp4
    sqa3d/v1_balanced_questions_SPLIT_scannetv2.json, v1_balanced_sqa_annotations_...
    sqa3d/scans/SCENE/SCENE_vh_clean_2.ply         types that need the scan
    sqa3d/video/SCENE.mp4
    nextqa/SPLIT.csv, map_vid_vidorID.json         types of five or more candidates
    nextqa/videos/FOLDER/VIDEO.mp4

Media are hard links where there can be any. Ids do not depend on which other questions the set has,
and no two splits or seeds share one.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_crema.senseqa.group_files import mp4_variant
from open_crema.senseqa.scene import SIZE, Scene
from open_crema.senseqa.sets import OPTIONS, SPLITS, Group, Question
from open_crema.senseqa.types import TYPES, Asked, Variant
from open_crema.senseqa.types.video import NUMBERS

# MUSIC-AVQA's own kinds; what there is "Audio" is but these two. An instrument that is heard or not
# ("Is there a piano sound?") counts as the first.
_MUSIC = {
    "audio_voice": ("Audio", "Counting"),
    "audio_count": ("Audio", "Counting"),
    "audio_first": ("Audio-Visual", "Temporal"),
    "audio_loudest": ("Audio", "Comparative"),
    "audio_melody": ("Audio", "Comparative"),
    "audio_which": ("Audio-Visual", "Location"),
    "two_loudest_hottest": ("Audio-Visual", "Comparative"),
    "two_first_left": ("Audio-Visual", "Temporal"),
}
# z and w of the turn about z from looking along -x: the official files have it so (rays from two
# places in one direction meet in what both say they face), and so has their tool that draws them.
_HALF = 0.5**0.5
_FACING = {
    "left": (0.0, 1.0),
    "front": (-_HALF, _HALF),
    "behind": (_HALF, _HALF),
    "right": (1.0, 0.0),
}
_ABOUT = {
    "info": {
        "description": "SenseQA, rendered rooms, in the layout of SQA3D.",
        "version": "1.0",
        "contributor": "Open CREMA",
    },
    "license": {
        "url": "https://opensource.org/license/bsd-3-clause",
        "name": "BSD 3-Clause License",
    },
    "data_type": "scannet",
    "data_subtype": "v2",
}
_COLUMNS = (
    *("video", "frame_count", "width", "height", "question", "answer", "qid", "type"),
    *(f"a{i}" for i in range(OPTIONS)),
)
_VIDEOS = 10**10  # what NExT-QA's are counted from: tables of numbers lose zeros in front


class Layouts:
    """Takes a set's questions one by one, links their media into ``folder``, and writes the tables
    when all are there. Whatever it does may raise OSError."""

    def __init__(self, split: str, folder: Path) -> None:
        self._split = split
        self._folder = folder
        self._music: list[dict[str, Any]] = []
        self._sqa_questions: list[dict[str, Any]] = []
        self._sqa_answers: list[dict[str, Any]] = []
        self._next: list[dict[str, Any]] = []
        self._next_paths: dict[str, str] = {}

    def add(self, group: Group, variant: Variant, media: Mapping[str, Path]) -> None:
        """A question, by its world, and the files of that world's senses."""
        question = group.questions[group.variants.index(variant)]
        if group.kind.name in _MUSIC:
            self._add_music(group, variant, question, media)
        if "point" in group.kind.needs:
            self._add_sqa(group, variant, question, media)
        if group.kind.choices >= OPTIONS:
            self._add_next(group, variant, question, media)

    def write(self) -> None:
        """The tables of those layouts that have any question."""
        split = self._split
        if self._music:
            path = self._folder / "music_avqa" / f"avqa-{split}.json"
            _write(path, self._music)
        if self._sqa_questions:
            asked = {**_ABOUT, "task_type": "Situated question answering"}
            for name, table in (
                ("questions", {**asked, "questions": self._sqa_questions}),
                ("sqa_annotations", {**_ABOUT, "annotations": self._sqa_answers}),
            ):
                _write(self._folder / "sqa3d" / f"v1_balanced_{name}_{split}_scannetv2.json", table)
        if self._next:
            folder = self._folder / "nextqa"
            _write(folder / "map_vid_vidorID.json", self._next_paths)
            with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
                rows.writeheader()
                rows.writerows(self._next)

    def _add_music(
        self, group: Group, variant: Variant, question: Question, media: Mapping[str, Path]
    ) -> None:
        asked = group.asked
        video = f"{_number(group, mp4_variant(group, variant)):08d}"
        _link(media["video"], self._folder / "music_avqa" / "videos" / f"{video}.mp4")
        self._music.append(
            {
                "video_id": video,
                "question_id": _number(group, variant),
                "type": json.dumps(_MUSIC[group.kind.name]),
                "question_content": asked.template.format(*["<Object>"] * len(asked.slots)),
                "templ_values": json.dumps(asked.slots),
                "question_deleted": 0,
                "anser": question.answer,
            }
        )

    def _add_sqa(
        self, group: Group, variant: Variant, question: Question, media: Mapping[str, Path]
    ) -> None:
        asked, place = group.asked, self._folder / "sqa3d"
        scene, number = _scene_id(group, variant), _number(group, variant)
        _link(media["point"], place / "scans" / scene / f"{scene}_vh_clean_2.ply")
        _link(media["video"], place / "video" / f"{scene}.mp4")
        self._sqa_questions.append(
            {
                "scene_id": scene,
                "situation": asked.situation,
                "alternative_situation": [],
                "question": asked.template.format(*asked.slots),
                "question_id": number,
            }
        )
        self._sqa_answers.append(
            {
                "scene_id": scene,
                "question_type": "N/A",
                "answer_type": "other",
                "question_id": number,
                "answers": [
                    {"answer": question.answer, "answer_confidence": "yes", "answer_id": 1}
                ],
                **_stand(asked, asked.worlds[variant]),
            }
        )

    def _add_next(
        self, group: Group, variant: Variant, question: Question, media: Mapping[str, Path]
    ) -> None:
        number = _number(group, mp4_variant(group, variant))
        video = str(_VIDEOS + number)
        path = f"{_in_set(group) // 1000:04d}/{video}"
        _link(media["video"], self._folder / "nextqa" / "videos" / f"{path}.mp4")
        self._next_paths[video] = path
        self._next.append(
            {
                "video": video,
                "frame_count": group.frames,
                "width": SIZE,
                "height": SIZE,
                "question": question.text.lower().removesuffix("?"),
                "answer": group.options.index(question.answer),
                "qid": group.variants.index(variant),
                # Of the official kinds there are two here: how many, and other descriptions.
                "type": "DC" if set(question.candidates) <= set(NUMBERS) else "DO",
                **{f"a{i}": option for i, option in enumerate(group.options)},
            }
        )


def _in_set(group: Group) -> int:
    """The group's number among all of its split and seed, whichever of them a set takes."""
    return group.turn * len(TYPES) + list(TYPES).index(group.kind.name)


def _number(group: Group, variant: Variant) -> int:
    """From the right a digit each for the world and the split, eight for the group, then the seed:
    it fits into 64 bits."""
    split, world = SPLITS.index(group.split), group.variants.index(variant)
    return ((group.seed * 10**8 + _in_set(group)) * 10 + split) * 10 + world


def _scene_id(group: Group, variant: Variant) -> str:
    """As ScanNet numbers rooms, and the scans of a room."""
    room, scan = divmod(_number(group, variant), 100)
    return f"scene{room:04d}_{scan:02d}"


def _stand(asked: Asked, scene: Scene) -> dict[str, dict[str, float]]:
    """Where one stands and looks: metres from the middle of the scan, as the official files have
    it. It is the camera's place, or the middle where the situation says so."""
    facing, y = "front", (scene.room.back - scene.room.front) / 2
    for fixture in scene.fixtures:
        if f"face the {fixture.kind}." in asked.situation:
            facing, y = fixture.place, 0.0
    z, w = _FACING[facing]
    return {
        "rotation": {"_x": 0, "_y": 0, "_z": z, "_w": w},
        "position": {"x": 0.0, "y": y, "z": 0},
    }


def _link(file: Path, link: Path) -> None:
    """Makes the file appear there too; questions of several worlds share it."""
    if link.exists():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, link)
    except OSError:  # a file system without, or too many links
        shutil.copyfile(file, link)


def _write(path: Path, table: Any) -> None:
    path.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

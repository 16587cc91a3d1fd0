"""Small annotation files in the benchmarks' official layouts, written on the spot.

`ENTRIES` has two entries of each task as its file holds them; `write` puts entries into a file of
the official name, with whatever must lie beside it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

NAMES = {
    "music_avqa": "avqa-{}.json",
    "nextqa": "{}.csv",
    "sqa3d": "v1_balanced_questions_{}_scannetv2.json",
    "perception_test": "mc_question_{}.json",
    "vggsound": "{}.csv",
    "touchqa": "{}.json",
    "thermalqa": "{}.json",
    "audiocaps": "{}.csv",
    "scanqa": "ScanQA_v1.0_{}.json",
}
NEXTQA = [
    *("video", "frame_count", "width", "height", "question", "answer", "qid", "type"),
    *(f"a{i}" for i in range(5)),
]


def music(clip: str = "00000028", number: int = 7, **other: Any) -> Entry:
    return {
        "video_id": clip,
        "question_id": number,
        "type": '["Audio-Visual", "Existential"]',
        "question_content": "Is the <Object> in the video always playing?",
        "templ_values": '["electric_bass"]',
        "question_deleted": 0,
        "anser": "yes",
        **other,
    }


def next_qa(clip: str = "4010069381", number: int = 6, **other: Any) -> Entry:
    values = [clip, 369, 640, 480, "how do they play", 2, number, "CH"]
    return dict(zip(NEXTQA, [*values, "roll", "tap", "strum", "hit", "pat"], strict=True)) | other


def situated(clip: str = "scene0050_00", number: int = 220602000002, **other: Any) -> Entry:
    """A question and its annotation in one; `write` takes them apart."""
    return {
        "scene_id": clip,
        "situation": "I am standing by the ottoman.",
        "alternative_situation": [],
        "question": "What instrument in front of me is ebony and ivory?",
        "question_id": number,
        "answers": [{"answer": "piano", "answer_confidence": "yes", "answer_id": 1}],
        "question_type": "N/A",
        "rotation": {"_x": 0},
        **other,
    }


def perceived(clip: str = "video_5945", number: int = 0, **other: Any) -> Entry:
    return {
        "video": clip,
        "id": number,
        "question": "Is the device on?",
        "options": ["I don't know", "yes", "no"],
        "answer_id": 1,
        "area": "physics",
        "reasoning": "descriptive",
        "tag": ["state recognition"],
        **other,
    }


def sound(clip: str = "glLQrEijrKg_000300", said: str = "dog barking") -> Entry:
    return {"file": f"{clip}.mp4", "class": said}


def sensed(clip: str = "20220410-347", answer: str = "wood", **other: Any) -> Entry:
    return {"qid": clip, "video": clip, "answer": answer, **other}


def caption(clip: str = "vfY_TJq7n_U", number: int = 97151, **other: Any) -> Entry:
    said = {"audiocap_id": number, "youtube_id": clip, "start_time": 130, "caption": "Ducks quack"}
    return said | other


def scanned(clip: str = "scene0011_00", number: str = "val-scene0011-0", **other: Any) -> Entry:
    return {
        "answers": ["dark brown", "brown"],
        "object_ids": [4],
        "object_names": ["chair"],
        "question": "What color is the chair?",
        "question_id": number,
        "scene_id": clip,
        **other,
    }


ENTRIES: Mapping[str, Sequence[Entry]] = {
    "music_avqa": [
        music(),
        music(
            "va00000108",
            10,
            type='["Audio", "Comparative"]',
            question_content="Is the <Object> louder than the <Object>?",
            templ_values='["guzheng", "piano"]',
            anser="no",
        ),
    ],
    "nextqa": [next_qa(), next_qa("2435100235", 7, type="CW", answer=0)],
    "sqa3d": [
        situated(),
        situated(
            "scene0702_00",
            220602000017,
            question="Can I see the door?",
            answers=[{"answer": "yes", "answer_id": 1}],
        ),
    ],
    "perception_test": [perceived(), perceived(number=1, answer_id=2, area="memory")],
    "vggsound": [sound(), sound("LDoXsip0BEQ_000177", "parrot talking")],
    "touchqa": [sensed(), sensed("20220410-500", "grass")],
    "thermalqa": [sensed("00012-3", "sit"), sensed("00012-4", "lean")],
    "audiocaps": [caption(), caption("tdWhHV3X25Q", 108945, caption="A man yells")],
    "scanqa": [scanned(), scanned(number="val-scene0011-1", answers=["brown"])],
}


def write(task: str, folder: Path, entries: Sequence[Entry], split: str = "test") -> Path:
    """The path of the annotation file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAMES[task].format(split)
    content: Any = list(entries)
    if task == "nextqa":
        paths = {str(e["video"]): f"1164/{e['video']}" for e in entries}
        (folder / "map_vid_vidorID.json").write_text(json.dumps(paths))
        path.write_text(as_csv(entries, header=True))
        return path
    if task == "sqa3d":
        apart = {"answers", "question_type", "rotation"}
        questions = [{k: v for k, v in e.items() if k not in apart} for e in entries]
        keys = (*apart, "scene_id", "question_id")
        answers = [{k: e[k] for k in keys if k in e} for e in entries]
        beside = folder / path.name.replace("questions", "sqa_annotations")
        beside.write_text(json.dumps({"info": {}, "annotations": answers}))
        content = {"info": {}, "questions": questions}
    if task == "perception_test":
        content = {}
        for entry in entries:
            own = {k: v for k, v in entry.items() if k != "video"}
            content.setdefault(entry["video"], {"mc_question": []})["mc_question"].append(own)
    if task == "vggsound":
        names = {e["class"] for e in (*entries, *ENTRIES[task])}
        rows = [{"class": name, "count": 1050, "group": "animals"} for name in sorted(names)]
        (folder / "stat.csv").write_text(as_csv(rows, header=False))
        path.write_text(as_csv(entries, header=False))
        return path
    if task == "audiocaps":
        path.write_text(as_csv(entries, header=True))
        return path
    path.write_text(json.dumps(content, indent=2))
    return path


def as_csv(rows: Sequence[Entry], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()

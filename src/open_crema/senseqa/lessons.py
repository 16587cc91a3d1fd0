"""What a set's clips teach: captions, and several questions a clip that given senses answer.

A set's own questions are made for measuring: one a clip, in pairs. For training, further questions
about a clip cost hardly more than one (``train.questions``), and captions let query tokens be words
before the LLM is asked anything (:mod:`open_crema.training.align`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from open_crema import modality
from open_crema.errors import ConfigError
from open_crema.senseqa.captions import caption
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.files import held, line, media_of_clip
from open_crema.senseqa.group_files import PART
from open_crema.senseqa.more import Fact, facts
from open_crema.senseqa.scene import Scene
from open_crema.senseqa.sets import OPTIONS, Group, Question, groups
from open_crema.senseqa.types import Variant

_LISTED = 0.2  # share of the further questions that are multiple choice
# Answers that scenes give far too often, and the share of them that is kept.
_COMMON = {
    ("video_count", "one"): 0.15,
    ("thermal_against", "warmer"): 0.1,
    ("thermal_count", "one"): 0.3,
    ("thermal_count", "two"): 0.3,
    ("flow_what", "an object"): 0.3,
}


def write(
    folder: str | Path, senses: Collection[str], more: int, *, own: bool = False
) -> tuple[Path, int, int]:
    """Writes ``lessons-SENSE+SENSE.jsonl`` into a set's folder: of each clip its captions in these
    senses, its own question where they answer it, and up to ``more`` others. Returns the file, the
    number of questions and of clips. own: only of clips whose own question they answer.

    Raises ConfigError for a folder without a complete set and for an unknown sense.
    """
    place, named = Path(folder), modality.canonical(senses)
    for sense in named:
        modality.get(sense)
        if sense not in SENSES:
            raise ConfigError(f"SenseQA has no {sense!r}; its senses are {', '.join(SENSES)}")
    if more < 1:
        raise ConfigError(f"{more} more questions a clip: give at least 1")
    spec = held(place)
    path = place / f"lessons-{'+'.join(named)}.jsonl"
    part, count, clips = path.with_name(f".{path.name}{PART}"), 0, 0
    with part.open("w", encoding="utf-8") as file:
        for group in groups(spec):
            for variant, question in zip(group.variants, group.questions, strict=False):
                if own and not set(question.needs) <= set(named):
                    continue
                lines = list(lessons(group, variant, question, named, more))
                clips += bool(lines)
                count += len(lines)
                for fields in lines:
                    file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    part.replace(path)  # a half one would pass for one of fewer clips
    return path, count, clips


def lessons(
    group: Group, variant: Variant, question: Question, senses: Collection[str], more: int
) -> Iterator[dict[str, Any]]:
    """The lines about one clip; the first has the captions."""
    scene = group.asked.worlds[variant]
    draw = group.draw.sub("lessons", *variant)
    files = media_of_clip(group, variant)
    media = {s: files[s] for s in files if s in senses}
    if "audio" in senses and "video" not in senses:
        media["audio"] = files["video"]
    found = [question] if set(question.needs) <= set(senses) else []
    for i, fact in enumerate(chosen(scene, draw, senses, more, without=question.text)):
        found.append(asked(fact, draw.sub("options", i), f"{question.id}-more{i}"))
    for i, own in enumerate(found):
        fields = line(own, media)
        del fields["pairs"]
        if not i:
            fields["captions"] = {s: caption(scene, s) for s in senses}
        yield fields


def chosen(
    scene: Scene, draw: Draw, senses: Collection[str], count: int, *, without: str = ""
) -> list[Fact]:
    """Up to so many facts that the senses tell, types evenly, and common answers thinned out."""
    kept: dict[str, list[Fact]] = {}
    for fact in draw.shuffled(facts(scene, draw)):
        share = _COMMON.get((fact.type, fact.answer), 1.0)
        if set(fact.needs) <= set(senses) and fact.text != without and draw.chance(share):
            kept.setdefault(fact.type, []).append(fact)
    found: list[Fact] = []
    while kept and len(found) < count:
        for name in draw.shuffled(sorted(kept)):
            found.append(kept[name].pop())
            if not kept[name]:
                del kept[name]
    return found[:count]


def asked(fact: Fact, draw: Draw, name: str, *, listed: float = _LISTED) -> Question:
    """The fact as a question, open-ended or (as often as ``listed`` says) multiple choice."""
    options: tuple[str, ...] = ()
    if draw.chance(listed):
        wrong = draw.shuffled([c for c in fact.candidates if c != fact.answer])
        options = tuple(draw.shuffled([fact.answer, *wrong[: OPTIONS - 1]]))
    return Question(
        id=name,
        type=fact.type,
        text=fact.text,
        answer=fact.answer,
        options=options,
        candidates=fact.candidates,
        needs=fact.needs,
        pairs={},
    )

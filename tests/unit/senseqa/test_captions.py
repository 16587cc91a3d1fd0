"""Captions: of one length, equal where a sense is, and holding what is asked for."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from open_crema.senseqa.captions import FILLER, WORDS, caption, ranks, side
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.scene import COLOURS, FURNITURE, SHAPES, Scene
from open_crema.senseqa.sets import Group, Spec, groups
from open_crema.senseqa.sounds import VOICES
from open_crema.senseqa.touch import TEXTURES
from open_crema.senseqa.types import TYPES

ROUNDS = 4
NUMBERS = ("zero", "one", "two", "three", "four", "five")
SIDES = ("left", "middle", "right")
WORDS_OF = {
    "video": {*COLOURS, *SHAPES, "board", "finger"} - {"panel"},
    "audio": {*VOICES, *NUMBERS[1:], "up", "down"},
    "flow": {
        *("left", "right", "up", "down", "slow", "steady", "fast"),
        *("the", "an", "both", "(nothing)", "yes", "no"),
    },
    "depth": {
        *("near", "between", "far", "small", "medium", "large", "yes", "no"),
        *SIDES,
    },
    "normal": {*SIDES, "up", "down", "raised", "sunken", "yes", "no"},
    "point": {"left", "right", "behind", "front", *NUMBERS[1:4], "wooden", *FURNITURE, *COLOURS},
    "touch": {*TEXTURES, "up", "across"},
    "thermal": {"colder", "warmer", "hottest", "yes", "(no)", *SIDES, *NUMBERS[1:]},
}


@pytest.fixture(scope="module", params=[4, 3, 7], ids="{} frames".format)
def drawn(request) -> list[Group]:
    """Some groups of every type."""
    found = []
    for group in groups(Spec("val", 5, ROUNDS * 90, frames=request.param)):
        if group.turn == (ROUNDS if request.param == 4 else 1):
            break
        found.append(group)
    assert {group.kind.name for group in found} == set(TYPES)
    return found


def told(group: Group) -> dict:
    """variant -> sense -> caption"""
    worlds = group.asked.worlds
    return {v: {sense: caption(worlds[v], sense) for sense in SENSES} for v in group.variants}


def test_all_are_of_one_length_and_have_a_part_or_one_a_frame(drawn):
    for group in drawn:
        for senses in told(group).values():
            for sense, parts in senses.items():
                assert len(parts) in (1, group.frames), (group.name, sense)
                assert {len(words) for words in parts} == {WORDS}, (group.name, sense)
            assert len(senses["audio"]) == len(senses["point"]) == 1
            assert len(senses["touch"]) == group.frames


def test_a_sense_has_words_of_its_own_and_a_filler_that_no_other_has(drawn):
    assert len(set(FILLER.values())) == len(SENSES)
    seen: dict[str, set[str]] = {sense: set() for sense in SENSES}
    for group in drawn:
        for senses in told(group).values():
            for sense, parts in senses.items():
                seen[sense] |= {word for words in parts for word in words}
    for sense, words in seen.items():
        assert FILLER[sense] in words
        assert words - {FILLER[sense]} <= WORDS_OF[sense]
        for other in WORDS_OF.values():
            assert FILLER[sense] not in other


def test_shared_senses_are_told_alike_and_others_not(drawn):
    """Of the worlds of a group: what differs is told, and nothing else."""
    compared = Counter()
    for group in drawn:
        found = told(group)
        for one, other in combinations(group.variants, 2):
            rows = zip(group.kind.flips, one, other, strict=True)
            flipped = {sense for sense, a, b in rows if a != b}
            for sense in SENSES:
                same = found[one][sense] == found[other][sense]
                assert same == (sense not in flipped), (group.name, sense)
                compared[same] += 1
    assert min(compared.values()) > 60


def test_what_stands_out_is_named_and_what_hardly_does_is_not():
    words = ("least", "between", "most")
    assert ranks([2.0, 1.0, 3.0], 0.5, words) == ["between", "least", "most"]
    assert ranks([1.0, 1.4, 3.0], 0.5, words) == ["between", "between", "most"]
    assert ranks([7.0], 0.5, words) == ["between"]
    assert ranks([], 0.5, words) == []
    assert side([1.0, 3.0, 2.0], 0.5) == "middle"
    assert side([1.0, 2.4, 2.0], 0.5) is None
    assert side([1.0, 3.0], 0.5) is None


# Whoever knows the words alone can answer.


def place(scene: Scene, colour: str) -> int:
    """Of the only thing of that colour in what the video is told to show."""
    row = caption(scene, "video")[0]
    places = [i for i in range(0, 12, 2) if row[i] == colour and row[i + 1] in {*SHAPES, "board"}]
    assert len(places) == 1, (colour, row)
    return places[0]


def named(group: Group) -> list[str]:
    return [slot for slot in group.asked.slots if slot in COLOURS]


def telling(words: list[str], places: list[int], word: str) -> int:
    """Which of these places says that word."""
    return [words[i] for i in places].index(word)


def answered(group: Group, scene: Scene) -> str | None:
    """The answer as the captions have it; None for a type of which that is not tried."""
    said = {sense: caption(scene, sense)[-1] for sense in SENSES}
    kind, colours = group.kind.name, named(group)
    if kind == "video_count":
        return NUMBERS[said["video"][0::2].count(colours[0])]
    at = [place(scene, colour) for colour in colours]
    if kind == "video_shape":
        return said["video"][at[0] + 1]
    if kind == "video_side":
        return "left" if at[0] < at[1] else "right"
    if kind == "audio_voice":
        return said["audio"][0]
    if kind == "audio_first":
        return said["audio"][0]
    if kind == "audio_loudest":
        return said["audio"][10]
    if kind == "audio_count":
        assert sum(said["audio"][i] in VOICES for i in range(0, 10, 2)) == NUMBERS.index(
            said["audio"][1]
        )
        return said["audio"][1]
    if kind == "audio_melody":
        return said["audio"][11]
    if kind == "flow_direction":
        return said["flow"][at[0]]
    if kind == "flow_same":
        return said["flow"][11]
    if kind == "flow_fastest":
        return next(c for c, i in zip(colours, at, strict=True) if said["flow"][i + 1] == "fast")
    if kind == "flow_what":
        what = {"the": "the camera", "an": "an object", "(nothing)": "nothing"}
        return what.get(said["flow"][10], "both")
    if kind == "depth_nearer":
        return colours[telling(said["depth"], at, "near")]
    if kind == "depth_larger":
        return colours[telling(said["depth"], [i + 1 for i in at], "large")]
    if kind == "depth_gap":
        return said["depth"][10]
    if kind == "depth_farthest":
        assert telling(said["depth"], [0, 2, 4], "far") == SIDES.index(said["depth"][11])
        return said["depth"][11]
    if kind == "normal_tilt":
        return said["normal"][at[0]]
    if kind == "normal_bulge":
        return said["normal"][at[0] + 1]
    if kind == "normal_same":
        return "yes" if said["normal"][at[0]] == said["normal"][at[1]] else "no"
    if kind == "normal_odd":
        return said["normal"][10]
    if kind == "point_behind":
        return said["point"][7]
    if kind == "point_count":
        return said["point"][11]
    if kind == "touch_texture":
        return said["touch"][10]
    if kind == "touch_ridges":
        return "up and down" if said["touch"][11] == "up" else "across"
    if kind == "thermal_hottest":
        return colours[telling(said["thermal"], [i + 1 for i in at], "hottest")]
    if kind == "thermal_side":
        return said["thermal"][10]
    if kind == "thermal_taken":
        return said["thermal"][8].strip("()")
    if kind == "thermal_count":
        return said["thermal"][11]
    if kind == "thermal_against":
        return said["thermal"][at[0]]
    return None


def test_captions_hold_the_answers(drawn):
    right, wrong = Counter(), []
    for group in drawn:
        for variant, question in zip(group.variants, group.questions, strict=False):
            found = answered(group, group.asked.worlds[variant])
            if found == question.answer:
                right[group.kind.name] += 1
            elif found is not None:
                wrong.append((group.name, variant, found, question.answer))
    assert wrong == []
    assert len(right) == 29

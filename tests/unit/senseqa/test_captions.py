"""Captions: of one length, equal where a sense is, and holding what is asked for."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from open_crema.senseqa.captions import FILLER, WORDS, caption, level
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.scene import COLOURS, FURNITURE, SHAPES, Scene
from open_crema.senseqa.sets import Group, Spec, groups
from open_crema.senseqa.sounds import VOICES
from open_crema.senseqa.touch import TEXTURES
from open_crema.senseqa.types import TYPES

ROUNDS = 4
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS_OF = {
    "video": {*COLOURS, *SHAPES, "board", "finger"} - {"panel"},
    "audio": {*VOICES, *NUMBERS, "up", "down"},
    "flow": {"left", "right", "up", "down", "slow", "steady", "fast", "camera"},
    "depth": set(NUMBERS),
    "normal": {"left", "right", "up", "down", "raised", "sunken"},
    "point": {"left", "right", "behind", "front", "wooden", *FURNITURE, *COLOURS},
    "touch": {*TEXTURES, "up", "across"},
    "thermal": {"cold", "warm", "hot", "mark", *NUMBERS},
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


def test_a_number_is_a_word_and_the_ends_hold_what_lies_beyond():
    assert [level(x, 1.0, 0.5) for x in (0.2, 1.0, 1.49, 1.5, 5.4, 5.5, 99)] == [
        "zero", "zero", "zero", "one", "eight", "nine", "nine"
    ]  # fmt: skip


# Whoever knows the words alone can answer.


def place(scene: Scene, colour: str) -> int:
    """Of the only thing of that colour in what the video is told to show."""
    row = caption(scene, "video")[0]
    places = [i for i in range(0, 12, 2) if row[i] == colour and row[i + 1] in {*SHAPES, "board"}]
    assert len(places) == 1, (colour, row)
    return places[0]


def named(group: Group) -> list[str]:
    return [slot for slot in group.asked.slots if slot in COLOURS]


def largest(words: list[str], places: list[int]) -> int:
    return max(range(len(places)), key=lambda i: NUMBERS.index(words[places[i]]))


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
        return NUMBERS[sum(said["audio"][i] in VOICES for i in range(0, 10, 2))]
    if kind == "audio_melody":
        return said["audio"][11]
    if kind == "flow_direction":
        return said["flow"][at[0]]
    if kind == "flow_same":
        return "yes" if said["flow"][at[0]] == said["flow"][at[1]] else "no"
    if kind == "flow_fastest":
        return next(c for c, i in zip(colours, at, strict=True) if said["flow"][i + 1] == "fast")
    if kind == "flow_what":
        things = {said["flow"][i] for i in range(0, 10, 2)} != {FILLER["flow"]}
        camera = said["flow"][10] == "camera"
        return ("nothing", "an object", "the camera", "both")[things + 2 * camera]
    if kind == "depth_nearer":
        return colours[1 - largest(said["depth"], at)]
    if kind == "depth_larger":
        return colours[largest(said["depth"], [i + 1 for i in at])]
    if kind == "depth_farthest":
        return ("left", "middle", "right")[largest(said["depth"], [0, 2, 4])]
    if kind == "normal_tilt":
        return said["normal"][at[0]]
    if kind == "normal_bulge":
        return said["normal"][at[0] + 1]
    if kind == "normal_same":
        return "yes" if said["normal"][at[0]] == said["normal"][at[1]] else "no"
    if kind == "normal_odd":
        ways = [said["normal"][i] for i in (0, 2, 4)]
        return ("left", "middle", "right")[next(i for i in range(3) if ways.count(ways[i]) == 1)]
    if kind == "point_behind":
        return said["point"][7]
    if kind == "point_count":
        return NUMBERS[sum(said["point"][i] != FILLER["point"] for i in (0, 3, 6))]
    if kind == "touch_texture":
        return said["touch"][10]
    if kind == "touch_ridges":
        return "up and down" if said["touch"][11] == "up" else "across"
    if kind == "thermal_hottest":
        return colours[largest(said["thermal"], [i + 1 for i in hot(said["thermal"], at)])]
    if kind == "thermal_taken":
        return "yes" if said["thermal"][10] == "mark" else "no"
    if kind == "thermal_count":
        return NUMBERS[sum(said["thermal"][i] in ("warm", "hot") for i in range(0, 10, 2))]
    if kind == "thermal_against":
        return "colder" if said["thermal"][at[0]] == "cold" else "warmer"
    return None


def hot(words: list[str], places: list[int]) -> list[int]:
    """Places that tell of warmth, others being told as if they were the coldest."""
    for i in places:
        if words[i + 1] not in NUMBERS:
            words[i + 1] = "zero"
    return places


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
    assert len(right) == 27

"""Further questions about a scene: true, in the set's own words, and of the senses they need."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.more import Fact, facts
from open_crema.senseqa.scene import COLOURS
from open_crema.senseqa.sets import Group, Spec, groups
from open_crema.senseqa.types import TYPES, Variant

GROUPS = 200
DRAWS = 2  # of the order in which things are named, and of what is asked for that is not there


@cache
def drawn() -> list[Group]:
    found = []
    for group in groups(Spec("val", 9, 10**6)):
        found.append(group)
        if len(found) == GROUPS:
            return found
    raise AssertionError


@cache
def known(name: str) -> dict[Variant, list[Fact]]:
    """Of each world of a group of that name."""
    group = next(group for group in drawn() if group.name == name)
    return {
        variant: [fact for i in range(DRAWS) for fact in facts(scene, Draw("test", name, i))]
        for variant, scene in group.asked.worlds.items()
    }


def clips() -> list[tuple[Group, Variant, list[Fact]]]:
    return [(g, variant, own) for g in drawn() for variant, own in known(g.name).items()]


def test_they_never_contradict_the_set_s_own_question():
    agreeing = Counter()
    for group in drawn():
        for variant, question in zip(group.variants, group.questions, strict=False):
            for fact in known(group.name)[variant]:
                if fact.text == question.text:
                    assert fact.answer == question.answer, (group.name, variant, fact)
                    assert fact.type == question.type
                    assert sorted(fact.candidates) == sorted(question.candidates)
                    agreeing[fact.type] += 1
    # All but those that are not asked again.
    left = {"audio_which", "point_turned", "thermal_taken"}
    assert set(agreeing) == {n for n in TYPES if not n.startswith("two_")} - left


def test_none_contradicts_another():
    """However things are named: of one scene the same words have one answer."""
    said = 0
    for group, variant, own in clips():
        answers: dict[str, Fact] = {}
        for fact in own:
            first = answers.setdefault(fact.text, fact)
            assert fact.answer == first.answer, (group.name, variant)
            assert fact.needs == first.needs
            said += fact is not first
    assert said > 4_000


def test_what_is_on_the_left_is_not_on_the_right():
    sides = re.compile("Is the (.+) object to the left or to the right of the (.+) object")
    turned = 0
    for group, _, own in clips():
        found = {m.groups(): fact.answer for fact in own if (m := sides.match(fact.text))}
        for (one, other), answer in found.items():
            if (other, one) in found:
                assert found[other, one] != answer, group.name
                turned += 1
    assert turned > 20


def test_answers_are_among_the_candidates_and_these_differ():
    for group, _, own in clips():
        for fact in own:
            assert fact.answer in fact.candidates, (group.name, fact)
            assert len(set(fact.candidates)) == len(fact.candidates) > 1, (group.name, fact)


def test_needs_are_those_of_the_type():
    for _, _, own in clips():
        for fact in own:
            assert fact.needs == TYPES[fact.type].needs


def test_senses_that_are_not_needed_do_not_tell():
    """Two worlds that differ in senses which a question does not need have one answer to it."""
    compared = 0
    for group in drawn():
        worlds = known(group.name)
        for one, other in combinations(group.variants, 2):
            rows = zip(group.kind.flips, one, other, strict=True)
            differ = {sense for sense, a, b in rows if a != b}
            found = {fact.text: fact for fact in worlds[one]}
            for fact in worlds[other]:
                if fact.text in found and not differ & set(fact.needs):
                    assert found[fact.text].answer == fact.answer, (group.name, fact)
                    compared += 1
    assert compared > 2_000


def test_words_are_those_of_the_set():
    """With the slots filled otherwise, and articles as below."""
    patterns: dict[str, set[str]] = {name: set() for name in TYPES}
    for group in drawn():
        asked = group.asked
        template = f"{asked.situation} {asked.template}".strip().replace(" an {", " a {")
        filled = r"([\w]+|on your left|on your right|behind you)"
        patterns[group.kind.name].add(filled.join(map(re.escape, template.split("{}"))))
    for _, _, own in clips():
        for fact in own:
            text = fact.text.replace(" an orange ", " a orange ")
            assert any(re.fullmatch(p, text) for p in patterns[fact.type]), fact.text


def test_an_article_fits_its_colour():
    articles = Counter()
    for _, _, own in clips():
        for fact in own:
            if fact.type == "video_exists":
                article, colour = re.match(r"Is there (an?) (\w+) ", fact.text).groups()
                assert article == ("an" if colour == "orange" else "a"), fact.text
                articles[article] += 1
    assert min(articles["a"], articles["an"]) > 20


def test_both_yes_and_no_are_asked_for():
    answers: dict[str, Counter[str]] = {}
    for _, _, own in clips():
        for fact in own:
            answers.setdefault(fact.type, Counter())[fact.answer] += 1
    for name in ("video_exists", "flow_same", "normal_same", "depth_gap", "touch_same"):
        assert min(answers[name].values()) > 5, (name, answers[name])
        assert set(answers[name]) == {"yes", "no"}
    assert set(answers["video_colour"]) == set(COLOURS)


@pytest.mark.parametrize("place", range(0, GROUPS, 61))
def test_they_are_a_function_of_scene_and_draw(place):
    group = drawn()[place]
    scene = group.asked.worlds[group.variants[0]]
    first = facts(scene, Draw("a"))
    assert first == facts(scene, Draw("a"))
    assert len(first) > 5

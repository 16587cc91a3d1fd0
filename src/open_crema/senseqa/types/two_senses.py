"""Types that need two senses beside the video. Four worlds each: either sense turns the answer
round, so that who lacks one of them cannot know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, Contact, Scene
from open_crema.senseqa.sounds import VOICES
from open_crema.senseqa.types.audio import loud_and_soft, one_after_another
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, Variant
from open_crema.senseqa.types.depth import at_distances
from open_crema.senseqa.types.flow import darting
from open_crema.senseqa.types.thermal import heated
from open_crema.senseqa.types.touch import in_turn


def _worlds(draw: Draw, a: int, world: Callable[[int, int], Scene]) -> dict[Variant, Scene]:
    """``world(i, j)``: one sense points to thing i of two, the other to thing j."""
    start = draw.integer(2)
    return {(i, j): world(start ^ i, start ^ j ^ a) for i in (0, 1) for j in (0, 1)}


def _instruments(draw: Draw, scene: Scene) -> tuple[Scene, list[str], list[str]]:
    """Two things that sound, their colours and voices."""
    colours, voices = draw.sample(list(COLOURS), 2), draw.sample(VOICES, 2)
    base = stage.row(draw.sub("row"), scene, colours, moves=False)
    cues = (frozenset({0, 1}),) * len(scene.times)
    camera = replace(base.camera, drift=0.0)
    return replace(base, cues=cues, camera=camera), colours, voices


def loudest_hottest(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, colours, voices = _instruments(draw, scene)
    order = draw.shuffled(voices)
    hot, cool = draw.uniform(15, 30), draw.uniform(-2, 2)

    def world(loud: int, hottest: int) -> Scene:
        notes = loud_and_soft(draw.sub("notes"), order, voices[loud])
        return replace(heated(base, {hottest: hot, 1 - hottest: cool}), notes=notes)

    return Asked(
        "The {} object is the {} and the {} object is the {}. Is the louder one also the hotter "
        "one?",
        (colours[0], voices[0], colours[1], voices[1]),
        YES_NO,
        _worlds(draw, a, world),
    )


def first_left(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, colours, voices = _instruments(draw, scene)
    speeds = draw.uniform(0.3, 0.9), draw.uniform(0.3, 0.9)

    def world(first: int, left: int) -> Scene:
        notes = one_after_another(draw.sub("notes"), voices[first], voices[1 - first])
        moving = {
            i: darting(base.things[i], "left" if i == left else "right", speeds[i]) for i in (0, 1)
        }
        return replace(stage.swapped(base, moving), notes=notes)

    return Asked(
        "The {} object is the {} and the {} object is the {}. Does the one that is heard first "
        "move to the left?",
        (colours[0], voices[0], colours[1], voices[1]),
        YES_NO,
        _worlds(draw, a, world),
    )


def nearer_hotter(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 2)
    base = stage.floating(draw.sub("row"), scene, colours)
    near, far = draw.uniform(1.5, 2.2), draw.uniform(2.6, 3.2)
    hot, cool = draw.uniform(15, 30), draw.uniform(-2, 2)

    def world(nearest: int, hottest: int) -> Scene:
        found = at_distances(base, {nearest: near, 1 - nearest: far})
        return heated(found, {hottest: hot, 1 - hottest: cool})

    return Asked(
        "Is the nearer one of the two objects also the hotter one?",
        (),
        YES_NO,
        _worlds(draw, a, world),
    )


def rough_warm(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 2)
    base = stage.row(draw.sub("row"), scene, colours)
    order, angle = draw.shuffled((0, 1)), draw.uniform(0, np.pi)
    hot, cool = draw.uniform(15, 30), draw.uniform(-2, 2)

    def world(rough: int, hottest: int) -> Scene:
        contacts = [Contact("rough" if i == rough else "smooth", angle, i) for i in order]
        return in_turn(heated(base, {hottest: hot, 1 - hottest: cool}), contacts)

    return Asked(
        "The finger touches two objects, a rough and a smooth one. Is the rough one also the "
        "warmer one?",
        (),
        YES_NO,
        _worlds(draw, a, world),
    )


TYPES = (
    QuestionType(
        "two_loudest_hottest",
        ("video", "audio", "thermal"),
        ("audio", "thermal"),
        2,
        loudest_hottest,
    ),
    QuestionType("two_first_left", ("video", "audio", "flow"), ("audio", "flow"), 2, first_left),
    QuestionType("two_nearer_hotter", ("depth", "thermal"), ("depth", "thermal"), 2, nearer_hotter),
    QuestionType(
        "two_rough_warm", ("video", "touch", "thermal"), ("touch", "thermal"), 2, rough_warm
    ),
)

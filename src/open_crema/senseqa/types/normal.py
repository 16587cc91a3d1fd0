"""Types that the normals answer. Fine relief on a board that is lit evenly: slats that face one
way, a mark that is raised or sunken. It is too shallow for depth and leaves no shade."""

from __future__ import annotations

from dataclasses import replace

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, TILTS, Relief, Scene
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, two
from open_crema.senseqa.types.depth import SIDES

_WAYS = tuple(TILTS)


def _with(scene: Scene, reliefs: dict[int, Relief]) -> Scene:
    changes = {i: replace(scene.things[i], relief=relief) for i, relief in reliefs.items()}
    return stage.swapped(scene, changes)


def tilt(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 1 + draw.integer(3)
    colours, asked = draw.sample(list(COLOURS), number), draw.integer(number)
    base = stage.panels(draw.sub("row"), scene, colours)
    others = {i: Relief(draw.choice(_WAYS)) for i in range(number) if i != asked}

    def world(answer: int) -> Scene:
        return _with(base, {**others, asked: Relief(_WAYS[answer])})

    return Asked(
        "Which way do the slats of the {} board face?",
        (colours[asked],),
        _WAYS,
        two(world(a), world(b)),
    )


def bulge(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 1 + draw.integer(3)
    colours, asked = draw.sample(list(COLOURS), number), draw.integer(number)
    base = stage.panels(draw.sub("row"), scene, colours)
    others = {i: Relief(bulge=draw.choice((-1, 1))) for i in range(number) if i != asked}

    def world(answer: int) -> Scene:
        return _with(base, {**others, asked: Relief(bulge=1 if answer == 0 else -1)})

    return Asked(
        "Is the mark on the {} board raised or sunken?",
        (colours[asked],),
        ("raised", "sunken"),
        two(world(a), world(b)),
    )


def same(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 2 + draw.integer(2)
    colours, asked = draw.sample(list(COLOURS), number), draw.sample(range(number), 2)
    base = stage.panels(draw.sub("row"), scene, colours)
    way, other = draw.sample(_WAYS, 2)
    rest = {i: Relief(draw.choice(_WAYS)) for i in range(number) if i not in asked}

    def world(answer: int) -> Scene:
        second = way if answer == 0 else other
        return _with(base, {**rest, asked[0]: Relief(way), asked[1]: Relief(second)})

    return Asked(
        "Do the slats of the {} and the {} board face the same way?",
        tuple(colours[i] for i in asked),
        YES_NO,
        two(world(a), world(b)),
    )


def odd(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base = stage.panels(draw.sub("row"), scene, draw.sample(list(COLOURS), 3))
    way, other = draw.sample(_WAYS, 2)

    def world(answer: int) -> Scene:
        return _with(base, {i: Relief(other if i == answer else way) for i in range(3)})

    return Asked(
        "The slats of one board face another way than those of the two others. Is it the board on "
        "the left, in the middle or on the right?",
        (),
        SIDES,
        two(world(a), world(b)),
    )


TYPES = (
    QuestionType("normal_tilt", ("video", "normal"), ("normal",), len(_WAYS), tilt),
    QuestionType("normal_bulge", ("video", "normal"), ("normal",), 2, bulge),
    QuestionType("normal_same", ("video", "normal"), ("normal",), 2, same),
    QuestionType("normal_odd", ("normal",), ("normal",), 3, odd),
)

"""Types that the touch sensor answers. The finger is seen on the thing that it touches; what that
feels like cannot be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, Contact, Scene
from open_crema.senseqa.touch import TEXTURES
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, two

_RUNS = ("across", "up and down")
_ASKEW = 0.25  # radians


def in_turn(scene: Scene, contacts: list[Contact]) -> Scene:
    """The scene with a finger that spends as many key frames on each contact, one after another."""
    frames = len(scene.times)
    shown = tuple(contacts[i * len(contacts) // frames] for i in range(frames))
    return replace(scene, contacts=shown)


def texture(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 1 + draw.integer(4)
    colours, asked = draw.sample(list(COLOURS), number), draw.integer(number)
    base = stage.row(draw.sub("row"), scene, colours)
    angle = draw.uniform(0, np.pi)

    def world(answer: int) -> Scene:
        return in_turn(base, [Contact(TEXTURES[answer], angle, asked)])

    return Asked(
        "The finger touches the {} object. How does it feel?",
        (colours[asked],),
        TEXTURES,
        two(world(a), world(b)),
    )


def same(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 2 + draw.integer(2)
    colours, asked = draw.sample(list(COLOURS), number), draw.sample(range(number), 2)
    base = stage.row(draw.sub("row"), scene, colours)
    kind, other = draw.sample(TEXTURES, 2)
    angle = draw.uniform(0, np.pi)

    def world(answer: int) -> Scene:
        second = kind if answer == 0 else other
        return in_turn(base, [Contact(kind, angle, asked[0]), Contact(second, angle, asked[1])])

    return Asked(
        "The finger touches the {}, then the {} object. Do they feel the same?",
        tuple(colours[i] for i in asked),
        YES_NO,
        two(world(a), world(b)),
    )


def ridges(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 1 + draw.integer(4)
    colours, asked = draw.sample(list(COLOURS), number), draw.integer(number)
    base = stage.row(draw.sub("row"), scene, colours)
    askew = draw.uniform(-_ASKEW, _ASKEW)

    def world(answer: int) -> Scene:
        angle = askew + (np.pi / 2 if _RUNS[answer] == "up and down" else 0.0)
        return in_turn(base, [Contact("ridged", angle, asked)])

    return Asked(
        "Do the ridges that the finger feels run across or up and down?",
        (),
        _RUNS,
        two(world(a), world(b)),
    )


def which(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 3)
    base = stage.row(draw.sub("row"), scene, colours)
    order, named = draw.shuffled(range(3)), draw.shuffled(colours)
    kind, *others = draw.sample(TEXTURES, 3)
    angle = draw.uniform(0, np.pi)
    third = next(i for i in range(3) if i not in (a, b))

    def world(answer: int, instead: int) -> Scene:
        feel = {named[answer]: kind, named[instead]: others[0], named[third]: others[1]}
        return in_turn(base, [Contact(feel[colours[i]], angle, i) for i in order])

    return Asked(
        "The finger touches three objects. Which one feels {}, the {}, the {} or the {} one?",
        (kind, *named),
        tuple(named),
        two(world(a, b), world(b, a)),
    )


TYPES = (
    QuestionType("touch_texture", ("touch",), ("touch",), len(TEXTURES), texture),
    QuestionType("touch_same", ("touch",), ("touch",), 2, same),
    QuestionType("touch_ridges", ("touch",), ("touch",), 2, ridges),
    QuestionType("touch_which", ("video", "touch"), ("touch",), 3, which),
)

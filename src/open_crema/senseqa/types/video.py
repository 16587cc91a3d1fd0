"""Types that the pictures alone answer. Their worlds differ in the colours of things, which no
other sense shows."""

from __future__ import annotations

from dataclasses import replace

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, SHAPES, Scene
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, two

NUMBERS = ("one", "two", "three", "four", "five")


def _recoloured(scene: Scene, colours: list[str]) -> Scene:
    things = [stage.painted(t, c) for t, c in zip(scene.things, colours, strict=True)]
    return replace(scene, things=tuple(things))


def colour(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    names = list(COLOURS)
    count = 1 + draw.integer(4)
    shapes = draw.sample(SHAPES, count)
    others = draw.sample([n for i, n in enumerate(names) if i not in (a, b)], count - 1)
    asked = draw.integer(count)

    def world(own: int) -> Scene:
        return stage.row(
            draw.sub("row"), scene, [*others[:asked], names[own], *others[asked:]], shapes
        )

    return Asked("What colour is the {}?", (shapes[asked],), tuple(names), two(world(a), world(b)))


def shape(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    """One thing of every shape, so that depth and normals do not tell which shapes there are."""
    shapes, colours = draw.shuffled(SHAPES), draw.sample(list(COLOURS), len(SHAPES))
    first, second = shapes.index(SHAPES[a]), shapes.index(SHAPES[b])
    base = stage.row(draw.sub("row"), scene, colours, shapes)
    turned = list(colours)
    turned[first], turned[second] = turned[second], turned[first]
    return Asked(
        "What shape is the {} object?",
        (colours[first],),
        SHAPES,
        two(base, _recoloured(base, turned)),
    )


def count(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    asked, *others = draw.shuffled(list(COLOURS))
    order = draw.shuffled(range(6))
    rest = [draw.choice(others) for _ in range(6)]

    def colours(number: int) -> list[str]:
        return [asked if order[i] < number else rest[i] for i in range(6)]

    base = stage.row(draw.sub("row"), scene, colours(a + 1))
    return Asked(
        "How many {} objects are there?",
        (asked,),
        NUMBERS,
        two(base, _recoloured(base, colours(b + 1))),
    )


def side(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 2 + draw.integer(3)
    colours = draw.sample(list(COLOURS), number)
    left, right = sorted(draw.sample(range(number), 2))
    swapped = list(colours)
    swapped[left], swapped[right] = swapped[right], swapped[left]
    base = stage.row(draw.sub("row"), scene, colours)
    one, other = (base, _recoloured(base, swapped))
    return Asked(
        "Is the {} object to the left or to the right of the {} object?",
        (colours[left], colours[right]),
        ("left", "right"),
        two(one, other) if a == 0 else two(other, one),
    )


def exists(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 2 + draw.integer(3)
    shapes = draw.sample(SHAPES, number)
    colours = draw.sample(list(COLOURS), number)
    first, second = draw.sample(range(number), 2)
    swapped = list(colours)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    base = stage.row(draw.sub("row"), scene, colours, shapes)
    there, not_there = base, _recoloured(base, swapped)
    article = "an" if colours[first][0] in "aeiou" else "a"
    return Asked(
        f"Is there {article} {{}} {{}}?",
        (colours[first], shapes[first]),
        YES_NO,
        two(there, not_there) if a == 0 else two(not_there, there),
    )


TYPES = (
    QuestionType("video_colour", ("video",), ("video",), len(COLOURS), colour),
    QuestionType("video_shape", ("video",), ("video",), len(SHAPES), shape),
    QuestionType("video_count", ("video",), ("video",), len(NUMBERS), count),
    QuestionType("video_side", ("video",), ("video",), 2, side),
    QuestionType("video_exists", ("video",), ("video",), 2, exists),
)

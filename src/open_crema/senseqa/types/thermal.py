"""Types that the temperatures answer."""

from __future__ import annotations

from dataclasses import replace

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, Scene, Spot
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, two
from open_crema.senseqa.types.depth import SIDES
from open_crema.senseqa.types.video import NUMBERS


def heated(scene: Scene, degrees: dict[int, float]) -> Scene:
    """The scene with things that many degrees above the room."""
    room = scene.room.celsius
    changes = {i: replace(scene.things[i], celsius=room + d) for i, d in degrees.items()}
    return stage.swapped(scene, changes)


def hottest(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 3)
    base, named = stage.row(draw.sub("row"), scene, colours), draw.shuffled(colours)
    hot, warm, cool = draw.uniform(25, 35), draw.uniform(8, 15), draw.uniform(-2, 2)
    third = next(i for i in range(3) if i not in (a, b))

    def world(answer: int, instead: int) -> Scene:
        degrees = {named[answer]: hot, named[instead]: cool, named[third]: warm}
        return heated(base, {i: degrees[c] for i, c in enumerate(colours)})

    return Asked(
        "Which object is hottest, the {}, the {} or the {} one?",
        tuple(named),
        tuple(named),
        two(world(a, b), world(b, a)),
    )


def side(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base = stage.row(draw.sub("row"), scene, draw.sample(list(COLOURS), 3))
    hot, warm, cool = draw.uniform(25, 35), draw.uniform(8, 15), draw.uniform(-2, 2)
    third = next(i for i in range(3) if i not in (a, b))

    def world(answer: int, instead: int) -> Scene:
        return heated(base, {answer: hot, instead: cool, third: warm})

    return Asked(
        "Where is the hottest object, on the left, in the middle or on the right?",
        (),
        SIDES,
        two(world(a, b), world(b, a)),
    )


def taken(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    """What stood in the row has left its warmth, or its cold, on the floor."""
    colours = draw.sample(list(COLOURS), 2 + draw.integer(3))
    base = stage.row(draw.sub("row"), scene, colours, moves=False)
    gone = draw.integer(len(colours))
    x, y, _ = base.things[gone].solid.centre
    degrees = draw.choice((draw.uniform(6, 12), draw.uniform(-10, -5)))
    mark = Spot(x, y, draw.uniform(0.2, 0.28), degrees)
    left = tuple(thing for i, thing in enumerate(base.things) if i != gone)

    def world(answer: int) -> Scene:
        return replace(base, things=left, spots=(mark,) if answer == 0 else ())

    return Asked(
        "Has something just been taken away from the floor?",
        (),
        YES_NO,
        two(world(a), world(b)),
    )


def count(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base = stage.row(draw.sub("row"), scene, draw.sample(list(COLOURS), 5))
    order = draw.shuffled(range(5))
    warm = [draw.uniform(12, 30) for _ in order]
    cool = [draw.uniform(-2, 2) for _ in order]

    def world(number: int) -> Scene:
        return heated(base, {i: warm[i] if order[i] < number else cool[i] for i in range(5)})

    return Asked("How many of the objects are warm?", (), NUMBERS, two(world(a + 1), world(b + 1)))


def against(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 1 + draw.integer(3)
    colours, asked = draw.sample(list(COLOURS), number), draw.integer(number)
    base = stage.row(draw.sub("row"), scene, colours)
    above, below = draw.uniform(8, 25), -draw.uniform(6, 12)

    def world(answer: int) -> Scene:
        return heated(base, {asked: above if answer == 0 else below})

    return Asked(
        "Is the {} object warmer or colder than the room?",
        (colours[asked],),
        ("warmer", "colder"),
        two(world(a), world(b)),
    )


TYPES = (
    QuestionType("thermal_hottest", ("video", "thermal"), ("thermal",), 3, hottest),
    QuestionType("thermal_side", ("thermal",), ("thermal",), 3, side),
    QuestionType("thermal_taken", ("thermal",), ("thermal",), 2, taken),
    QuestionType("thermal_count", ("thermal",), ("thermal",), len(NUMBERS), count),
    QuestionType("thermal_against", ("video", "thermal"), ("thermal",), 2, against),
)

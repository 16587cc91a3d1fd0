"""Types that the flow answers. Things (or the camera) move to and fro in step with the shutter: the
pictures show them always in the same place, the flow shows how they move there."""

from __future__ import annotations

from dataclasses import replace

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, FOCAL, SIZE, Camera, Scene, Thing, Vector
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, two

WAYS: dict[str, Vector] = {  # world
    "left": (-1.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0),
    "up": (0.0, 0.0, 1.0),
    "down": (0.0, 0.0, -1.0),
}
_WORLDS = ("the camera", "an object", "both", "nothing")


def darting(thing: Thing, way: str, widths: float) -> Thing:
    """The thing moving that way, at picture widths per second."""
    speed = widths * thing.solid.centre[1] * SIZE / FOCAL
    x, y, z = WAYS[way]
    return replace(thing, dart=(x * speed, y * speed, z * speed))


def _still(draw: Draw, scene: Scene, colours: list[str]) -> Scene:
    found = stage.row(draw.sub("row"), scene, colours, moves=False)
    return replace(found, camera=replace(found.camera, drift=0.0))


def direction(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    ways, number = list(WAYS), 1 + draw.integer(3)
    colours = draw.sample(list(COLOURS), number)
    base, asked = _still(draw, scene, colours), draw.integer(number)
    speed = draw.uniform(0.3, 1.0)

    def world(way: str) -> Scene:
        return stage.swapped(base, {asked: darting(base.things[asked], way, speed)})

    return Asked(
        "Which way is the {} object moving?",
        (colours[asked],),
        tuple(ways),
        two(world(ways[a]), world(ways[b])),
    )


def fastest(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 3)
    base, named = _still(draw, scene, colours), draw.shuffled(colours)
    ways = [draw.choice(list(WAYS)) for _ in colours]
    slow, middle, fast = draw.uniform(0.05, 0.12), draw.uniform(0.2, 0.3), draw.uniform(0.6, 1.2)
    third = next(i for i in range(3) if i not in (a, b))

    def world(first: int, last: int) -> Scene:
        speeds = {named[first]: fast, named[last]: slow, named[third]: middle}
        things = enumerate(base.things)
        return stage.swapped(base, {i: darting(t, ways[i], speeds[t.colour]) for i, t in things})

    return Asked(
        "Which object moves fastest, the {}, the {} or the {} one?",
        tuple(named),
        tuple(named),
        two(world(a, b), world(b, a)),
    )


def what(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 1 + draw.integer(3))
    base = _still(draw, scene, colours)
    asked, way = draw.integer(len(colours)), draw.choice(list(WAYS))
    side = draw.choice((-1, 1))
    turns = draw.chance(0.5)
    speed, pace = draw.uniform(0.5, 1.0), draw.uniform(0.25, 0.5)

    def world(answer: int) -> Scene:
        found = base
        if answer in (0, 2):
            move = replace(base.camera, turn=side * pace) if turns else _sliding(base, side * pace)
            found = replace(found, camera=move)
        if answer in (1, 2):
            found = stage.swapped(found, {asked: darting(found.things[asked], way, speed)})
        return found

    return Asked(
        "What is moving, the camera, an object, both or nothing?",
        (),
        _WORLDS,
        two(world(a), world(b)),
    )


def _sliding(scene: Scene, pace: float) -> Camera:
    return replace(scene.camera, dart=(3 * pace, 0.0, 0.0))


def same(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    number = 2 + draw.integer(2)
    colours = draw.sample(list(COLOURS), number)
    base = _still(draw, scene, colours)
    asked = draw.sample(range(number), 2)
    way, other = draw.sample(list(WAYS), 2)
    speeds = [draw.uniform(0.3, 0.9) for _ in range(number)]

    def world(answer: int) -> Scene:
        ways = {asked[0]: way, asked[1]: way if answer == 0 else other}
        moved = {i: darting(base.things[i], w, speeds[i]) for i, w in ways.items()}
        return stage.swapped(base, moved)

    return Asked(
        "Do the {} and the {} object move the same way?",
        tuple(colours[i] for i in asked),
        YES_NO,
        two(world(a), world(b)),
    )


TYPES = (
    QuestionType("flow_direction", ("flow",), ("flow",), len(WAYS), direction),
    QuestionType("flow_fastest", ("video", "flow"), ("flow",), 3, fastest),
    QuestionType("flow_what", ("flow",), ("flow",), len(_WORLDS), what),
    QuestionType("flow_same", ("video", "flow"), ("flow",), 2, same),
)

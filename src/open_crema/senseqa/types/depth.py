"""Types that the depth answers. A thing that hangs in the air and is moved away from the camera
looks the same if it grows as much: same pictures, same normals, another distance."""

from __future__ import annotations

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, Scene
from open_crema.senseqa.types.base import YES_NO, Asked, QuestionType, two

SIDES = ("left", "middle", "right")
_BASE = 2.0  # metres, where `stage.floating` hangs things


def at_distances(scene: Scene, metres: dict[int, float]) -> Scene:
    """The scene with things that many metres ahead."""
    moved = {i: stage.moved_off(scene.things[i], scene, m / _BASE) for i, m in metres.items()}
    return stage.swapped(scene, moved)


def nearer(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 2)
    base, named = stage.floating(draw.sub("row"), scene, colours), draw.shuffled(colours)
    near, far = draw.uniform(1.5, 2.2), draw.uniform(2.6, 3.2)

    def world(answer: int) -> Scene:
        first = colours.index(named[answer])
        return at_distances(base, {first: near, 1 - first: far})

    return Asked(
        "Which object is nearer to the camera, the {} or the {} one?",
        tuple(named),
        tuple(named),
        two(world(a), world(b)),
    )


def farthest(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base = stage.floating(draw.sub("row"), scene, draw.sample(list(COLOURS), 3))
    near, middle, far = draw.uniform(1.5, 1.9), draw.uniform(2.1, 2.4), draw.uniform(2.8, 3.2)
    third = next(i for i in range(3) if i not in (a, b))

    def world(last: int, first: int) -> Scene:
        return at_distances(base, {last: far, first: near, third: middle})

    return Asked(
        "Where is the object that is farthest from the camera, on the left, in the middle or on "
        "the right?",
        (),
        SIDES,
        two(world(a, b), world(b, a)),
    )


def gap(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    colours = draw.sample(list(COLOURS), 2)
    base, first = stage.floating(draw.sub("row"), scene, colours), draw.integer(2)
    near, wide, small = draw.uniform(1.5, 1.9), draw.uniform(1.3, 1.5), draw.uniform(0.3, 0.6)

    def world(answer: int) -> Scene:
        far = near + (wide if answer == 0 else small)
        return at_distances(base, {first: near, 1 - first: far})

    return Asked(
        "Is one of the two objects more than a metre farther away than the other?",
        (),
        YES_NO,
        two(world(a), world(b)),
    )


def larger(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    """They look about as large as each other, so the one farther away is larger."""
    colours = draw.sample(list(COLOURS), 2)
    shape = draw.choice(("ball", "cube", "cylinder", "cone", "pyramid"))
    base = stage.floating(
        draw.sub("row"), scene, colours, shapes=[shape, shape], apparent=draw.uniform(0.07, 0.1)
    )
    named = draw.shuffled(colours)
    near, far = draw.uniform(1.5, 2.0), draw.uniform(2.7, 3.2)

    def world(answer: int) -> Scene:
        large = colours.index(named[answer])
        return at_distances(base, {large: far, 1 - large: near})

    return Asked(
        "Which object is really larger, the {} or the {} one?",
        tuple(named),
        tuple(named),
        two(world(a), world(b)),
    )


TYPES = (
    QuestionType("depth_nearer", ("video", "depth"), ("depth",), 2, nearer),
    QuestionType("depth_farthest", ("depth",), ("depth",), 3, farthest),
    QuestionType("depth_gap", ("depth",), ("depth",), 2, gap),
    QuestionType("depth_larger", ("video", "depth"), ("depth",), 2, larger),
)

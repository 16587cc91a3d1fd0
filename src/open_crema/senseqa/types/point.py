"""Types that the scan answers: what stands in the room where the camera does not look."""

from __future__ import annotations

from dataclasses import replace

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, FURNITURE, Scene
from open_crema.senseqa.types.base import Asked, QuestionType, two
from open_crema.senseqa.types.video import NUMBERS

HERE = "You stand where the camera stands and look where it looks."
_AROUND = ("front", "left", "behind", "right")  # against the clock, seen from above
_SIDE_OF_YOU = {"left": "on your left", "right": "on your right", "behind": "behind you"}

Piece = tuple[str, str, str]  # place, kind, colour


def _toys(draw: Draw, scene: Scene) -> Scene:
    return stage.row(draw.sub("row"), scene, draw.sample(list(COLOURS), 1 + draw.integer(4)))


def _furnished(draw: Draw, scene: Scene, pieces: list[Piece], front: str | None = None) -> Scene:
    found = stage.furniture(draw.sub("furniture"), scene.room, pieces, front=front)
    return replace(scene, fixtures=found)


def _others(draw: Draw, place: str) -> list[Piece]:
    """Pieces for the other two places, of any kind and colour."""
    places = [other for other in stage.PLACES if other != place]
    return [(p, draw.choice(FURNITURE), draw.choice(list(COLOURS))) for p in places]


def behind(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, colour = _toys(draw, scene), draw.choice(list(COLOURS))
    rest = _others(draw, "behind")

    def world(answer: int) -> Scene:
        return _furnished(draw, base, [("behind", FURNITURE[answer], colour), *rest])

    return Asked("What is behind you?", (), FURNITURE, two(world(a), world(b)), HERE)


def colour(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, place = _toys(draw, scene), draw.choice(stage.PLACES)
    names, kind = list(COLOURS), draw.choice(FURNITURE)
    rest = _others(draw, place)

    def world(answer: int) -> Scene:
        return _furnished(draw, base, [(place, kind, names[answer]), *rest])

    return Asked(
        "What colour is the piece of furniture {}?",
        (_SIDE_OF_YOU[place],),
        tuple(names),
        two(world(a), world(b)),
        HERE,
    )


def side(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, places = _toys(draw, scene), stage.PLACES
    asked, *kinds = draw.sample(FURNITURE, 3)
    front = draw.choice([kind for kind in stage.SHALLOW if kind != asked])
    colours = [draw.choice(list(COLOURS)) for _ in places]

    def world(answer: int) -> Scene:
        others = iter(kinds)
        pieces = [
            (p, asked if i == answer else next(others), colours[i]) for i, p in enumerate(places)
        ]
        return _furnished(draw, base, pieces, front=front)

    return Asked(
        "On which side of you is the {}, on the left, on the right or behind you?",
        (asked,),
        places,
        two(world(a), world(b)),
        HERE,
    )


def count(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, order = _toys(draw, scene), draw.shuffled(stage.PLACES)
    pieces = [(p, draw.choice(FURNITURE), draw.choice(list(COLOURS))) for p in order]
    return Asked(
        "How many pieces of furniture are beside and behind you?",
        (),
        NUMBERS[:3],
        two(
            _furnished(draw, base, pieces[: a + 1]),
            _furnished(draw, base, pieces[: b + 1]),
        ),
        HERE,
    )


def turned(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    """Left, right and behind are those of somebody who faces a piece of furniture."""
    base, faced = _toys(draw, scene), draw.choice(FURNITURE)
    kinds = tuple(kind for kind in FURNITURE if kind != faced)
    sides = [i for i, p in enumerate(_AROUND) if p != "front" or faced in stage.SHALLOW]
    at = draw.choice(sides)
    turn = draw.choice([i for i in (1, 2, 3) if (at + i) % 4 != 0])
    asked = _AROUND[(at + turn) % 4]
    colours = [draw.choice(list(COLOURS)) for _ in _AROUND]
    fill = [draw.choice(kinds) for _ in _AROUND]
    front = faced if at == 0 else draw.choice([kind for kind in kinds if kind in stage.SHALLOW])

    def world(answer: int) -> Scene:
        pieces = [
            (
                place,
                faced if i == at else kinds[answer] if place == asked else fill[i],
                colours[i],
            )
            for i, place in enumerate(_AROUND)
            if place != "front"
        ]
        return _furnished(draw, base, pieces, front=front)

    return Asked(
        "What is {}?",
        (_SIDE_OF_YOU[_AROUND[turn]],),
        kinds,
        two(world(a), world(b)),
        f"You stand in the middle of the room and face the {faced}.",
    )


TYPES = (
    QuestionType("point_behind", ("point",), ("point",), len(FURNITURE), behind),
    QuestionType("point_colour", ("point",), ("point",), len(COLOURS), colour),
    QuestionType("point_side", ("point",), ("point",), len(stage.PLACES), side),
    QuestionType("point_count", ("point",), ("point",), 3, count),
    QuestionType("point_turned", ("point",), ("point",), len(FURNITURE) - 1, turned),
)

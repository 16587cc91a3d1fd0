"""Scenes before anything is asked: a furnished room with something random for every sense.

What a question is about is put in by its type. Everything else stays as it is drawn here, so that
a sense is never silent just because nothing is asked of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from open_crema.senseqa.draw import Draw
from open_crema.senseqa.furniture import furnish, reach
from open_crema.senseqa.scene import (
    COLOURS,
    FURNITURE,
    PLAIN,
    SECONDS,
    SHAPES,
    STILL,
    Camera,
    Contact,
    Fixture,
    Light,
    Pattern,
    Relief,
    Rgb,
    Room,
    Scene,
    Solid,
    Thing,
    Vector,
)
from open_crema.senseqa.sounds import VOICES, Note
from open_crema.senseqa.touch import TEXTURES

_ACROSS = 0.5  # of the picture's 0.577: tangent of the angle up to which things stand
_WIDEST = 0.17  # tangent of half the angle that a thing fills
_IN_A_ROW, _IN_ROWS = 4, 0.085  # things; the same tangent, where there are two rows
_ROUND = 1.25  # what a turned cube's corner reaches, in its half width
_PAINT: tuple[Rgb, ...] = (  # walls and floors: no colour that a thing has
    (0.55, 0.52, 0.48),
    (0.45, 0.47, 0.50),
    (0.62, 0.58, 0.50),
    (0.40, 0.38, 0.36),
    (0.50, 0.54, 0.52),
    (0.66, 0.64, 0.62),
)
_WOOD: tuple[Rgb, ...] = ((0.42, 0.30, 0.20), (0.35, 0.33, 0.32), (0.55, 0.44, 0.33))
SHALLOW = tuple(kind for kind in FURNITURE if kind != "bed")  # it would reach the things
PLACES = ("left", "right", "behind")  # out of the camera's sight, all of them


@dataclass(frozen=True)
class Column:
    """A thing's place: tangents of the angles to its middle and to half its width, metres, and the
    tangent that it may wander to either side without meeting its neighbours."""

    across: float
    width: float
    distance: float
    slack: float


def empty(draw: Draw, frames: int) -> Scene:
    """A furnished room without things. draw: the stream of one group of questions."""
    look = draw.sub("room")
    room = Room(
        half_width=look.uniform(2.6, 3.4),
        front=look.uniform(4.9, 5.6),
        back=look.uniform(3.6, 4.6),
        height=look.uniform(2.7, 3.1),
        floor=look.choice(_PAINT),
        wall=look.choice(_PAINT),
        floor_pattern=_pattern(look, ("plain", "checks", "stripes", "mottled"), 0.16, (2.0, 6.0)),
        wall_pattern=_pattern(look, ("plain", "stripes", "spots", "mottled"), 0.10, (1.5, 5.0)),
        celsius=look.uniform(19.0, 23.0),
    )
    camera = Camera(
        height=look.uniform(1.4, 1.6),
        pitch=look.uniform(0.12, 0.2),
        drift=look.uniform(-0.012, 0.012),
    )
    light = Light(
        towards=(look.uniform(-0.8, 0.8), look.uniform(-1.0, -0.3), look.uniform(0.5, 1.0)),
        ambient=look.uniform(0.55, 0.75),
        tint=(look.uniform(0.93, 1.0), look.uniform(0.95, 1.0), look.uniform(0.9, 1.0)),
    )
    texture = draw.sub("touch").choice(TEXTURES)
    return Scene(
        seed=draw.name,
        times=tuple(i * SECONDS / frames for i in range(frames)),
        room=room,
        camera=camera,
        light=light,
        things=(),
        fixtures=furniture(draw.sub("furniture"), room),
        notes=tune(draw.sub("tune")),
        contacts=(Contact(texture, draw.sub("touch", "angle").uniform(0.0, np.pi)),) * frames,
        cues=(frozenset(),) * frames,
        grain=look.uniform(1.5, 5.0),
    )


def furniture(
    draw: Draw,
    room: Room,
    wanted: Sequence[tuple[str, str, str]] | None = None,
    *,
    front: str | None = None,
) -> tuple[Fixture, ...]:
    """At most one piece before the wall that the camera sees, wooden or grey, and others out of
    sight. wanted: (place, kind, colour) of the latter; front: kind of the former, one of SHALLOW;
    both by default drawn."""
    found = []
    ahead = draw.sub("front")
    if ahead.chance(0.7) or front is not None:
        kind, rgb = front or ahead.choice(SHALLOW), ahead.choice(_WOOD)
        found.append(_against("front", kind, "wooden", rgb, room, ahead))
    if wanted is None:
        hidden = draw.sub("hidden")
        places = hidden.sample(PLACES, 1 + hidden.integer(3))
        kinds = hidden.sample(FURNITURE, len(places))
        wanted = list(zip(places, kinds, hidden.sample(list(COLOURS), len(places)), strict=True))
    for place, kind, colour in wanted:
        found.append(_against(place, kind, colour, COLOURS[colour], room, draw.sub(place)))
    return tuple(found)


def _against(place: str, kind: str, colour: str, rgb: Rgb, room: Room, draw: Draw) -> Fixture:
    """A piece with its back to one of the walls, at a random place along it."""
    gap, along = reach(kind) + 0.1, draw.uniform()
    if place == "front":
        at, facing = (-1.4 + 2.8 * along, room.front - gap), 0.0
    elif place == "behind":
        at, facing = (-0.8 + 1.6 * along, gap - room.back), np.pi
    elif place == "left":
        at, facing = (gap - room.half_width, -0.9 + 1.1 * along), np.pi / 2
    else:
        at, facing = (room.half_width - gap, -0.9 + 1.1 * along), -np.pi / 2
    return furnish(kind, place, at, facing, colour, rgb, draw.integer(1 << 30))


def tune(draw: Draw) -> tuple[Note, ...]:
    """A few notes of one or two voices."""
    voices = draw.sample(VOICES, 1 + draw.integer(2))
    onsets = sorted(draw.sample([0.1 + 0.6 * i for i in range(6)], 2 + draw.integer(3)))
    return tuple(
        Note(draw.choice(voices), on, 0.4, draw.uniform(220, 600), draw.uniform(0.4, 1.0))
        for on in onsets
    )


def columns(
    draw: Draw, count: int, *, near: float = 2.3, far: float = 3.1, widest: float = _WIDEST
) -> list[Column]:
    """Places side by side, from left to right, whose outlines do not meet: up to four in one row;
    more in two, the nearer row first. How large a thing looks says nothing of how far it is."""
    if count > _IN_A_ROW:
        half = (count + 1) // 2
        front = columns(draw.sub("front"), half, near=2.15, far=2.3, widest=_IN_ROWS)
        return [
            *front,
            *columns(draw.sub("rear"), count - half, near=3.2, far=3.4, widest=_IN_ROWS),
        ]
    slot = 2 * _ACROSS / count
    found = []
    for number in range(count):
        width = draw.uniform(0.6, 0.78) * min(slot / 2, widest / 0.78)
        room = slot / 2 - _ROUND * width
        middle = -_ACROSS + slot * (number + 0.5) + 0.6 * room * draw.uniform(-1, 1)
        found.append(Column(middle, width, draw.uniform(near, far), 0.4 * room))
    return found


def standing(
    draw: Draw, column: Column, shape: str, colour: str, room: Room, *, moves: bool = True
) -> Thing:
    """A thing on the floor, of random looks and temperature. moves: whether it may drift."""
    half = column.width * column.distance
    x, y, z = _PROPORTIONS[shape]
    centre = (column.across * column.distance, column.distance, z * half)
    drift = draw.uniform(-1, 1) * column.slack * column.distance / SECONDS
    solid = Solid(
        shape,
        centre,
        (x * half, y * half, z * half),
        draw.uniform(-0.5, 0.5) if shape == "ring" else draw.uniform(0.0, 2 * np.pi),
        COLOURS[colour],
        _pattern(draw, ("plain", "plain", "stripes", "spots", "mottled"), 0.14, (2.0, 4.0)),
    )
    celsius = room.celsius + draw.choice((draw.uniform(-1, 1), draw.uniform(8, 30)))
    return Thing(solid, colour, (drift, 0.0, 0.0) if moves else STILL, STILL, celsius)


_PROPORTIONS: dict[str, Vector] = {
    "ball": (1.0, 1.0, 1.0),
    "cube": (0.8, 0.8, 0.8),
    "cylinder": (0.75, 0.75, 1.0),
    "cone": (0.95, 0.95, 1.1),
    "pyramid": (0.85, 0.85, 1.0),
    "ring": (1.0, 1.0, 1.0),
}


def row(
    draw: Draw,
    scene: Scene,
    colours: Sequence[str],
    shapes: Sequence[str] | None = None,
    *,
    moves: bool = True,
) -> Scene:
    """The scene with things of these colours (and shapes, else drawn) from left to right."""
    count = len(colours)
    shapes = [draw.choice(SHAPES) for _ in range(count)] if shapes is None else shapes
    places = columns(draw.sub("columns"), count)
    things = tuple(
        standing(draw.sub("thing", i), places[i], shapes[i], colours[i], scene.room, moves=moves)
        for i in range(count)
    )
    return replace(scene, things=things)


def floating(
    draw: Draw,
    scene: Scene,
    colours: Sequence[str],
    shapes: Sequence[str] | None = None,
    *,
    apparent: float | None = None,
) -> Scene:
    """Things that hang in the air at 2 m; :func:`moved_off` takes them elsewhere unseen. apparent:
    tangent of half the angle that each fills (default: drawn for each)."""
    shapes = [draw.choice(SHAPES) for _ in colours] if shapes is None else shapes
    places = columns(draw.sub("columns"), len(colours), near=2.0, far=2.0, widest=0.13)
    things = []
    for i, (place, colour) in enumerate(zip(places, colours, strict=True)):
        if apparent is not None:
            place = replace(place, width=apparent * draw.uniform(0.93, 1.07))
        thing = standing(draw.sub("thing", i), place, shapes[i], colour, scene.room, moves=False)
        x, y, _ = thing.solid.centre
        height = scene.camera.height + y * draw.uniform(-0.2, 0.1)
        solid = replace(thing.solid, centre=(x, y, height))
        things.append(replace(thing, solid=solid, grounded=False))
    return replace(scene, things=tuple(things), camera=replace(scene.camera, drift=0.0))


def moved_off(thing: Thing, scene: Scene, factor: float) -> Thing:
    """The thing that many times as far from the camera, and as large: it looks the same."""
    x, y, z = thing.solid.centre
    eye = scene.camera.height
    a, b, c = thing.solid.half
    centre = (x * factor, y * factor, eye + (z - eye) * factor)
    half = (a * factor, b * factor, c * factor)
    return replace(thing, solid=replace(thing.solid, centre=centre, half=half))


def panels(draw: Draw, scene: Scene, colours: Sequence[str]) -> Scene:
    """The scene with upright boards that face the camera, from left to right."""
    places = columns(draw.sub("columns"), len(colours), widest=0.16)
    things = []
    for i, (place, colour) in enumerate(zip(places, colours, strict=True)):
        own = draw.sub("thing", i)
        half = place.width * place.distance * 1.15
        centre = (place.across * place.distance, place.distance, half + own.uniform(0.0, 0.4))
        solid = Solid("panel", centre, (half, 0.03, half), 0.0, COLOURS[colour], PLAIN)
        celsius = scene.room.celsius + own.uniform(-1, 10)
        things.append(Thing(solid, colour, celsius=celsius, grounded=False, relief=Relief()))
    return replace(scene, things=tuple(things), camera=replace(scene.camera, drift=0.0))


def swapped(scene: Scene, changes: dict[int, Thing]) -> Scene:
    """The scene with some of its things replaced."""
    things = tuple(changes.get(i, thing) for i, thing in enumerate(scene.things))
    return replace(scene, things=things)


def painted(thing: Thing, colour: str) -> Thing:
    """The same thing in another colour."""
    return replace(thing, colour=colour, solid=replace(thing.solid, colour=COLOURS[colour]))


def _pattern(
    draw: Draw, kinds: Sequence[str], strength: float, scales: tuple[float, float]
) -> Pattern:
    kind = draw.choice(kinds)
    return Pattern(
        kind, strength * draw.uniform(0.4, 1.0), draw.uniform(*scales), draw.integer(1 << 30)
    )

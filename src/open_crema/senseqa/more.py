"""More questions about a scene, of the same types and in the same words: for training, where
several questions of one clip cost hardly more than one.

Unlike those of a set they come without pairs, and what they ask follows what the scene happens to
hold. Answers are worked out from the scene.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from open_crema.senseqa.captions import distance, from_left, velocity, way
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, FURNITURE, SHAPES, Scene, Thing
from open_crema.senseqa.sounds import VOICES
from open_crema.senseqa.stage import PLACES
from open_crema.senseqa.touch import TEXTURES
from open_crema.senseqa.types import TYPES
from open_crema.senseqa.types.base import YES_NO
from open_crema.senseqa.types.depth import SIDES
from open_crema.senseqa.types.point import HERE
from open_crema.senseqa.types.video import NUMBERS


@dataclass(frozen=True)
class Fact:
    """A question of a type with its answer and all the answers that it leaves open."""

    type: str
    text: str
    answer: str
    candidates: tuple[str, ...]

    @property
    def needs(self) -> tuple[str, ...]:
        return TYPES[self.type].needs


def facts(scene: Scene, draw: Draw) -> list[Fact]:
    """All that is asked about a scene; draw: of the order in which things are named, and of what is
    asked for that is not there."""
    found = []
    for i, ask in enumerate(_ASK):
        found += list(ask(scene, from_left(scene), draw.sub("more", i)))
    return found


def _yes(value: bool) -> str:
    return YES_NO[0] if value else YES_NO[1]


def _unique(things: Sequence[Thing]) -> list[Thing]:
    """Things that their colour names."""
    count = Counter(t.colour for t in things)
    return [t for t in things if count[t.colour] == 1]


def _video(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    shapes = Counter(t.shape for t in things)
    solid = [t for t in things if t.shape != "panel"]
    for thing in solid:
        if shapes[thing.shape] == 1:
            yield Fact(
                "video_colour",
                f"What colour is the {thing.shape}?",
                thing.colour,
                tuple(COLOURS),
            )
        if thing in _unique(things):
            yield Fact(
                "video_shape", f"What shape is the {thing.colour} object?", thing.shape, SHAPES
            )
    colours = Counter(t.colour for t in solid)
    for colour, number in colours.items():
        if number <= len(NUMBERS):
            yield Fact(
                "video_count", f"How many {colour} objects are there?", NUMBERS[number - 1], NUMBERS
            )
    for one, other in combinations(_unique(solid), 2):
        if draw.chance(0.5):
            text = "Is the {} object to the left or to the right of the {} object?"
            a, b = (one, other) if draw.chance(0.5) else (other, one)
            yield Fact(
                "video_side",
                text.format(a.colour, b.colour),
                "left" if a is one else "right",
                ("left", "right"),
            )
    if solid:
        there = {(t.colour, t.shape) for t in solid}
        thing = draw.choice(solid)
        yield Fact("video_exists", _is_there(thing.colour, thing.shape), "yes", YES_NO)
        wrong = (thing.colour, draw.choice(solid).shape)
        if wrong in there:
            wrong = (thing.colour, draw.choice(SHAPES))
        if wrong not in there:
            yield Fact("video_exists", _is_there(*wrong), "no", YES_NO)


def _is_there(colour: str, shape: str) -> str:
    return f"Is there {'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}?"


def _audio(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    notes = sorted(scene.notes, key=lambda n: n.onset)
    voices = list(dict.fromkeys(n.voice for n in notes))
    if len(voices) == 1:
        yield Fact("audio_voice", "Which instrument is heard?", voices[0], VOICES)
        yield Fact("audio_count", "How many notes are heard?", NUMBERS[len(notes) - 1], NUMBERS)
        pitches = [n.pitch for n in notes]
        if len(notes) > 2 and pitches in (sorted(pitches), sorted(pitches)[::-1]):
            up = pitches[0] < pitches[-1]
            yield Fact(
                "audio_melody",
                "Does the tune go up or down?",
                "up" if up else "down",
                ("up", "down"),
            )
    if len(voices) == 2:
        named = draw.shuffled(voices)
        text = f"Which is heard first, the {named[0]} or the {named[1]}?"
        yield Fact("audio_first", text, voices[0], tuple(named))
        loud = {v: max(n.gain for n in notes if n.voice == v) for v in voices}
        if max(loud.values()) > 2 * min(loud.values()):
            named = draw.shuffled(voices)
            text = f"Which is louder, the {named[0]} or the {named[1]}?"
            yield Fact("audio_loudest", text, max(loud, key=loud.__getitem__), tuple(named))


def _flow(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    camera = any(scene.camera.dart) or bool(scene.camera.turn)
    moving = [t for t in _unique(things) if any(t.dart)]
    speed = {id(t): math.hypot(*velocity(t)) for t in things}
    ways = ("left", "right", "up", "down")
    if not camera:
        for thing in moving:
            text = f"Which way is the {thing.colour} object moving?"
            yield Fact("flow_direction", text, way(*velocity(thing)), ways)
        if len(moving) == 3:
            named = draw.shuffled(moving)
            fast = sorted(named, key=lambda t: speed[id(t)])
            if speed[id(fast[2])] > 1.5 * speed[id(fast[1])]:
                a, b, c = (t.colour for t in named)
                text = f"Which object moves fastest, the {a}, the {b} or the {c} one?"
                yield Fact("flow_fastest", text, fast[2].colour, (a, b, c))
        for one, other in combinations(moving, 2):
            text = f"Do the {one.colour} and the {other.colour} object move the same way?"
            same = way(*velocity(one)) == way(*velocity(other))
            yield Fact("flow_same", text, _yes(same), YES_NO)
    if camera or (moving and all(any(t.dart) or not any(t.drift) for t in things)):
        what = ("the camera", "an object", "both", "nothing")
        answer = what[2 if camera and moving else 0 if camera else 1]
        text = "What is moving, the camera, an object, both or nothing?"
        yield Fact("flow_what", text, answer, what)


def _depth(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    if any(t.grounded or t.shape == "panel" for t in things):
        return  # the picture would tell
    for one, other in combinations(_unique(things), 2):
        named = draw.shuffled([one, other])
        a, b = (t.colour for t in named)
        if abs(distance(one) - distance(other)) > 0.3:
            text = f"Which object is nearer to the camera, the {a} or the {b} one?"
            yield Fact("depth_nearer", text, min(named, key=distance).colour, (a, b))
        halves = [max(t.solid.half) for t in named]
        if max(halves) > 1.3 * min(halves):
            text = f"Which object is really larger, the {a} or the {b} one?"
            answer = named[halves.index(max(halves))].colour
            yield Fact("depth_larger", text, answer, (a, b))
    metres = [distance(t) for t in things]
    if len(things) == 3 and max(metres) - sorted(metres)[1] > 0.3:
        text = (
            "Where is the object that is farthest from the camera, on the left, in the middle or "
            "on the right?"
        )
        yield Fact("depth_farthest", text, SIDES[metres.index(max(metres))], SIDES)
    if len(things) == 2 and not 0.7 < abs(metres[0] - metres[1]) < 1.2:
        text = "Is one of the two objects more than a metre farther away than the other?"
        yield Fact("depth_gap", text, _yes(abs(metres[0] - metres[1]) > 1), YES_NO)


def _normal(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    boards = [t for t in things if t.relief is not None]
    slatted = [t for t in boards if t.relief is not None and t.relief.tilt is not None]
    for board in boards:
        assert board.relief is not None
        if board.relief.tilt is not None:
            text = f"Which way do the slats of the {board.colour} board face?"
            yield Fact("normal_tilt", text, board.relief.tilt, ("left", "right", "up", "down"))
        if board.relief.bulge:
            text = f"Is the mark on the {board.colour} board raised or sunken?"
            answer = "raised" if board.relief.bulge > 0 else "sunken"
            yield Fact("normal_bulge", text, answer, ("raised", "sunken"))
    tilts = [t.relief.tilt for t in slatted if t.relief is not None]
    for i, j in combinations(range(len(slatted)), 2):
        a, b = slatted[i].colour, slatted[j].colour
        text = f"Do the slats of the {a} and the {b} board face the same way?"
        yield Fact("normal_same", text, _yes(tilts[i] == tilts[j]), YES_NO)
    odd = [i for i, tilt in enumerate(tilts) if tilts.count(tilt) == 1]
    if len(slatted) == 3 and len(odd) == 1:
        text = (
            "The slats of one board face another way than those of the two others. Is it the board "
            "on the left, in the middle or on the right?"
        )
        yield Fact("normal_odd", text, SIDES[odd[0]], SIDES)


_ON_SIDE = {"left": "on your left", "right": "on your right", "behind": "behind you"}


def _point(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    around = {f.place: f for f in scene.fixtures if f.place in PLACES}
    if "behind" in around:
        yield Fact("point_behind", f"{HERE} What is behind you?", around["behind"].kind, FURNITURE)
    for place, fixture in around.items():
        text = f"{HERE} What colour is the piece of furniture {_ON_SIDE[place]}?"
        yield Fact("point_colour", text, fixture.colour, tuple(COLOURS))
        kinds = [f.kind for f in scene.fixtures]
        if kinds.count(fixture.kind) == 1:
            text = (
                f"{HERE} On which side of you is the {fixture.kind}, on the left, on the right or "
                "behind you?"
            )
            yield Fact("point_side", text, place, PLACES)
    if around:
        text = f"{HERE} How many pieces of furniture are beside and behind you?"
        yield Fact("point_count", text, NUMBERS[len(around) - 1], NUMBERS[:3])


def _touch(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    touched = list(dict.fromkeys((c.thing, c.texture, c.angle) for c in scene.contacts))
    if any(thing is None or texture is None for thing, texture, _ in touched):
        return
    named = {scene.things[i].colour: str(texture) for i, texture, _ in touched if i is not None}
    colours = list(named)
    if len(named) == 1:
        text = f"The finger touches the {colours[0]} object. How does it feel?"
        yield Fact("touch_texture", text, named[colours[0]], TEXTURES)
        angle = touched[0][2]
        if named[colours[0]] == "ridged" and not 0.3 < abs(math.sin(angle)) < 0.95:
            runs = ("across", "up and down")
            text = "Do the ridges that the finger feels run across or up and down?"
            yield Fact("touch_ridges", text, runs[int(abs(math.sin(angle)) > 0.6)], runs)
    if len(named) == 2:
        a, b = colours
        text = f"The finger touches the {a}, then the {b} object. Do they feel the same?"
        yield Fact("touch_same", text, _yes(named[a] == named[b]), YES_NO)
    if len(named) == 3 and len(set(named.values())) == 3:
        for colour, texture in named.items():
            a, b, c = draw.shuffled(colours)
            text = (
                f"The finger touches three objects. Which one feels {texture}, the {a}, the {b} or "
                f"the {c} one?"
            )
            yield Fact("touch_which", text, colour, (a, b, c))


def _thermal(scene: Scene, things: Sequence[Thing], draw: Draw) -> Iterator[Fact]:
    above = {id(t): t.celsius - scene.room.celsius for t in things}
    heat = [above[id(t)] for t in things]
    unique = _unique(things)
    if len(things) == 3:
        top = sorted(heat)
        if top[2] - top[1] > 6:
            text = "Where is the hottest object, on the left, in the middle or on the right?"
            yield Fact("thermal_side", text, SIDES[heat.index(top[2])], SIDES)
            if len(unique) == 3:
                a, b, c = (t.colour for t in draw.shuffled(things))
                text = f"Which object is hottest, the {a}, the {b} or the {c} one?"
                answer = things[heat.index(top[2])].colour
                yield Fact("thermal_hottest", text, answer, (a, b, c))
    warm = sum(h > 7 for h in heat)
    if 1 <= warm <= 5 and not any(2 < h < 7.5 for h in heat):
        yield Fact("thermal_count", "How many of the objects are warm?", NUMBERS[warm - 1], NUMBERS)
    for thing in unique:
        if abs(above[id(thing)]) > 5:
            text = f"Is the {thing.colour} object warmer or colder than the room?"
            answer = "warmer" if above[id(thing)] > 0 else "colder"
            yield Fact("thermal_against", text, answer, ("warmer", "colder"))


_ASK: tuple[Callable[[Scene, Sequence[Thing], Draw], Iterator[Fact]], ...] = (
    _video,
    _audio,
    _flow,
    _depth,
    _normal,
    _point,
    _touch,
    _thermal,
)

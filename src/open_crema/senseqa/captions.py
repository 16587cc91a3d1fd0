"""What each sense shows of a scene, in words: what its adapter's query tokens are to say.

A caption is a list of words for each key frame (or one list, where a sense is one thing for the
whole clip), one word a query token. Words have fixed places: those of thing i, counted from the
left, are at 2 i and 2 i + 1; a place with nothing to say holds the sense's own filler, so that
nothing of one sense can be taken for nothing of another. All but the video's, whose tokens the
fusion leaves alone, are said softly (in parentheses): senses share one block, the sum of what they
say, and must not drown the one that speaks. What questions compare (which is nearest,
how many are warm) is said outright, and where it can be in the first token of the answer ("yes" if
two things move the same way, "an" for "an object"): a small LLM looks words up, but compares
numbers at chance, and is slow to learn that one word stands for another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from open_crema.senseqa.scene import FOCAL, SIZE, Scene, Thing
from open_crema.senseqa.stage import PLACES
from open_crema.senseqa.types.depth import SIDES
from open_crema.senseqa.types.video import NUMBERS

WORDS = 12  # a caption's length, and the number of query tokens that it is made for
FILLER = {
    "video": "empty",
    "audio": "(quiet)",
    "flow": "(still)",
    "depth": "(void)",
    "normal": "(flat)",
    "point": "(bare)",
    "touch": "(air)",
    "thermal": "(neutral)",
}
_SIX = 6  # things that fit with two words each

Caption = list[list[str]]


def caption(scene: Scene, sense: str) -> Caption:
    """Of one sense: a list of ``WORDS`` words for each key frame, or one list for the clip."""
    filler = FILLER[sense]
    found = []
    for said in _SAID[sense](scene):
        words = [filler] * WORDS
        for place, word in said.items():
            words[place] = word
        found.append(words)
    return found


def from_left(scene: Scene) -> list[Thing]:
    """Things in the order in which they are seen."""
    return sorted(scene.things, key=lambda t: t.solid.centre[0] / t.solid.centre[1])


def side(values: Sequence[float], apart: float) -> str | None:
    """Where the largest of three values is, if the next one is that far below."""
    top = sorted(values)
    if len(values) != 3 or top[-1] - top[-2] <= apart:
        return None
    return SIDES[values.index(top[-1])]


def ranks(values: Sequence[float], apart: float, words: tuple[str, str, str]) -> list[str]:
    """A word for each value: for one that lies so far below all others, for one that is between or
    alone, and for one that lies so far above all others."""
    least, between, most = words
    found = []
    for i, value in enumerate(values):
        others = [*values[:i], *values[i + 1 :]]
        below = others and value < min(others) - apart
        above = others and value > max(others) + apart
        found.append(least if below else most if above else between)
    return found


Said = dict[int, str]  # place -> word


def _video(scene: Scene) -> list[Said]:
    things = from_left(scene)
    row: Said = {}
    for i, thing in enumerate(things[:_SIX]):
        row[2 * i] = thing.colour
        row[2 * i + 1] = "board" if thing.shape == "panel" else thing.shape
    if len(things) > _SIX - 2:
        return [row]
    frames = []
    for contact, cue in zip(scene.contacts, scene.cues, strict=True):
        said = dict(row)
        if contact.thing is not None:
            said[8], said[9] = "finger", scene.things[contact.thing].colour
        sounding = [t.colour for t in things if any(scene.things[i] is t for i in cue)]
        said |= {10 + i: colour for i, colour in enumerate(sounding[:2])}
        frames.append(said)
    return frames


def _audio(scene: Scene) -> list[Said]:
    notes = sorted(scene.notes, key=lambda n: n.onset)
    said: Said = {1: NUMBERS[min(len(notes), 5) - 1]} if notes else {}
    for i, note in enumerate(notes[:5]):
        said[2 * i] = note.voice
    loudness: dict[str, float] = {}
    for note in notes:
        loudness[note.voice] = max(loudness.get(note.voice, 0.0), note.gain)
    if len(loudness) == 2 and max(loudness.values()) > 2 * min(loudness.values()):
        said[10] = max(loudness, key=loudness.__getitem__)
    pitches = [note.pitch for note in notes]
    if len(notes) > 2 and pitches in (sorted(pitches), sorted(pitches)[::-1]):
        said[11] = "up" if pitches[0] < pitches[-1] else "down"
    return [said]


_SLOW, _QUICK, _STILL = 0.16, 0.45, 0.03  # picture widths per second


def velocity(thing: Thing) -> tuple[float, float]:
    """Across (to the right) and up, in picture widths per second, as the flow shows it."""
    scale = FOCAL / (SIZE * thing.solid.centre[1])
    return (thing.dart[0] + thing.drift[0]) * scale, (thing.dart[2] + thing.drift[2]) * scale


def way(across: float, up: float) -> str:
    if abs(across) >= abs(up):
        return "right" if across > 0 else "left"
    return "up" if up > 0 else "down"


def _flow(scene: Scene) -> list[Said]:
    said: Said = {}
    for i, thing in enumerate(from_left(scene)[: _SIX - 1]):
        across, up = velocity(thing)
        speed = math.hypot(across, up)
        if speed > _STILL:
            said[2 * i] = way(across, up)
            said[2 * i + 1] = "slow" if speed < _SLOW else "steady" if speed < _QUICK else "fast"
    ways = [said[place] for place in said if place % 2 == 0]
    if any(scene.camera.dart) or scene.camera.turn:
        said[10] = "both" if ways else "the"  # camera
    else:
        said[10] = "an" if ways else "(nothing)"  # object
    if len(ways) == 2:
        said[11] = "yes" if ways[0] == ways[1] else "no"
    return [said]


def distance(thing: Thing) -> float:
    return thing.solid.centre[1]


_APART, _GAP = 0.25, 1.0  # metres
_LARGER = 1.25  # times


def _depth(scene: Scene) -> list[Said]:
    things = from_left(scene)[:_SIX]
    metres = [distance(thing) for thing in things]
    sizes = [math.log(max(thing.solid.half)) for thing in things]
    said: Said = {}
    for i, word in enumerate(ranks(metres, _APART, ("near", "between", "far"))):
        said[2 * i] = word
    for i, word in enumerate(ranks(sizes, math.log(_LARGER), ("small", "medium", "large"))):
        said[2 * i + 1] = word
    if len(things) == 2:
        said[10] = "yes" if max(metres) - min(metres) > _GAP else "no"
    if farthest := side(metres, _APART):
        said[11] = farthest
    return [said]


def _normal(scene: Scene) -> list[Said]:
    said: Said = {}
    tilts = []
    for i, thing in enumerate(from_left(scene)[: _SIX - 1]):
        if thing.relief is not None:
            if thing.relief.tilt is not None:
                said[2 * i] = thing.relief.tilt
                tilts.append(thing.relief.tilt)
            if thing.relief.bulge:
                said[2 * i + 1] = "raised" if thing.relief.bulge > 0 else "sunken"
    odd = [tilt for tilt in tilts if tilts.count(tilt) == 1]
    if len(tilts) == 3 and len(odd) == 1:
        said[10] = SIDES[tilts.index(odd[0])]
    if len(tilts) == 2:
        said[11] = "yes" if tilts[0] == tilts[1] else "no"
    return [said]


_PLACES = {"left": 0, "right": 3, "behind": 6, "front": 9}


def _point(scene: Scene) -> list[Said]:
    said: Said = {}
    for fixture in scene.fixtures:
        place = _PLACES.get(fixture.place, 9)
        front = place == 9
        said |= {
            place: "front" if front else fixture.place,
            place + 1: fixture.kind,
        }
        if not front:
            said[place + 2] = fixture.colour
    around = sum(fixture.place in PLACES for fixture in scene.fixtures)
    if around:
        said[11] = NUMBERS[around - 1]
    return [said]


def _touch(scene: Scene) -> list[Said]:
    frames = []
    for contact in scene.contacts:
        said: Said = {}
        if contact.texture is not None:
            said[10] = contact.texture
            if contact.texture == "ridged":
                upright = abs(math.sin(contact.angle)) > 0.5**0.5
                said[11] = "up" if upright else "across"
        frames.append(said)
    return frames


_COLD, _WARM, _HOTTER = -4.0, 5.0, 6.0  # degrees above the room; above all others


def _thermal(scene: Scene) -> list[Said]:
    things = from_left(scene)[:_SIX]
    above = [thing.celsius - scene.room.celsius for thing in things]
    said: Said = {}
    for i, degrees in enumerate(above):
        if degrees < _COLD:
            said[2 * i] = "colder"
        elif degrees > _WARM:
            said[2 * i] = "warmer"
    warm = sum(word == "warmer" for word in said.values())
    for i, word in enumerate(ranks(above, _HOTTER, ("", "", "hottest"))):
        if word:
            said[2 * i + 1] = word
    if len(things) < _SIX - 1:
        said[8] = "yes" if scene.spots else "(no)"
    if len(things) < _SIX:
        if hottest := side(above, _HOTTER):
            said[10] = hottest
        if warm:
            said[11] = NUMBERS[warm - 1]
    return [said]


_SAID: dict[str, Callable[[Scene], list[Said]]] = {
    "video": _video,
    "audio": _audio,
    "flow": _flow,
    "depth": _depth,
    "normal": _normal,
    "point": _point,
    "touch": _touch,
    "thermal": _thermal,
}

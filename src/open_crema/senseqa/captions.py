"""What each sense shows of a scene, in words: what its adapter's query tokens are to say.

A caption is a list of words for each key frame (or one list, where a sense is one thing for the
whole clip), one word a query token. Words have fixed places: those of thing i, counted from the
left, are at 2 i and 2 i + 1; a place with nothing to say holds the sense's own filler, so that
nothing of one sense can be taken for nothing of another.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from open_crema.senseqa.scene import FOCAL, SIZE, Scene, Thing

WORDS = 12  # a caption's length, and the number of query tokens that it is made for
FILLER = {
    "video": "empty",
    "audio": "quiet",
    "flow": "still",
    "depth": "void",
    "normal": "flat",
    "point": "bare",
    "touch": "air",
    "thermal": "neutral",
}
_SIX = 6  # things that fit with two words each
_LEVELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

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


def level(value: float, low: float, step: float) -> str:
    """A number as a word, from "zero" at ``low`` to "nine"."""
    return _LEVELS[min(max(math.floor((value - low) / step), 0), 9)]


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
    said: Said = {}
    for i, note in enumerate(notes[:5]):
        said[2 * i] = note.voice
        said[2 * i + 1] = level(math.log2(note.pitch / 200), 0.0, 0.25)
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
    if any(scene.camera.dart) or scene.camera.turn:
        said[10] = "camera"
    return [said]


def distance(thing: Thing) -> float:
    return thing.solid.centre[1]


def _depth(scene: Scene) -> list[Said]:
    things = from_left(scene)[:_SIX]
    said: Said = {}
    for i, thing in enumerate(things):
        said[2 * i] = level(distance(thing), 1.25, 0.25)
        said[2 * i + 1] = level(max(thing.solid.half), 0.06, 0.04)
    return [said]


def _normal(scene: Scene) -> list[Said]:
    said: Said = {}
    for i, thing in enumerate(from_left(scene)[:_SIX]):
        if thing.relief is not None:
            if thing.relief.tilt is not None:
                said[2 * i] = thing.relief.tilt
            if thing.relief.bulge:
                said[2 * i + 1] = "raised" if thing.relief.bulge > 0 else "sunken"
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


def _thermal(scene: Scene) -> list[Said]:
    room = scene.room.celsius
    things = from_left(scene)[:_SIX]
    said: Said = {}
    for i, thing in enumerate(things):
        above = thing.celsius - room
        word = "cold" if above < -4 else "warm" if above > 5 else None
        if word:
            said[2 * i] = "hot" if above > 19 else word
            said[2 * i + 1] = level(above, -12, 5)
    if len(things) < _SIX:
        spots = [spot.degrees for spot in scene.spots]
        if spots:
            said[10] = "mark"
            said[11] = "warm" if spots[0] > 0 else "cold"
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

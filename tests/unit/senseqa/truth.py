"""The answer to a question of each type, worked out from the maps, the masks, the notes and the
words of the question, by other means than those that the scenes were made by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from open_crema.senseqa.clips import Clip
from open_crema.senseqa.scene import COLOURS, FURNITURE
from open_crema.senseqa.sounds import VOICES
from open_crema.senseqa.touch import TEXTURES
from open_crema.senseqa.types import TYPES

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
SIDES = ("left", "middle", "right")


def named(clip: Clip, words: tuple[str, ...] = tuple(COLOURS)) -> list[str]:
    """Those of the words that the question holds, in its order."""
    return re.findall(r"\b(" + "|".join(words) + r")\b", clip.question.text)


def pooled(clip: Clip, sense: str, frame: int = 0) -> list[np.ndarray]:
    """The median of a sense's map over each thing, things in their order."""
    (maps,) = clip[sense].values()
    return [
        np.median(maps[frame][clip.mask[frame] == i + 1].astype(float), axis=0)
        for i in range(len(clip.scene.things))
    ]


def by_colour(clip: Clip, sense: str) -> dict[str, np.ndarray]:
    things = clip.scene.things
    assert len({t.colour for t in things}) == len(things)
    return dict(zip([t.colour for t in things], pooled(clip, sense), strict=True))


def from_left(clip: Clip) -> list[int]:
    """Things in the order in which they are seen."""
    return sorted(
        range(len(clip.scene.things)), key=lambda i: np.nonzero(clip.mask[0] == i + 1)[1].mean()
    )


def seen_colour(clip: Clip, thing: int) -> str:
    """The palette's colour nearest to a thing's pixels, brightness left out."""
    rgb = np.median(clip["video"]["rgb"][0][clip.mask[0] == thing + 1].astype(float), axis=0)
    rgb /= np.linalg.norm(rgb)
    palette = {c: np.array(v) / np.linalg.norm(v) for c, v in COLOURS.items()}
    return min(palette, key=lambda c: float(np.linalg.norm(palette[c] - rgb)))


def colours_seen(clip: Clip) -> list[str]:
    return [seen_colour(clip, i) for i in range(len(clip.scene.things))]


def yes(value: bool) -> str:
    return "yes" if value else "no"


# Video: colours as they are in the pixels.


def video_colour(clip: Clip) -> str:
    shape = clip.question.text.removeprefix("What colour is the ").rstrip("?")
    (thing,) = [i for i, t in enumerate(clip.scene.things) if t.shape == shape]
    return seen_colour(clip, thing)


def video_shape(clip: Clip) -> str:
    (thing,) = [i for i, c in enumerate(colours_seen(clip)) if c == named(clip)[0]]
    return clip.scene.things[thing].shape


def video_count(clip: Clip) -> str:
    return NUMBERS[colours_seen(clip).count(named(clip)[0])]


def video_side(clip: Clip) -> str:
    order = [colours_seen(clip)[i] for i in from_left(clip)]
    one, other = named(clip)
    return "left" if order.index(one) < order.index(other) else "right"


def video_exists(clip: Clip) -> str:
    colour = named(clip)[0]
    shape = clip.question.text.rstrip("?").split()[-1]
    there = zip(colours_seen(clip), clip.scene.things, strict=True)
    return yes(any(c == colour and t.shape == shape for c, t in there))


# Audio: the notes.


def voices_in_time(clip: Clip) -> list[str]:
    return [n.voice for n in sorted(clip.scene.notes, key=lambda n: n.onset)]


def audio_voice(clip: Clip) -> str:
    (voice,) = set(voices_in_time(clip))
    return voice


def audio_count(clip: Clip) -> str:
    onsets = sorted(n.onset for n in clip.scene.notes)
    assert min(np.diff(onsets), default=1.0) > 0.6
    assert onsets[-1] + clip.scene.notes[0].seconds < 4.0
    return NUMBERS[len(onsets)]


def audio_first(clip: Clip) -> str:
    return voices_in_time(clip)[0]


def loudest(clip: Clip) -> str:
    """By the energy of the sound itself while each voice plays."""
    sound = clip["audio"]["samples"]
    power: dict[str, float] = {}
    for n in clip.scene.notes:
        part = sound[round(n.onset * 16000) : round((n.onset + n.seconds) * 16000)]
        power[n.voice] = max(power.get(n.voice, 0.0), float(np.mean(part**2)))
    low, high = sorted(power, key=power.__getitem__)
    assert power[high] > 4 * power[low]
    return high


def audio_melody(clip: Clip) -> str:
    pitches = [n.pitch for n in sorted(clip.scene.notes, key=lambda n: n.onset)]
    assert pitches in (sorted(pitches), sorted(pitches)[::-1])
    return "up" if pitches[0] < pitches[-1] else "down"


def audio_which(clip: Clip) -> str:
    (voice,) = named(clip, VOICES)
    playing = [n for n in clip.scene.notes if n.voice == voice]
    frames = [i for i, t in enumerate(clip.scene.times) if t <= playing[0].onset]
    (thing,) = clip.scene.cues[frames[-1]]
    return seen_colour(clip, thing)


# Flow


def way(flow: np.ndarray) -> str:
    x, y = flow
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "up" if y < 0 else "down"


def flow_direction(clip: Clip) -> str:
    return way(by_colour(clip, "flow")[named(clip)[0]])


def flow_fastest(clip: Clip) -> str:
    flows = by_colour(clip, "flow")
    return max(named(clip), key=lambda c: float(np.hypot(*flows[c])))


def flow_what(clip: Clip) -> str:
    speed = np.hypot(*np.moveaxis(clip["flow"]["flow_widths_per_second"][0].astype(float), -1, 0))
    room = clip.mask[0] == 0
    camera = np.median(speed[room]) > 0.02
    flow = clip["flow"]["flow_widths_per_second"][0].astype(float)
    thing = any(
        np.abs(np.median(flow[clip.mask[0] == i + 1], axis=0) - _expected(clip, flow, i)).max()
        > 0.1
        for i in range(len(clip.scene.things))
    )
    return {
        (True, False): "the camera",
        (False, True): "an object",
        (True, True): "both",
        (False, False): "nothing",
    }[bool(camera), thing]


def _expected(clip: Clip, flow: np.ndarray, thing: int) -> np.ndarray:
    """Flow of a still thing at that depth: what the room shows at the same inverse depth."""
    still = clip.mask[0] == 0
    inverse = 1 / clip["depth"]["depth"][0].astype(float)
    rows = np.stack([np.ones(still.sum()), inverse[still]], axis=1)
    fit = np.linalg.lstsq(rows, flow[still], rcond=None)[0]
    own = clip.mask[0] == thing + 1
    return np.array([1.0, np.median(inverse[own])]) @ fit


def flow_same(clip: Clip) -> str:
    flows = by_colour(clip, "flow")
    one, other = named(clip)
    return yes(way(flows[one]) == way(flows[other]))


# Depth


def depth_nearer(clip: Clip) -> str:
    depths = by_colour(clip, "depth")
    return min(named(clip), key=lambda c: float(depths[c]))


def depth_farthest(clip: Clip) -> str:
    depths = pooled(clip, "depth")
    return SIDES[from_left(clip).index(int(np.argmax(depths)))]


def depth_gap(clip: Clip) -> str:
    one, other = pooled(clip, "depth")
    return yes(bool(abs(one - other) > 1.0))


def depth_larger(clip: Clip) -> str:
    depths = by_colour(clip, "depth")
    sizes = {
        t.colour: np.sqrt((clip.mask[0] == i + 1).sum()) * float(depths[t.colour])
        for i, t in enumerate(clip.scene.things)
    }
    small, large = sorted(sizes, key=sizes.__getitem__)
    assert sizes[large] > 1.15 * sizes[small]
    assert {small, large} == set(named(clip))
    return large


# Normals


def facing(normal: np.ndarray) -> str:
    return way(normal[:2])


def normal_tilt(clip: Clip) -> str:
    return facing(by_colour(clip, "normal")[named(clip)[0]])


def normal_bulge(clip: Clip) -> str:
    (thing,) = [i for i, t in enumerate(clip.scene.things) if t.colour == named(clip)[0]]
    rows, columns = np.nonzero(clip.mask[0] == thing + 1)
    normal = clip["normal"]["normal"][0][rows, columns].astype(float)
    across = columns - (columns.min() + columns.max()) / 2
    front = np.abs(normal[:, 2]) > 0.5
    outwards = (normal[:, 0] * across)[front].sum()
    return "raised" if outwards > 0 else "sunken"


def normal_same(clip: Clip) -> str:
    normals = by_colour(clip, "normal")
    one, other = named(clip)
    return yes(facing(normals[one]) == facing(normals[other]))


def normal_odd(clip: Clip) -> str:
    ways = [facing(n) for n in pooled(clip, "normal")]
    ways = [ways[i] for i in from_left(clip)]
    (odd,) = [i for i, w in enumerate(ways) if Counter(ways)[w] == 1]
    return SIDES[odd]


# Points: from the fixtures, which test_scan.py compares with the scan.


def at_side(clip: Clip, side: str) -> list[tuple[str, str]]:
    """Kind and colour of the furniture there, by where its parts are."""
    found = []
    for fixture in clip.scene.fixtures:
        x, y = np.mean([s.centre[:2] for s in fixture.solids], axis=0)
        place = (
            ("right" if x > 0 else "left") if abs(x) > abs(y) else "front" if y > 0 else "behind"
        )
        if place == side:
            found.append((fixture.kind, fixture.colour))
    return found


def asked_side(clip: Clip) -> str:
    text = clip.question.text
    return next(s for s in ("left", "right", "behind") if s in text.split(".")[-1])


def point_behind(clip: Clip) -> str:
    ((kind, _),) = at_side(clip, "behind")
    return kind


def point_colour(clip: Clip) -> str:
    ((_, colour),) = at_side(clip, asked_side(clip))
    return colour


def point_side(clip: Clip) -> str:
    (kind,) = named(clip, FURNITURE)
    places = [
        p for p in ("front", "left", "right", "behind") for k, _ in at_side(clip, p) if k == kind
    ]
    (place,) = places
    return place


def point_count(clip: Clip) -> str:
    return NUMBERS[sum(len(at_side(clip, p)) for p in ("left", "right", "behind"))]


def point_turned(clip: Clip) -> str:
    around = ("front", "left", "behind", "right")
    (faced,) = named(clip, FURNITURE)
    (at,) = [i for i, p in enumerate(around) if faced in [k for k, _ in at_side(clip, p)]]
    turn = {"left": 1, "behind": 2, "right": 3}[asked_side(clip)]
    ((kind, _),) = at_side(clip, around[(at + turn) % 4])
    return kind


# Touch


def touched(clip: Clip) -> list[tuple[str, str]]:
    """Colour of the thing under the finger, and texture, as they come."""
    found: list[tuple[str, str]] = []
    for frame, contact in enumerate(clip.scene.contacts):
        rows, columns = np.nonzero(clip.mask[frame] == 250)
        tip = rows.max(), int(np.median(columns[rows == rows.max()]))
        below = [int(o) for o in clip.mask[frame][tip[0] :, tip[1]] if 1 <= o < 100]
        assert contact.texture is not None
        one = clip.scene.things[below[0] - 1].colour, contact.texture
        found += [] if found and found[-1] == one else [one]
    return found


def touch_texture(clip: Clip) -> str:
    ((colour, texture),) = touched(clip)
    assert colour == named(clip)[0]
    return texture


def touch_same(clip: Clip) -> str:
    (one, first), (other, second) = touched(clip)
    assert [one, other] == named(clip)
    return yes(first == second)


def touch_ridges(clip: Clip) -> str:
    picture = clip["touch"]["touch"][0].astype(float)[30:82, 30:82]
    down, across = np.gradient(picture, axis=0), np.gradient(picture, axis=1)
    return "across" if (down**2).sum() > (across**2).sum() else "up and down"


def touch_which(clip: Clip) -> str:
    (texture,) = named(clip, TEXTURES)
    felt = touched(clip)
    assert {colour for colour, _ in felt} == set(named(clip))
    (colour,) = [c for c, t in felt if t == texture]
    return colour


# Thermal


def thermal_hottest(clip: Clip) -> str:
    heat = by_colour(clip, "thermal")
    assert set(heat) == set(named(clip))
    return max(heat, key=lambda c: float(heat[c]))


def thermal_side(clip: Clip) -> str:
    return SIDES[from_left(clip).index(int(np.argmax(pooled(clip, "thermal"))))]


def thermal_taken(clip: Clip) -> str:
    """Anything on the floor that is not as warm as the rest of it."""
    heat = clip["thermal"]["thermal"].astype(float).mean(axis=0)
    floor = (clip.mask == 0).all(axis=0) & (clip["normal"]["normal"][0][..., 1] < -0.9)
    off = np.abs(heat[floor] - np.median(heat[floor]))
    return yes(bool((off > 2.0).sum() > 25))


def thermal_count(clip: Clip) -> str:
    room = np.median(clip["thermal"]["thermal"][0][clip.mask[0] == 0].astype(float))
    return NUMBERS[sum(bool(h > room + 5) for h in pooled(clip, "thermal"))]


def thermal_against(clip: Clip) -> str:
    room = np.median(clip["thermal"]["thermal"][0][clip.mask[0] == 0].astype(float))
    return "warmer" if by_colour(clip, "thermal")[named(clip)[0]] > room else "colder"


# Two senses


def voice_of(clip: Clip) -> dict[str, str]:
    return dict(zip(named(clip, VOICES), named(clip), strict=True))


def two_loudest_hottest(clip: Clip) -> str:
    heat = by_colour(clip, "thermal")
    return yes(voice_of(clip)[loudest(clip)] == max(heat, key=lambda c: float(heat[c])))


def two_first_left(clip: Clip) -> str:
    return yes(way(by_colour(clip, "flow")[voice_of(clip)[voices_in_time(clip)[0]]]) == "left")


def two_nearer_hotter(clip: Clip) -> str:
    return yes(int(np.argmin(pooled(clip, "depth"))) == int(np.argmax(pooled(clip, "thermal"))))


def two_rough_warm(clip: Clip) -> str:
    heat = by_colour(clip, "thermal")
    (rough,) = [c for c, t in touched(clip) if t == "rough"]
    return yes(rough == max(heat, key=lambda c: float(heat[c])))


TRUTH: dict[str, Callable[[Clip], str]] = {
    name: globals()[{"audio_loudest": "loudest"}.get(name, name)] for name in TYPES
}

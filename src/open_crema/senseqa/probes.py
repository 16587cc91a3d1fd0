"""What a simple classifier is to look at, for each type of question: enough to answer it with all
senses, where the type is sound."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.looks import (
    Array,
    Look,
    Mask,
    about,
    middle,
    overview,
    pooled,
    shape,
    tunes,
)
from open_crema.senseqa.scene import COLOURS, FURNITURE, SHAPES
from open_crema.senseqa.sounds import VOICES
from open_crema.senseqa.touch import TEXTURES

_WAYS = ("front", "left", "behind", "right")  # against the clock
_SIDES_OF_YOU = {"on your left": 1, "behind you": 2, "on your right": 3}
# Metres: how high furniture is, and how far its uppermost part spreads.
_TOPS = {"table": 0.76, "chair": 1.08, "bed": 0.9, "shelf": 1.96, "lamp": 1.9, "sofa": 0.84}
_SPREADS = {"lamp": 0.3, "shelf": 0.4}


@dataclass(frozen=True)
class Probe:
    """see: features [d] of a question, or [candidates, d], one row for each of its candidates.

    things: the objects that it speaks of. each: whether these are its candidates, in their order.
    forest: whether a forest of trees reads the features, else a linear classifier.
    """

    see: Callable[[Look], Array]
    things: Callable[[Look], list[Mask]] = lambda look: []
    each: bool = False
    forest: bool = False

    def without(self, look: Look, sense: str) -> Array:
        """Features of all senses but one: [candidates, d] of objects that are the candidates, else
        [d] of the whole clip and of the objects that the question names."""
        senses = [other for other in SENSES if other != sense]

        def make() -> Array:
            things = [] if sense == "video" else self.things(look)
            found = [about(look, mask, senses) for mask in things]
            if self.each:
                return np.stack(found)
            return np.concatenate([overview(look, senses), *found])

        return look.once(("without", sense), senses, make)


def named(words: Sequence[str] | Mapping[str, object], look: Look) -> list[str]:
    """Those of the words that are in the question, in its order."""
    return re.findall(rf"\b({'|'.join(words)})\b", look.question.text)


def _objects(look: Look) -> list[Mask]:
    """The objects whose colours the question names."""
    return [look.where(colour) for colour in named(COLOURS, look)]


def _candidates(look: Look) -> list[Mask]:
    return [look.where(colour) for colour in look.question.candidates]


def _two(look: Look) -> list[Mask]:
    """Of the only objects that there are, from left to right."""
    return look.things(2)


def _three(look: Look) -> list[Mask]:
    return look.things(3)


def _one_hot(words: Sequence[str], word: str) -> Array:
    return np.array([word == other for other in words], dtype=np.float64)


def _times(words: Sequence[str], word: str, features: Array) -> Array:
    """The features in the place of that word, 0 in those of the others: each has its weights."""
    return np.outer(_one_hot(words, word), features).ravel()


def _of_the_objects(sense: str, objects: Callable[[Look], list[Mask]]) -> Callable[[Look], Array]:
    """[objects, channels] of a sense."""
    return lambda look: np.stack([pooled(look.map(sense), mask) for mask in objects(look)])


def _of_the_object(sense: str) -> Callable[[Look], Array]:
    """[channels] of a sense, of the first object that the question names."""
    return lambda look: pooled(look.map(sense), _objects(look)[0])


# Video.


def _video_colour(look: Look) -> Array:
    (asked,) = named(SHAPES, look)
    masks = _candidates(look)
    return np.stack([_times(SHAPES, asked, _form(look, mask)) for mask in masks])


def _form(look: Look, mask: Mask) -> Array:
    return np.append(shape(look, mask), float(mask.any()))


def _video_shape(look: Look) -> Array:
    return shape(look, _objects(look)[0])


def _video_count(look: Look) -> Array:
    (asked,) = named(COLOURS, look)
    if asked == "white":
        others = sum(len(look.spots(c)) for c in COLOURS if c != "white")
        return np.array([6 - others, 1.0, look.where("white").sum()])
    spots = look.spots(asked)
    return np.array([len(spots), 0.0, sum(int(s.sum()) for s in spots)])


def _video_side(look: Look) -> Array:
    one, other = (middle(mask)[0] for mask in _objects(look))
    return np.array([one - other])


def _video_exists(look: Look) -> Array:
    (asked,) = named(SHAPES, look)
    return _times(SHAPES, asked, _form(look, _objects(look)[0]))


# Sound.


def _voice(look: Look) -> Array:
    return np.concatenate(look.halves())


def _notes(look: Look) -> Array:
    level = np.log(np.exp(look.spectrum()).sum(axis=1))
    rises = []
    for below in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0):
        loud = level > level.max() - below
        rises.append(np.sum(loud[1:] & ~loud[:-1]) + loud[0])
    loud = level > level.max() - 3
    return np.array([*rises, loud.sum()])


def _difference(look: Look) -> Array:
    first, second = look.halves()
    return first - second


def _heard_first(look: Look) -> Array:
    return np.stack([_times(VOICES, v, _difference(look)) for v in look.question.candidates])


def _heard_louder(look: Look) -> Array:
    return np.asarray(np.sign(look.louder()) * _heard_first(look))


def _melody(look: Look) -> Array:
    return tunes(look.clip["audio"]["samples"])


def _sounding(look: Look) -> Array:
    (voice,) = named(VOICES, look)
    heard = _times(VOICES, voice, _difference(look))
    return np.stack([look.sounds_early(mask) * heard for mask in _candidates(look)])


# Flow.


def _flow_fastest(look: Look) -> Array:
    flow = _of_the_objects("flow", _candidates)(look)
    return np.hypot(flow[:, :1], flow[:, 1:])


def _flow_what(look: Look) -> Array:
    """Of the room, the median; and how far some of the picture is from what is beside it."""
    flow = look.map("flow")
    speed = np.hypot(*np.moveaxis(flow, -1, 0))
    edges = np.hypot(*np.moveaxis(np.diff(flow, axis=1), -1, 0))
    rows = np.median(flow, axis=1)
    off = np.hypot(*np.moveaxis(flow - rows[:, None], -1, 0))
    return np.concatenate(
        [
            *(np.percentile(m, [5, 25, 50, 75, 95, 99, 100]) for m in (speed, edges, off)),
            np.percentile(np.abs(flow[..., 1]), [50, 90, 99, 100]),
        ]
    )


def _alike(sense: str) -> Callable[[Look], Array]:
    """How far two objects are from each other in a sense, and in its directions alone."""

    def see(look: Look) -> Array:
        one, other = _of_the_objects(sense, _objects)(look)[:, :2]
        lengths = max(float(np.hypot(*one) * np.hypot(*other)), 1e-6)
        return np.array([np.hypot(*(one - other)), (one @ other) / lengths])

    return see


# Depth.


def _gap(look: Look) -> Array:
    one, other = _of_the_objects("depth", _two)(look)
    return np.asarray(np.abs(one - other))


def _depth_larger(look: Look) -> Array:
    depth = _of_the_objects("depth", _candidates)(look)
    sizes = np.array([[mask.sum() ** 0.5] for mask in _candidates(look)])
    return np.hstack([depth, depth * sizes])


# Normals.


def _normal_bulge(look: Look) -> Array:
    """How far the normals of a board look away from its middle."""
    mask, normal = _objects(look)[0], look.map("normal")
    (x, y), rows, columns = middle(mask), *np.mgrid[:112, :112]
    right, down = columns - x, rows - y
    away = (normal[..., 0] * right + normal[..., 1] * down) / (np.hypot(right, down) + 1)
    return np.array([away[mask].mean() if mask.any() else 0.0])


def _normal_odd(look: Look) -> Array:
    normals = _of_the_objects("normal", _three)(look)
    apart = np.linalg.norm(normals[:, None] - normals[None], axis=-1)
    return np.asarray(apart.sum(axis=1, keepdims=True))


# Points.


def _point_colour(look: Look) -> Array:
    (side,) = (s for s in _SIDES_OF_YOU if s in look.question.text)
    return look.rooms()[_WAYS[_SIDES_OF_YOU[side]]][19:]


def _point_side(look: Look) -> Array:
    (asked,) = named(FURNITURE, look)
    found = look.rooms()
    return np.stack([_times(FURNITURE, asked, found[side]) for side in look.question.candidates])


def _point_count(look: Look) -> Array:
    found = look.rooms()
    return np.array([*(np.log1p(found[s][4] * 4096) for s in _WAYS[1:])])


def _point_turned(look: Look) -> Array:
    """Where the piece that is faced stands is known from how high it is."""
    (faced,) = named(FURNITURE, look)
    (turn,) = (t for side, t in _SIDES_OF_YOU.items() if side in look.question.text)
    found = look.rooms()

    def unlike(side: str) -> float:
        apart = abs(found[side][2] - _TOPS[faced])
        return float(apart + abs(found[side][3] - _SPREADS.get(faced, found[side][3])))

    at = min(range(4), key=lambda i: unlike(_WAYS[i]))
    return found[_WAYS[(at + turn) % 4]]


# Touch.


def _touch_same(look: Look) -> Array:
    feels = look.feels()
    return np.asarray(np.abs(feels[0] - feels[-1]))


def _touch_which(look: Look) -> Array:
    (asked,) = named(TEXTURES, look)
    feels = np.stack(look.feels())
    rows = []
    for mask in _candidates(look):
        at = int(look.touched(mask).argmax())
        rows.append(_times(TEXTURES, asked, feels[at]))
    return np.stack(rows)


# Temperatures.


def _thermal_taken(look: Look) -> Array:
    """Warmest and coldest of the floor between the objects."""
    heat = look.heat()
    smooth = ndimage.uniform_filter(heat, 5)
    seen = np.zeros(heat.shape, dtype=bool)
    for colour in COLOURS:
        seen |= look.where(colour)
    free = smooth[60:][~ndimage.binary_dilation(seen, iterations=4)[60:]]
    return np.percentile(free, [0, 1, 5, 50, 95, 99, 100]) if len(free) else np.zeros(7)


def _thermal_count(look: Look) -> Array:
    heats = [float(pooled(look.heat(), mask)[0]) for mask in look.things(5)]
    warm = look.heat() > 6
    return np.array([*sorted(heats), sum(h > 6 for h in heats), warm.sum()])


def _thermal_against(look: Look) -> Array:
    return pooled(look.heat(), _objects(look)[0])


# Two senses.


def _instruments(look: Look) -> Array:
    """Turned round when the two instruments of the question change places in time."""
    one, other = named(VOICES, look)
    return np.outer(_one_hot(VOICES, one) - _one_hot(VOICES, other), _difference(look)).ravel()


def _hotter(objects: Callable[[Look], list[Mask]], look: Look) -> float:
    one, other = _of_the_objects("thermal", objects)(look)[:, 0]
    return float(np.sign(one - other))


def _loudest_hottest(look: Look) -> Array:
    return np.asarray(_instruments(look) * np.sign(look.louder()) * _hotter(_objects, look))


def _first_left(look: Look) -> Array:
    one, other = _of_the_objects("flow", _objects)(look)[:, 0]
    return np.asarray(_instruments(look) * np.sign(other - one))


def _nearer_hotter(look: Look) -> Array:
    one, other = _of_the_objects("depth", _two)(look)[:, 0]
    return np.array([np.sign(other - one) * _hotter(_two, look)])


def _rough_warm(look: Look) -> Array:
    feels, (left, right) = look.feels(), _two(look)
    early = look.touched(left)[0] - look.touched(right)[0]
    return np.asarray((feels[0] - feels[-1]) * np.sign(early) * _hotter(_two, look))


PROBES: Mapping[str, Probe] = {
    "video_colour": Probe(_video_colour),
    "video_shape": Probe(_video_shape, _objects, forest=True),
    "video_count": Probe(_video_count, _objects, forest=True),
    "video_side": Probe(_video_side, _objects),
    "video_exists": Probe(_video_exists, _objects),
    "audio_voice": Probe(_voice),
    "audio_count": Probe(_notes, forest=True),
    "audio_first": Probe(_heard_first),
    "audio_loudest": Probe(_heard_louder),
    "audio_melody": Probe(_melody),
    "audio_which": Probe(_sounding, _candidates, each=True),
    "flow_direction": Probe(_of_the_object("flow"), _objects),
    "flow_fastest": Probe(_flow_fastest, _candidates, each=True),
    "flow_what": Probe(_flow_what, forest=True),
    "flow_same": Probe(_alike("flow"), _objects),
    "depth_nearer": Probe(_of_the_objects("depth", _candidates), _candidates, each=True),
    "depth_farthest": Probe(_of_the_objects("depth", _three), _three),
    "depth_gap": Probe(_gap, _two),
    "depth_larger": Probe(_depth_larger, _candidates, each=True),
    "normal_tilt": Probe(_of_the_object("normal"), _objects),
    "normal_bulge": Probe(_normal_bulge, _objects),
    "normal_same": Probe(_alike("normal"), _objects),
    "normal_odd": Probe(_normal_odd, _three),
    "point_behind": Probe(lambda look: look.rooms()["behind"], forest=True),
    "point_colour": Probe(_point_colour),
    "point_side": Probe(_point_side),
    "point_count": Probe(_point_count, forest=True),
    "point_turned": Probe(_point_turned, forest=True),
    "touch_texture": Probe(lambda look: look.feels()[0], _objects, forest=True),
    "touch_same": Probe(_touch_same, _objects, forest=True),
    "touch_ridges": Probe(lambda look: look.feels()[0]),
    "touch_which": Probe(_touch_which, _candidates, each=True),
    "thermal_hottest": Probe(_of_the_objects("thermal", _candidates), _candidates, each=True),
    "thermal_side": Probe(_of_the_objects("thermal", _three), _three),
    "thermal_taken": Probe(_thermal_taken, forest=True),
    "thermal_count": Probe(_thermal_count, forest=True),
    "thermal_against": Probe(_thermal_against, _objects),
    "two_loudest_hottest": Probe(_loudest_hottest, _objects),
    "two_first_left": Probe(_first_left, _objects),
    "two_nearer_hotter": Probe(_nearer_hotter, _two),
    "two_rough_warm": Probe(_rough_warm, _two),
}

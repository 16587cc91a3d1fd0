"""Types that the sound answers. Their worlds differ in the notes alone; which things make sound is
seen by the arcs at their sides, and never when."""

from __future__ import annotations

from dataclasses import replace

from open_crema.senseqa import stage
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.scene import COLOURS, SECONDS, Scene
from open_crema.senseqa.sounds import VOICES, Note
from open_crema.senseqa.types.base import Asked, QuestionType, two
from open_crema.senseqa.types.video import NUMBERS

_LOUD, _SOFT = 1.0, 0.22
_BEAT = 0.62  # seconds between two notes that are to be told apart
_HOLD = 0.4


def _audience(draw: Draw, scene: Scene, sounding: int) -> Scene:
    """The scene with things, of which that many are seen to sound all the time."""
    number = max(sounding, 1 + draw.integer(3))
    found = stage.row(draw.sub("row"), scene, draw.sample(list(COLOURS), number))
    cue = frozenset(draw.sample(range(number), sounding))
    return replace(found, cues=(cue,) * len(scene.times))


def _starts(draw: Draw, count: int) -> list[float]:
    """Onsets of that many notes, at least a beat apart."""
    slack = SECONDS - 0.2 - _HOLD - _BEAT * (count - 1)
    gaps = sorted(draw.uniforms(count).tolist())
    return [0.1 + slack * gap + _BEAT * i for i, gap in enumerate(gaps)]


def voice(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base = _audience(draw, scene, 1)
    notes = [
        (on, draw.uniform(220, 600), draw.uniform(0.5, 1.0))
        for on in _starts(draw, 2 + draw.integer(3))
    ]

    def world(own: int) -> Scene:
        kind = VOICES[own]
        return replace(base, notes=tuple(Note(kind, on, _HOLD, p, gain) for on, p, gain in notes))

    return Asked("Which instrument is heard?", (), VOICES, two(world(a), world(b)))


def count(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, kind = _audience(draw, scene, 1), draw.choice(VOICES)
    pitches = [draw.uniform(220, 600) for _ in NUMBERS]
    gain = draw.uniform(0.5, 1.0)

    def world(number: int) -> Scene:
        starts = _starts(draw.sub("starts", number), number)
        notes = zip(starts, pitches, strict=False)
        return replace(base, notes=tuple(Note(kind, on, _HOLD, p, gain) for on, p in notes))

    return Asked("How many notes are heard?", (), NUMBERS, two(world(a + 1), world(b + 1)))


def first(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, pair = _audience(draw, scene, 2), draw.sample(VOICES, 2)
    return Asked(
        "Which is heard first, the {} or the {}?",
        tuple(pair),
        tuple(pair),
        two(
            replace(base, notes=one_after_another(draw.sub("notes"), pair[a], pair[b])),
            replace(base, notes=one_after_another(draw.sub("notes"), pair[b], pair[a])),
        ),
    )


def one_after_another(draw: Draw, early: str, late: str) -> tuple[Note, ...]:
    """Two notes of one voice in the first half, then two of the other in the second."""
    notes = []
    for half, kind in enumerate((early, late)):
        start = SECONDS / 2 * half + draw.uniform(0.1, 0.35)
        for i in range(2):
            pitch, gain = draw.uniform(220, 600), draw.uniform(0.6, 1.0)
            notes.append(Note(kind, start + 0.7 * i, _HOLD + 0.1, pitch, gain))
    return tuple(notes)


def loudest(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, pair = _audience(draw, scene, 2), draw.sample(VOICES, 2)
    order = draw.shuffled(pair)
    return Asked(
        "Which is louder, the {} or the {}?",
        tuple(pair),
        tuple(pair),
        two(
            replace(base, notes=loud_and_soft(draw.sub("notes"), order, pair[a])),
            replace(base, notes=loud_and_soft(draw.sub("notes"), order, pair[b])),
        ),
    )


def loud_and_soft(draw: Draw, order: list[str], loud: str) -> tuple[Note, ...]:
    """Two voices one after another, of which one is 13 dB louder."""
    level = draw.uniform(0.7, 1.0)
    notes = one_after_another(draw, *order)
    return tuple(replace(n, gain=level * (_LOUD if n.voice == loud else _SOFT)) for n in notes)


def melody(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    base, kind = _audience(draw, scene, 1), draw.choice([v for v in VOICES if v != "drum"])
    starts, low = _starts(draw, 4), draw.uniform(200, 300)
    step = draw.uniform(1.25, 1.4)
    rising = [low * step**i for i in range(4)]

    def world(answer: int) -> Scene:
        pitches = rising if answer == 0 else rising[::-1]
        notes = [Note(kind, on, _HOLD, p, 0.8) for on, p in zip(starts, pitches, strict=True)]
        return replace(base, notes=tuple(notes))

    return Asked("Does the tune go up or down?", (), ("up", "down"), two(world(a), world(b)))


def which(draw: Draw, scene: Scene, a: int, b: int) -> Asked:
    """The arcs say which thing sounds when; only the sound says which instrument that is."""
    number = 2 + draw.integer(2)
    colours = draw.sample(list(COLOURS), number)
    pair = draw.sample(VOICES, 2)
    things = draw.sample(range(number), 2)  # the one that sounds early, the one that sounds late
    base = stage.row(draw.sub("row"), scene, colours)
    half = SECONDS / 2
    cues = tuple(frozenset({things[0] if t < half else things[1]}) for t in scene.times)
    base = replace(base, cues=cues)
    named = draw.shuffled([colours[t] for t in things])

    def world(answer: int) -> Scene:
        early = named[answer] == colours[things[0]]
        order = pair if early else pair[::-1]
        return replace(base, notes=one_after_another(draw.sub("notes"), order[0], order[1]))

    return Asked(
        "Which object is the {}, the {} one or the {} one?",
        (pair[0], *named),
        tuple(named),
        two(world(a), world(b)),
    )


TYPES = (
    QuestionType("audio_voice", ("audio",), ("audio",), len(VOICES), voice),
    QuestionType("audio_count", ("audio",), ("audio",), len(NUMBERS), count),
    QuestionType("audio_first", ("audio",), ("audio",), 2, first),
    QuestionType("audio_loudest", ("audio",), ("audio",), 2, loudest),
    QuestionType("audio_melody", ("audio",), ("audio",), 2, melody),
    QuestionType("audio_which", ("video", "audio"), ("audio",), 2, which),
)

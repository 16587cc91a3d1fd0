"""Clips of SenseQA told in words, for text tuning: scenes, captions and questions, no rendering."""

from __future__ import annotations

from collections.abc import Iterator

from open_crema.data.sample import Told
from open_crema.senseqa.captions import Caption, caption
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.dataset import sample_of
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.lessons import asked, chosen
from open_crema.senseqa.sets import FRAMES, Group, Question, Spec, groups
from open_crema.senseqa.types import TYPES, Variant

# What is seen differs from frame to frame: asked of whole clips only.
_IN_TIME = (*(name for name in TYPES if name.startswith("touch")), "audio_which", "two_rough_warm")
_WHOLE, _IN_TIME_OFTEN = 0.22, 0.6
_COUNT = 1_000_000  # more than is ever asked for


def batches(seed: int, *, clips: int = 9, more: int = 7) -> Iterator[list[Told]]:
    """Without end, from the train split: so many clips at a time, all of one frame or (about one
    batch in five) of all frames. Each has a random set of senses, mostly those that its own
    question needs among them, that question, and up to ``more`` others that these senses answer."""
    everything = _clips(seed, tuple(TYPES))
    in_time = _clips(seed + 1, _IN_TIME)
    turn = 0
    while True:
        draw = Draw("told", seed, turn)
        whole = draw.chance(_WHOLE)
        source = in_time if whole and draw.chance(_IN_TIME_OFTEN) else everything
        found: list[Told] = []
        while len(found) < clips:
            own = draw.sub("clip", turn, len(found))
            told = _told(*next(source), own, whole, more)
            if told.asked:
                found.append(told)
        yield found
        turn += 1


def _clips(seed: int, types: tuple[str, ...]) -> Iterator[tuple[Group, Variant, Question]]:
    for group in groups(Spec("train", seed, _COUNT, types)):
        for variant, question in zip(group.variants, group.questions, strict=False):
            yield group, variant, question


def _told(
    group: Group, variant: Variant, question: Question, draw: Draw, whole: bool, more: int
) -> Told:
    scene = group.asked.worlds[variant]
    senses = _senses(draw.sub("senses"), question)
    frame = draw.integer(FRAMES)
    found = [question] if set(question.needs) <= senses else []
    for i, fact in enumerate(chosen(scene, draw.sub("facts"), senses, more, without=question.text)):
        found.append(asked(fact, draw.sub("options", i), question.id))
    told = [sample_of(own) for own in found if whole or own.type not in _IN_TIME]
    captions = {s: _segments(caption(scene, s), s, whole, frame) for s in SENSES if s in senses}
    return Told(captions, [(sample.question, sample.answers[0]) for sample in told])


def _senses(draw: Draw, question: Question) -> set[str]:
    if draw.chance(0.15):
        return {"video"}
    rate = draw.choice((0.0, 0.15, 0.4))
    found = {"video", *(s for s in SENSES if draw.chance(rate))}
    if draw.chance(0.85):
        found |= set(question.needs)
    if len(found) > 1 and draw.chance(0.06):
        found.remove("video")
    return found


def _segments(parts: Caption, sense: str, whole: bool, frame: int) -> Caption:
    """A sound and a cloud are one thing for the whole clip."""
    if sense in ("audio", "point"):
        return parts[:1]
    if not whole:
        return [parts[frame % len(parts)]]
    return parts if len(parts) == FRAMES else parts[:1] * FRAMES

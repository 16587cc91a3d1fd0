"""Clips of SenseQA told in words, for text tuning: scenes, captions and questions, no rendering."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from open_crema.data.sample import Told, ToldQuestion
from open_crema.senseqa.captions import Caption, caption
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.dataset import sample_of
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.lessons import asked, chosen
from open_crema.senseqa.sets import FRAMES, Group, Question, Spec, groups
from open_crema.senseqa.types import IN_TIME, TYPES, Variant

_WHOLE, _IN_TIME_OFTEN = 0.22, 0.6
_COUNT = 1_000_000  # more than is ever asked for
_ALL = 20  # facts of a scene that are looked at


@dataclass(frozen=True)
class Telling:
    """How clips are told. clips: of a batch. more: questions about a clip besides its own.
    of_video: questions that video alone answers, of those about a clip with more senses, where the
    others fill up. video_first: batches at the start that tell of the video alone. listed: the
    share of further questions that are multiple choice. bare: of the open-ended ones that are
    asked without the words around a question (half of the tokens that the LLM would read)."""

    clips: int = 2
    more: int = 7
    of_video: int = 2
    video_first: int = 100
    listed: float = 0.05
    bare: float = 0.75


def batches(seed: int, telling: Telling, *, split: str = "train") -> Iterator[list[Told]]:
    """Without end: so many clips at a time, all of one frame or (about one batch in five) of all
    frames. Each has a random set of senses, mostly those that its own question needs among them,
    that question, and others that these senses answer."""
    everything = _clips(split, seed, tuple(TYPES))
    in_time = _clips(split, seed + 1, IN_TIME)
    turn = 0
    while True:
        draw = Draw("told", seed, turn)
        alone = turn < telling.video_first
        whole = not alone and draw.chance(_WHOLE)
        source = in_time if whole and draw.chance(_IN_TIME_OFTEN) else everything
        found: list[Told] = []
        while len(found) < telling.clips:
            own = draw.sub("clip", turn, len(found))
            group, variant, question = next(source)
            senses = {"video"} if alone else _senses(own.sub("senses"), question)
            told = _told(group, variant, question, senses, own, whole, telling)
            if told.asked:
                found.append(told)
        yield found
        turn += 1


def _clips(
    split: str, seed: int, types: tuple[str, ...]
) -> Iterator[tuple[Group, Variant, Question]]:
    for group in groups(Spec(split, seed, _COUNT, types)):
        for variant, question in zip(group.variants, group.questions, strict=False):
            yield group, variant, question


def _told(
    group: Group,
    variant: Variant,
    question: Question,
    senses: set[str],
    draw: Draw,
    whole: bool,
    telling: Telling,
) -> Told:
    scene = group.asked.worlds[variant]
    frame = draw.integer(FRAMES)
    found = [question] if set(question.needs) <= senses else []
    told = chosen(scene, draw.sub("facts"), senses, _ALL, without=question.text)
    other = [fact for fact in told if set(fact.needs) != {"video"}]
    of_video = [fact for fact in told if set(fact.needs) == {"video"}]
    kept = max(telling.more - len(other), telling.of_video)
    for i, fact in enumerate([*of_video[:kept], *other][: telling.more]):
        found.append(asked(fact, draw.sub("options", i), question.id, listed=telling.listed))
    texts = [
        ToldQuestion(_text(own, draw.sub("bare", i), telling.bare), own.answer, own.type)
        for i, own in enumerate(found)
        if whole or own.type not in IN_TIME
    ]
    captions = {s: _segments(caption(scene, s), s, whole, frame) for s in SENSES if s in senses}
    return Told(captions, texts)


def _text(question: Question, draw: Draw, bare: float) -> str:
    return (
        question.text
        if not question.options and draw.chance(bare)
        else sample_of(question).question
    )


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

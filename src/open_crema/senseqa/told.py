"""Clips of SenseQA told in words, for text tuning: scenes, captions and questions, no rendering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from open_crema.data.sample import Told, ToldQuestion
from open_crema.senseqa.captions import Caption, caption
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.dataset import sample_of
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.lessons import asked, chosen
from open_crema.senseqa.sets import FRAMES, Group, Question, Spec, groups
from open_crema.senseqa.types import IN_TIME, TYPES, Variant, needing

_WHOLE, _IN_TIME_OFTEN = 0.22, 0.6
_COUNT = 1_000_000  # more than is ever asked for
_ALL = 20  # facts of a scene that are looked at
_SHARE = 1.3  # of the mean over types: what has been asked more often is not asked further


@dataclass(frozen=True)
class Telling:
    """How clips are told. clips: of a batch. more: questions about a clip besides its own.
    video_first: batches at the start that tell of the video alone. listed: the share of further
    questions that are multiple choice. bare: of the open-ended ones that are asked without the
    words around a question (half of the tokens that the LLM would read). crowds: the chance that
    another sense is there, one of these for each clip; without_video: the chance that a clip of
    several senses has no video."""

    clips: int = 2
    more: int = 7
    video_first: int = 100
    listed: float = 0.05
    bare: float = 0.75
    crowds: tuple[float, ...] = (0.0, 0.15, 0.4, 0.9)
    without_video: float = 0.1


def batches(seed: int, telling: Telling, *, split: str = "train") -> Iterator[list[Told]]:
    """Without end: so many clips at a time, all of one frame or (about one batch in five) of all
    frames. Each has a random set of senses, mostly those that its own question needs among them,
    that question, and others that these senses answer. A clip is of the type that had the
    fewest clips and questions so far, among those that need several frames or among the others;
    further questions are of types that have been asked little, and none of those that have had
    their share. Answers come evenly too: where scenes give one far more often, an LLM learns to say
    that one instead of to read."""
    clips = {name: _clips(split, seed, name) for name in TYPES}
    made, counts = Counter(dict.fromkeys(TYPES, 0)), Counter(dict.fromkeys(TYPES, 0))
    answers: Counter[tuple[str, str]] = Counter()
    turn = 0
    while True:
        draw = Draw("told", seed, turn)
        alone = turn < telling.video_first
        whole = not alone and draw.chance(_WHOLE)
        in_time = whole and draw.chance(_IN_TIME_OFTEN)
        of = needing("video") if alone else [n for n in TYPES if (n in IN_TIME) == in_time]
        found: list[Told] = []
        tries = 0
        while len(found) < telling.clips:
            own, tries = draw.sub("clip", tries), tries + 1
            name = min(of, key=lambda one: made[one] + counts[one])
            group, variant, question = next(clips[name])
            before = {n: counts[n] for n in (of if alone else TYPES)}
            senses = {"video"} if alone else _senses(own.sub("senses"), question, telling)
            told = _told(group, variant, question, senses, own, whole, telling, before, answers)
            made[name] += 1  # even where its senses do not answer it, or it would be drawn for ever
            if told.asked:
                found.append(told)
                counts.update(question.type for question in told.asked)
                answers.update((question.type, question.answer) for question in told.asked)
        yield found
        turn += 1


def _clips(split: str, seed: int, name: str) -> Iterator[tuple[Group, Variant, Question]]:
    for group in groups(Spec(split, seed, _COUNT, (name,))):
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
    before: Mapping[str, int],
    answers: Mapping[tuple[str, str], int],
) -> Told:
    """before: how often each type has been asked; answers: and had which answer."""
    scene = group.asked.worlds[variant]
    frame = draw.integer(FRAMES)
    found = [question] if set(question.needs) <= senses else []
    share = _SHARE * sum(before.values()) / len(before)
    facts = [
        fact
        for fact in chosen(scene, draw.sub("facts"), senses, _ALL, without=question.text)
        if before[fact.type] <= share
        and (whole or fact.type not in IN_TIME)
        and answers[fact.type, fact.answer] <= before[fact.type] / len(fact.candidates)
    ]
    facts.sort(key=lambda fact: before[fact.type])
    for i, fact in enumerate(facts[: telling.more]):
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


def _senses(draw: Draw, question: Question, telling: Telling) -> set[str]:
    if set(question.needs) == {"video"} and draw.chance(0.5):
        return {"video"}
    rate = draw.choice(telling.crowds)
    found = {"video", *(s for s in SENSES if draw.chance(rate))}
    if draw.chance(0.85):
        found |= set(question.needs)
    if len(found) > 1 and draw.chance(telling.without_video):
        found.remove("video")
    return found


def _segments(parts: Caption, sense: str, whole: bool, frame: int) -> Caption:
    """A sound and a cloud are one thing for the whole clip."""
    if sense in ("audio", "point"):
        return parts[:1]
    if not whole:
        return [parts[frame % len(parts)]]
    return parts if len(parts) == FRAMES else parts[:1] * FRAMES

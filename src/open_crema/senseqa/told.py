"""Clips of SenseQA told in words, for text tuning: scenes, captions and questions, no rendering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from open_crema.data.sample import Told, ToldQuestion
from open_crema.senseqa.captions import Caption, caption
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.dataset import sample_of
from open_crema.senseqa.draw import Draw
from open_crema.senseqa.lessons import asked, chosen
from open_crema.senseqa.more import Fact
from open_crema.senseqa.scene import Scene
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
    without_video: float = 0.2


def batches(seed: int, telling: Telling, *, split: str = "train") -> Iterator[list[Told]]:
    """Without end: so many clips at a time, all of one frame or (about one batch in five) of all
    frames. Each has a random set of senses, mostly those that its own question needs among them,
    that question, and others that these senses answer. A clip is of the type that had the
    fewest clips and questions so far, among those that need several frames or among the others;
    further questions are of types that have been asked little, and none of those that have had
    their share. Answers come evenly too: where scenes give one far more often, an LLM learns to say
    that one instead of to read."""
    clips = {name: _clips(split, seed, name) for name in TYPES}
    so_far = _SoFar()
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
            group, variant, question = next(clips[so_far.next_of(of)])
            senses = {"video"} if alone else _senses(own.sub("senses"), question, telling)
            scene = group.asked.worlds[variant]
            facts = chosen(scene, own.sub("facts"), senses, _ALL, without=question.text)
            facts = [fact for fact in facts if whole or fact.type not in IN_TIME]
            more = so_far.wanted(facts, of if alone else TYPES)[: telling.more]
            told = _told(scene, question, more, senses, own, whole, telling)
            if told.asked:
                found.append(told)
                so_far.add(told)
        yield found
        turn += 1


class _SoFar:
    """What has been asked, so that types and answers come evenly. clips: drawn of each type."""

    def __init__(self) -> None:
        self.clips: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()

    def next_of(self, types: Sequence[str]) -> str:
        """The type to draw a clip of. It counts even where that clip's senses do not answer it, or
        it would be drawn for ever."""
        name = min(types, key=lambda one: self.clips[one] + self.types[one])
        self.clips[name] += 1
        return name

    def wanted(self, facts: Sequence[Fact], types: Collection[str]) -> list[Fact]:
        """Those whose type, among these types, and answer have not had their share; what has been
        asked the least first."""
        share = _SHARE * sum(self.types[name] for name in types) / len(types)
        found = [
            fact
            for fact in facts
            if self.types[fact.type] <= share
            and self.answers[fact.type, fact.answer] <= self.types[fact.type] / len(fact.candidates)
        ]
        return sorted(found, key=lambda fact: self.types[fact.type])

    def add(self, told: Told) -> None:
        self.types.update(question.type for question in told.asked)
        self.answers.update((question.type, question.answer) for question in told.asked)


def _clips(split: str, seed: int, name: str) -> Iterator[tuple[Group, Variant, Question]]:
    for group in groups(Spec(split, seed, _COUNT, (name,))):
        for variant, question in zip(group.variants, group.questions, strict=False):
            yield group, variant, question


def _told(
    scene: Scene,
    question: Question,
    more: Sequence[Fact],
    senses: set[str],
    draw: Draw,
    whole: bool,
    telling: Telling,
) -> Told:
    frame = draw.integer(FRAMES)
    found = [question] if set(question.needs) <= senses else []
    for i, fact in enumerate(more):
        found.append(asked(fact, draw.sub("options", i), question.id, listed=telling.listed))
    texts = [
        ToldQuestion(_text(own, draw.sub("bare", i), telling.bare), own.answer, own.type)
        for i, own in enumerate(found)
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

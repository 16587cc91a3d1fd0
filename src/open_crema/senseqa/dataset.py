"""A set in memory: clips made when they are asked for, to train on without a file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from open_crema.data.sample import Sample
from open_crema.modality import canonical
from open_crema.senseqa.clips import Clip, GroupClips
from open_crema.senseqa.sets import Question, Spec, groups
from open_crema.tasks.jsonl import multiple_choice, open_ended

_KEPT = 4  # groups, of two or four clips each


class SenseQA(Sequence[Clip]):
    """The clips of a set in its order, each with its question.

    The last few groups are kept, so that the clips of a pair, which follow each other, do not make
    twice what they share. For one thread; every worker process has its own.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._groups = list(groups(spec))
        self._rows = [(g, i) for g, group in enumerate(self._groups) for i in range(group.first)]
        self._made: OrderedDict[int, list[Clip]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number, place = self._rows[index]
        if number not in self._made:
            # A group of its own: what it remembers of its worlds goes with its clips.
            self._made[number] = list(GroupClips(replace(self._groups[number])))
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(number)
        return self._made[number][place]

    def samples(self) -> list[Sample]:
        """The questions as `tasks.jsonl.load` reads them of the set's file, but without media."""
        return [
            sample_of(question) for group in self._groups for question in replace(group).questions
        ]


def sample_of(question: Question) -> Sample:
    """The question as the model is asked it; its media are to be given with it."""
    options = question.options
    return Sample(
        id=question.id,
        question=multiple_choice(question.text, options) if options else open_ended(question.text),
        media={},
        answers=(question.answer,),
        options=options,
        type=question.type,
        needs=tuple(canonical(question.needs)),
        pairs={sense: question.pairs[sense] for sense in canonical(question.pairs)},
        candidates=() if options else question.candidates,
    )

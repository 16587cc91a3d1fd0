"""A user's own questions, one JSON object a line.

::

    {"id": "q1", "video": "clips/a.mp4", "question": "What is ringing?", "answer": "a phone"}
    {"video": "b.mp4", "media": {"thermal": "b_thermal"}, "question": "Which is hot?",
     "options": ["the left cup", "the right cup"], "answer": "the left cup", "type": "heat"}

(each on one line). ``media`` names a file, or a folder of pictures, for any registered sense;
relative paths start at ``media_root``, by default the folder of the data file. Where neither the
file nor a ``timestamps.txt`` beside its pictures says when they were taken, a path may come with
its timing: ``{"path": "b_thermal", "rate": 25, "start": 0.4}``, pictures a second and seconds.

An evaluation reads three more fields, of questions that were made to be compared::

    {"id": "q7", "video": "d.mp4", "media": {"thermal": "d_hot"}, "question": "Is the cup hot?",
     "answer": "yes", "candidates": ["yes", "no"], "needs": ["thermal"],
     "pairs": {"thermal": "d"}}

``pairs``: a second question names the pair "d" under thermal; it differs in that sense alone, and
in its answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from open_crema import modality
from open_crema.data.sample import Sample, Timing, normalise
from open_crema.errors import ConfigError
from open_crema.tasks import lenience
from open_crema.tasks.base import Task
from open_crema.tasks.fields import FieldError, named
from open_crema.tasks.fields import kind as _kind
from open_crema.tasks.fields import text as _text
from open_crema.tasks.fields import texts as _texts
from open_crema.tasks.reading import Entry, read_json_lines

FIELDS = (
    "id",
    "video",
    "question",
    "answer",
    "answers",
    "options",
    "type",
    "media",
    "needs",
    "pairs",
    "candidates",
    "captions",
)


def open_ended(question: str) -> str:
    """The text for the LLM of a question without options (paper, Table 11)."""
    return f"Question: {question} Answer the question using a single word or phrase."


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """The text for the LLM of a question with options (paper, Table 11)."""
    listed = " ".join(f"Option {ascii_uppercase[i]}: {text}" for i, text in enumerate(options))
    return (
        f"Question: {question} {listed} Considering the information presented, "
        "select the correct answer from the options."
    )


class Jsonl(Task):
    """A user's own questions. answers_required, questions_required: whether a line may do without;
    one that has no question names media alone.

    The training target of multiple choice is the text of the right option, not its letter: it is
    what scoring the options compares, and it does not depend on the order in which they are listed.
    """

    name = "jsonl"
    title = "your own questions"
    licence = "yours"
    home = "docs/data.md"
    files = "a file of one JSON object a line"
    media = "paths in the file; relative ones start at the media folder, by default the file's own"
    patterns = ("*.jsonl",)
    lenience = lenience.CONTAINED

    def __init__(
        self,
        options: Mapping[str, str] | None = None,
        *,
        answers_required: bool = True,
        questions_required: bool = True,
    ) -> None:
        super().__init__(options)
        self.answers_required = answers_required
        self.questions_required = questions_required

    def split_of(self, path: Path) -> str:
        return ""

    def entries(self, path: Path, split: str) -> Iterator[Entry]:
        return read_json_lines(path)

    def sample(self, entry: Entry) -> Sample:
        return _sample(entry.fields, entry.number, self.answers_required, self.questions_required)

    @property
    def holds(self) -> str:
        return "questions" if self.questions_required else "media"

    def place(self, samples: Sequence[Sample], root: Path) -> list[Sample]:
        return [
            replace(sample, media={s: str(root / path) for s, path in sample.media.items()})
            for sample in samples
        ]

    def lenient(self, sample: Sample, prediction: str) -> bool:
        return lenience.contained(prediction, sample.answers)


def load(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    answers_required: bool = True,
    questions_required: bool = True,
) -> list[Sample]:
    """The samples of a file, in its order.

    A line without ``id`` is called ``line-<number>``.

    Raises DataError naming file, line and field for whatever is missing, unknown or ill-typed, and
    the questions of a pair that is none. A pair of which the file holds one question is no error.
    """
    task = Jsonl(answers_required=answers_required, questions_required=questions_required)
    return task.load(path, media_root=media_root)


def _sample(
    fields: Mapping[str, Any],
    number: int,
    answers_required: bool,
    questions_required: bool,
) -> Sample:
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=1, cutoff=0.0)[0]
            raise FieldError(
                f"unknown field {name!r}, did you mean {near!r}? Known: {', '.join(FIELDS)}"
            )
    if "question" not in fields and questions_required:
        raise FieldError("field 'question' is missing")
    options = _options(fields)
    media, timing = _media(fields)
    answers = _answers(fields, options, answers_required)
    return Sample(
        id=named(fields["id"], "id") if "id" in fields else f"line-{number}",
        question=_prompt(fields, options),
        media=media,
        answers=answers,
        options=options,
        type=_text(fields["type"], "type") if "type" in fields else "",
        timing=timing,
        needs=_needs(fields),
        pairs=_pairs(fields),
        candidates=_candidates(fields, options, answers),
        captions=_captions(fields),
    )


def _prompt(fields: Mapping[str, Any], options: Sequence[str]) -> str:
    """Empty where there is no question."""
    if "question" not in fields:
        return ""
    question = _text(fields["question"], "question")
    return multiple_choice(question, options) if options else open_ended(question)


def _options(fields: Mapping[str, Any]) -> tuple[str, ...]:
    if "options" not in fields:
        return ()
    options = _texts(fields["options"], "options")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise FieldError(
            f"field 'options' has {len(options)}; give 2 to {len(ascii_uppercase)}, or leave the "
            "field out of an open-ended question"
        )
    if len(set(options)) < len(options):
        raise FieldError("field 'options' names an option twice")
    return options


def _answers(fields: Mapping[str, Any], options: Sequence[str], required: bool) -> tuple[str, ...]:
    if "answer" in fields and "answers" in fields:
        raise FieldError("give field 'answer' or field 'answers', not both")
    if "answer" in fields:
        answers: tuple[str, ...] = (_text(fields["answer"], "answer"),)
    else:
        answers = _texts(fields.get("answers", []), "answers")
    if required and not answers:
        raise FieldError("field 'answer' is missing, and so is 'answers'")
    for answer in answers:
        if options and answer not in options:
            listed = ", ".join(repr(option) for option in options)
            raise FieldError(f"answer {answer!r} is not among the options {listed}")
    if options and len(set(answers)) > 1:
        raise FieldError("field 'answers' names several options; exactly one can be right")
    return answers


def _candidates(
    fields: Mapping[str, Any], options: Sequence[str], answers: Sequence[str]
) -> tuple[str, ...]:
    if "candidates" not in fields:
        return ()
    if options:
        raise FieldError(
            "give field 'options' or field 'candidates', not both: options are the candidates"
        )
    candidates = _texts(fields["candidates"], "candidates")
    if len(candidates) < 2:
        raise FieldError(
            f"field 'candidates' has {len(candidates)}; give 2 or more, or leave the field out"
        )
    plain = list(map(normalise, candidates))
    if len(set(plain)) < len(plain):
        twice = next(text for i, text in enumerate(candidates) if plain[i] in plain[:i])
        raise FieldError(f"field 'candidates' names {twice!r} twice")
    for answer in answers:
        if normalise(answer) not in plain:
            listed = ", ".join(repr(candidate) for candidate in candidates)
            raise FieldError(f"answer {answer!r} is not among the candidates {listed}")
    return candidates


def _needs(fields: Mapping[str, Any]) -> tuple[str, ...]:
    needs = _texts(fields.get("needs", []), "needs")
    for i, sense in enumerate(needs):
        _check_sense(sense, "needs")
        if sense in needs[:i]:
            raise FieldError(f"field 'needs' names {sense!r} twice")
    return tuple(modality.canonical(needs))


def _pairs(fields: Mapping[str, Any]) -> dict[str, str]:
    given = fields.get("pairs", {})
    if not isinstance(given, dict):
        raise FieldError(f"field 'pairs' must map senses to names of pairs, not be {_kind(given)}")
    for sense in given:
        _check_sense(sense, "pairs")
    return {sense: _text(given[sense], f"pairs.{sense}") for sense in modality.canonical(given)}


def _captions(fields: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], ...]]:
    given = fields.get("captions", {})
    if not isinstance(given, dict):
        raise FieldError(f"field 'captions' must map senses to words, not be {_kind(given)}")
    found = {}
    for sense, parts in given.items():
        _check_sense(sense, "captions")
        name = f"captions.{sense}"
        if not isinstance(parts, list) or not parts:
            raise FieldError(f"field {name!r} must be a list of lists of words, one or more")
        found[sense] = tuple(_texts(part, f"{name}[{i}]") for i, part in enumerate(parts))
        if not found[sense][0] or len(set(map(len, found[sense]))) > 1:
            raise FieldError(f"field {name!r}: its lists must hold equally many words, 1 or more")
        if any(word.strip("() ") == "" for part in found[sense] for word in part):
            raise FieldError(f"field {name!r}: a word is empty")
    return found


def _check_sense(sense: str, name: str) -> None:
    try:
        modality.get(sense)
    except ConfigError as error:
        raise FieldError(f"field {name!r}: {error}") from None


def _media(fields: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Timing]]:
    """Path, as it is written, and stated timing of each sense."""
    given = fields.get("media", {})
    if not isinstance(given, dict):
        raise FieldError(f"field 'media' must map senses to paths, not be {_kind(given)}")
    if "video" in fields and "video" in given:
        raise FieldError("the video is given twice: in field 'video' and in field 'media'")
    paths = {"video": fields["video"], **given} if "video" in fields else given
    media, timing = {}, {}
    for sense, value in paths.items():
        _check_sense(sense, "media")
        name = "video" if sense == "video" and "video" in fields else f"media.{sense}"
        if isinstance(value, dict):
            timing[sense] = _timing(value, name)
            if sense == "video" and timing[sense].start:
                raise FieldError(f"field '{name}.start': the video's first picture is second 0")
            value, name = value.get("path", ""), f"{name}.path"
        relative = _text(value, name)
        if "\0" in relative:
            raise FieldError(f"field {name!r} holds a null character, which no path can")
        media[sense] = relative
    if not media:
        raise FieldError("no media: give field 'video', or a sense and its path in 'media'")
    return media, timing


def _timing(value: Mapping[str, Any], name: str) -> Timing:
    for key in value:
        if key not in ("path", "rate", "start"):
            raise FieldError(f"unknown field {name + '.' + str(key)!r}; known: path, rate, start")
    rate = _number(value["rate"], f"{name}.rate") if "rate" in value else None
    if rate is not None and rate <= 0:
        raise FieldError(f"field '{name}.rate' must be above 0 pictures a second, not {rate:g}")
    return Timing(rate, _number(value.get("start", 0.0), f"{name}.start"))


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise FieldError(f"field {name!r} must be a number, not {_kind(value)}")
    return float(value)

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
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from open_crema import modality
from open_crema.data.sample import Sample, Timing, enter_pairs, normalise
from open_crema.errors import ConfigError, DataError

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


def load(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    answers_required: bool = True,
    questions_required: bool = True,
) -> list[Sample]:
    """The samples of a file, in its order.

    A line without ``id`` is called ``line-<number>``. The training target of multiple choice is
    the text of the right option, not its letter: it is what scoring the options compares, and it
    does not depend on the order in which they are listed. Without ``questions_required`` a line may
    name media alone.

    Raises DataError naming file, line and field for whatever is missing, unknown or ill-typed, and
    the questions of a pair that is none. A pair of which the file holds one question is no error.
    """
    path = Path(path)
    root = Path(media_root) if media_root is not None else path.parent
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    entered: dict[tuple[str, str], list[Sample]] = {}
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            sample = _sample(_parse(line), number, root, answers_required, questions_required)
        except _FieldError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        if sample.id in seen:
            raise DataError(
                f"{path}, line {number}: id {sample.id!r} is already that of line {seen[sample.id]}"
            )
        try:
            enter_pairs(sample, entered)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        seen[sample.id] = number
        samples.append(sample)
    if not samples:
        what = "questions" if questions_required else "media"
        raise DataError(f"{path}: holds no {what}; write one JSON object a line")
    return samples


class _FieldError(Exception):
    """What is wrong with one line; :func:`load` adds file and line."""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such data file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(f"{path}: cannot be read ({error})") from None


def _parse(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _FieldError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise _FieldError("not valid JSON: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise _FieldError(f"JSON that cannot be used: {error}") from None
    if not isinstance(data, dict):
        raise _FieldError(f"expected a JSON object, found {_kind(data)}")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _FieldError(f"field {twice!r} is given twice")
    return fields


def _sample(
    fields: Mapping[str, Any],
    number: int,
    root: Path,
    answers_required: bool,
    questions_required: bool,
) -> Sample:
    for name in fields:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=1, cutoff=0.0)[0]
            raise _FieldError(
                f"unknown field {name!r}, did you mean {near!r}? Known: {', '.join(FIELDS)}"
            )
    if "question" not in fields and questions_required:
        raise _FieldError("field 'question' is missing")
    options = _options(fields)
    media, timing = _media(fields, root)
    answers = _answers(fields, options, answers_required)
    return Sample(
        id=_id(fields["id"]) if "id" in fields else f"line-{number}",
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


def _id(value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole else _text(value, "id")


def _options(fields: Mapping[str, Any]) -> tuple[str, ...]:
    if "options" not in fields:
        return ()
    options = _texts(fields["options"], "options")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise _FieldError(
            f"field 'options' has {len(options)}; give 2 to {len(ascii_uppercase)}, or leave the "
            "field out of an open-ended question"
        )
    if len(set(options)) < len(options):
        raise _FieldError("field 'options' names an option twice")
    return options


def _answers(fields: Mapping[str, Any], options: Sequence[str], required: bool) -> tuple[str, ...]:
    if "answer" in fields and "answers" in fields:
        raise _FieldError("give field 'answer' or field 'answers', not both")
    if "answer" in fields:
        answers: tuple[str, ...] = (_text(fields["answer"], "answer"),)
    else:
        answers = _texts(fields.get("answers", []), "answers")
    if required and not answers:
        raise _FieldError("field 'answer' is missing, and so is 'answers'")
    for answer in answers:
        if options and answer not in options:
            listed = ", ".join(repr(option) for option in options)
            raise _FieldError(f"answer {answer!r} is not among the options {listed}")
    if options and len(set(answers)) > 1:
        raise _FieldError("field 'answers' names several options; exactly one can be right")
    return answers


def _candidates(
    fields: Mapping[str, Any], options: Sequence[str], answers: Sequence[str]
) -> tuple[str, ...]:
    if "candidates" not in fields:
        return ()
    if options:
        raise _FieldError(
            "give field 'options' or field 'candidates', not both: options are the candidates"
        )
    candidates = _texts(fields["candidates"], "candidates")
    if len(candidates) < 2:
        raise _FieldError(
            f"field 'candidates' has {len(candidates)}; give 2 or more, or leave the field out"
        )
    plain = list(map(normalise, candidates))
    if len(set(plain)) < len(plain):
        twice = next(text for i, text in enumerate(candidates) if plain[i] in plain[:i])
        raise _FieldError(f"field 'candidates' names {twice!r} twice")
    for answer in answers:
        if normalise(answer) not in plain:
            listed = ", ".join(repr(candidate) for candidate in candidates)
            raise _FieldError(f"answer {answer!r} is not among the candidates {listed}")
    return candidates


def _needs(fields: Mapping[str, Any]) -> tuple[str, ...]:
    needs = _texts(fields.get("needs", []), "needs")
    for i, sense in enumerate(needs):
        _check_sense(sense, "needs")
        if sense in needs[:i]:
            raise _FieldError(f"field 'needs' names {sense!r} twice")
    return tuple(modality.canonical(needs))


def _pairs(fields: Mapping[str, Any]) -> dict[str, str]:
    given = fields.get("pairs", {})
    if not isinstance(given, dict):
        raise _FieldError(f"field 'pairs' must map senses to names of pairs, not be {_kind(given)}")
    for sense in given:
        _check_sense(sense, "pairs")
    return {sense: _text(given[sense], f"pairs.{sense}") for sense in modality.canonical(given)}


def _captions(fields: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], ...]]:
    given = fields.get("captions", {})
    if not isinstance(given, dict):
        raise _FieldError(f"field 'captions' must map senses to words, not be {_kind(given)}")
    found = {}
    for sense, parts in given.items():
        _check_sense(sense, "captions")
        name = f"captions.{sense}"
        if not isinstance(parts, list) or not parts:
            raise _FieldError(f"field {name!r} must be a list of lists of words, one or more")
        found[sense] = tuple(_texts(part, f"{name}[{i}]") for i, part in enumerate(parts))
        if not found[sense][0] or len(set(map(len, found[sense]))) > 1:
            raise _FieldError(f"field {name!r}: its lists must hold equally many words, 1 or more")
        if any(word.strip("() ") == "" for part in found[sense] for word in part):
            raise _FieldError(f"field {name!r}: a word is empty")
    return found


def _check_sense(sense: str, name: str) -> None:
    try:
        modality.get(sense)
    except ConfigError as error:
        raise _FieldError(f"field {name!r}: {error}") from None


def _media(fields: Mapping[str, Any], root: Path) -> tuple[dict[str, str], dict[str, Timing]]:
    """Path and stated timing of each sense."""
    given = fields.get("media", {})
    if not isinstance(given, dict):
        raise _FieldError(f"field 'media' must map senses to paths, not be {_kind(given)}")
    if "video" in fields and "video" in given:
        raise _FieldError("the video is given twice: in field 'video' and in field 'media'")
    paths = {"video": fields["video"], **given} if "video" in fields else given
    media, timing = {}, {}
    for sense, value in paths.items():
        _check_sense(sense, "media")
        name = "video" if sense == "video" and "video" in fields else f"media.{sense}"
        if isinstance(value, dict):
            timing[sense] = _timing(value, name)
            if sense == "video" and timing[sense].start:
                raise _FieldError(f"field '{name}.start': the video's first picture is second 0")
            value, name = value.get("path", ""), f"{name}.path"
        relative = _text(value, name)
        if "\0" in relative:
            raise _FieldError(f"field {name!r} holds a null character, which no path can")
        media[sense] = str(root / relative)
    if not media:
        raise _FieldError("no media: give field 'video', or a sense and its path in 'media'")
    return media, timing


def _timing(value: Mapping[str, Any], name: str) -> Timing:
    for key in value:
        if key not in ("path", "rate", "start"):
            raise _FieldError(f"unknown field {name + '.' + str(key)!r}; known: path, rate, start")
    rate = _number(value["rate"], f"{name}.rate") if "rate" in value else None
    if rate is not None and rate <= 0:
        raise _FieldError(f"field '{name}.rate' must be above 0 pictures a second, not {rate:g}")
    return Timing(rate, _number(value.get("start", 0.0), f"{name}.start"))


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise _FieldError(f"field {name!r} must be a number, not {_kind(value)}")
    return float(value)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _FieldError(f"field {name!r} must be a list of strings, not {_kind(value)}")
    return tuple(_text(item, f"{name}[{i}]") for i, item in enumerate(value))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _FieldError(f"field {name!r} must be a string, not {_kind(value)}")
    text = value.strip()
    if not text:
        raise _FieldError(f"field {name!r} is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _FieldError(f"field {name!r} holds half of a UTF-16 pair, not text") from None
    return text


def _kind(value: Any) -> str:
    """What a JSON value is, for messages."""
    for kind, name in ((bool, "true or false"), (dict, "an object"), (list, "a list")):
        if isinstance(value, kind):
            return name
    if value is None:
        return "null"
    return "a string" if isinstance(value, str) else f"the number {value}"

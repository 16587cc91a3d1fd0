"""Annotation files, JSON and csv, entry by entry, each of which knows where in its file it is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from open_crema.errors import DataError
from open_crema.tasks.fields import FieldError, kind, unique_object


@dataclass(frozen=True)
class Entry:
    """One question of a file. place: gives "FILE, line N", with the entry's number or name where a
    line does not tell it; counted only when it is asked for. number: of its line, in files of
    lines."""

    fields: Mapping[str, Any]
    place: Callable[[], str]
    number: int = 0


def read_text(path: Path) -> str:
    """UTF-8, with a byte order mark or without. Raises DataError where it cannot be read so."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such data file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(f"{path}: cannot be read ({error})") from None


@dataclass(frozen=True)
class JsonFile:
    """A whole JSON file."""

    path: Path
    text: str
    content: Any

    def place(self, *steps: str | int) -> str:
        """Where the value that these keys and indices lead to begins."""
        names = [f"entry {s + 1}" if isinstance(s, int) else s for s in steps[-2:]]
        return f"{self.path}, line {_line(self.text, steps)} ({', '.join(names)})"

    def entries(self, *steps: str | int) -> Iterator[Entry]:
        """The objects of the list that these keys lead to. Raises DataError where there is no
        list, and for what in it is no object."""
        value = self.content
        for i, step in enumerate(steps):
            if not isinstance(value, dict) or step not in value:
                at = f" in {'.'.join(map(str, steps[:i]))}" if i else ""
                raise DataError(f"{self.path}: no field {step!r}{at}, as a file of this task has")
            value = value[step]
        if not isinstance(value, list):
            what = f"field {steps[-1]!r}" if steps else "the file"
            raise DataError(f"{self.path}: {what} must be a list of objects, not {kind(value)}")
        for i, fields in enumerate(value):
            place = partial(self.place, *steps, i)
            if not isinstance(fields, dict):
                raise DataError(f"{place()}: expected an object, found {kind(fields)}")
            yield Entry(fields, place)


def read_json(path: Path) -> JsonFile:
    """Raises DataError naming the line where it is not JSON, as one that was cut off is."""
    text = read_text(path)
    try:
        return JsonFile(path, text, json.loads(text, object_pairs_hook=unique_object))
    except json.JSONDecodeError as error:
        rest = text[error.pos :].strip()
        cut = "" if rest else "; the file ends too early: download or copy it again"
        raise DataError(
            f"{path}, line {error.lineno}: not valid JSON: {error.msg} at column {error.colno}{cut}"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: not valid JSON: nested too deeply") from None
    except (FieldError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise DataError(f"{path}: JSON that cannot be used: {error}") from None


def _line(text: str, steps: Sequence[str | int]) -> int:
    """The line on which the value that keys and indices lead to begins, of a valid JSON text."""
    skip = json.JSONDecoder().raw_decode
    at = _blank(text, 0)
    for step in steps:
        at, count = _blank(text, at + 1), 0  # past the bracket
        while True:
            name: str | int = count
            if isinstance(step, str):
                name, at = skip(text, at)
                at = _blank(text, _blank(text, at) + 1)  # past the colon
            if name == step:
                break
            _, at = skip(text, at)
            at, count = _blank(text, _blank(text, at) + 1), count + 1  # past the comma
    return text.count("\n", 0, at) + 1


def _blank(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def read_csv(path: Path, columns: Sequence[str], *, header: bool = True) -> Iterator[Entry]:
    """The rows of a csv file. header: whether its first row names the columns, of which it must
    have these and may have others; without one every row has these.

    Raises DataError naming the line: for a missing column, and for a row of more or fewer cells.
    """
    text = read_text(path)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = list(columns)
    try:
        if header:
            names = [name.strip() for name in next(rows, [])]
            if missing := [name for name in columns if name not in names]:
                raise DataError(
                    f"{path}, line 1: no column {', '.join(map(repr, missing))}; the file must "
                    f"begin with a row of names, {','.join(columns)}"
                )
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"{path}, line 1: two columns are called {twice!r}")
        for cells in rows:
            if not cells:
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(cells)} cells, but there are "
                    f"{len(names)} columns ({','.join(names)}): was a comma or a quote lost?"
                )
            place = f"{path}, line {rows.line_num}"
            yield Entry(dict(zip(names, cells, strict=True)), partial(str, place), rows.line_num)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not valid csv: {error}") from None


def read_json_lines(path: Path) -> Iterator[Entry]:
    """One JSON object a line. Raises DataError naming the line that is none."""
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                yield Entry(_object(line), partial(str, place), number)
            except FieldError as error:
                raise DataError(f"{place}: {error}") from None


def _object(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line, object_pairs_hook=unique_object)
    except json.JSONDecodeError as error:
        raise FieldError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise FieldError("not valid JSON: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise FieldError(f"JSON that cannot be used: {error}") from None
    if not isinstance(data, dict):
        raise FieldError(f"expected a JSON object, found {kind(data)}")
    return data

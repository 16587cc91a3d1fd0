"""Values of a data file's entries, each checked as it is read: what is wrong names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class FieldError(Exception):
    """What is wrong with one entry of a data file; whoever reads the file adds where it is."""


def kind(value: Any) -> str:
    """What a JSON value is, for messages."""
    for of, name in ((bool, "true or false"), (dict, "an object"), (list, "a list")):
        if isinstance(value, of):
            return name
    if value is None:
        return "null"
    return "a string" if isinstance(value, str) else f"the number {value}"


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """``object_pairs_hook`` of JSON readers. Raises FieldError for a field that is given twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FieldError(f"field {twice!r} is given twice")
    return fields


def require(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise FieldError(f"field {name!r} is missing")
    return fields[name]


def text(value: Any, name: str) -> str:
    """Without the spaces around it. Raises FieldError where there is no text."""
    if not isinstance(value, str):
        raise FieldError(f"field {name!r} must be a string, not {kind(value)}")
    found = value.strip()
    if not found:
        raise FieldError(f"field {name!r} is empty")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise FieldError(f"field {name!r} holds half of a UTF-16 pair, not text") from None
    return found


def texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise FieldError(f"field {name!r} must be a list of strings, not {kind(value)}")
    return tuple(text(item, f"{name}[{i}]") for i, item in enumerate(value))


def named(value: Any, name: str) -> str:
    """An id: a text or a whole number."""
    whole_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole_number else text(value, name)


def whole(value: Any, name: str, below: int | None = None) -> int:
    """A whole number from 0 on, as such or (in csv) as digits. Raises FieldError for another, and
    for one that is not ``below``."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        found = repr(value) if isinstance(value, str) else kind(value)
        raise FieldError(f"field {name!r} must be a whole number from 0 on, not {found}")
    if below is not None and value >= below:
        raise FieldError(f"field {name!r} is {value}; it must be one of 0 to {below - 1}")
    return value


def media_name(value: Any, name: str) -> str:
    """An id that is the name of a media file: it may not lead out of the folder of the media."""
    found = named(value, name)
    if "\0" in found or "\\" in found or ".." in found.split("/") or found.startswith("/"):
        raise FieldError(f"field {name!r} is {found!r}, which is no name of a file")
    return found


def blank(value: Any) -> bool:
    """Whether there is no answer where one could be: such a question is counted, not scored."""
    return value is None or (isinstance(value, str) and not value.strip())


def right_option(value: Any, name: str, options: Sequence[str]) -> tuple[str, ...]:
    """The option of that number, none where the field is empty."""
    return () if blank(value) else (options[whole(value, name, below=len(options))],)

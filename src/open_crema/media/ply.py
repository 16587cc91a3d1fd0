"""PLY files (ascii, binary of either byte order): the vertices' places and colours.

An own reader, because the maintained one (plyfile) is under the GPL. Only the vertices are read;
elements after them (faces) are passed over, and of those before them none may hold lists, whose
length cannot be known without reading them.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from open_crema.errors import MediaError
from open_crema.media.arrays import Array
from open_crema.media.source import Limits

_TYPES = {
    name: code
    for code, names in {
        "i1": "char int8",
        "u1": "uchar uint8",
        "i2": "short int16",
        "u2": "ushort uint16",
        "i4": "int int32",
        "u4": "uint uint32",
        "f4": "float float32",
        "f8": "double float64",
    }.items()
    for name in names.split()
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 65_536  # bytes


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)  # name, type; "" is a list


def read_ply(path: Path, limits: Limits) -> tuple[Array, Array | None]:
    """Points [N, 3] and colours [N, 3] of the file's types, colours None where there are none.

    Raises MediaError: not PLY, cut short, without x y z, or of too many points.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened: {error.strerror}") from None
    header, found, _ = data[:_MAX_HEADER].partition(b"end_header")
    if not data.startswith(b"ply") or not found:
        raise _damaged(path, "it does not begin with a whole PLY header")
    at = data.find(b"\n", len(header)) + 1 or len(data)
    order, elements = _header(path, header)
    before: list[_Element] = []
    for element in elements:
        if element.name == "vertex":
            break
        before.append(element)
    else:
        raise _damaged(path, "it has no vertices")
    if not element.count:
        raise _damaged(path, "it has no point")
    limits.check_points(path, element.count)
    if any(type == "" for e in (*before, element) for _, type in e.properties):
        raise _damaged(path, "its vertices hold, or come after, lists")
    if order:
        at += sum(e.count * _dtype(e, order).itemsize for e in before)
        columns = _binary(path, data, at, element, order)
    else:
        columns = _ascii(path, data[at:], sum(e.count for e in before), element)
    missing = [name for name in "xyz" if name not in columns]
    if missing:
        raise _damaged(path, f"its vertices have no {missing[0]!r}")
    xyz = np.stack([columns[name] for name in "xyz"], axis=1)
    for names in (("red", "green", "blue"), ("r", "g", "b")):
        if all(name in columns for name in names):
            return xyz, np.stack([columns[name] for name in names], axis=1)
    return xyz, None


def _header(path: Path, header: bytes) -> tuple[str, list[_Element]]:
    """The byte order ("" for ascii) and the elements."""
    order: str | None = None
    elements: list[_Element] = []
    for line in header.decode("latin-1").splitlines()[1:]:
        words = line.split()
        match words:
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, _] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, count] if count.isascii() and count.isdecimal():
                elements.append(_Element(name, int(count[:18])))
            case ["property", "list", _, _, name] if elements:
                elements[-1].properties.append((name, ""))
            case ["property", type, name] if elements and type in _TYPES:
                elements[-1].properties.append((name, _TYPES[type]))
            case _:
                raise _damaged(path, f"its header holds {line[:60]!r}")
    if order is None:
        raise _damaged(path, "its header names no format")
    for element in elements:
        names = [name for name, _ in element.properties]
        if len(set(names)) < len(names):
            raise _damaged(path, f"its header names a property of {element.name!r} twice")
    return order, elements


def _dtype(element: _Element, order: str) -> "np.dtype[np.void]":
    return np.dtype([(name, order + type) for name, type in element.properties])


def _binary(path: Path, data: bytes, at: int, element: _Element, order: str) -> dict[str, Array]:
    dtype = _dtype(element, order)
    if len(data) < at + element.count * dtype.itemsize:
        raise _damaged(path, f"it is cut short: its header promises {element.count} points")
    rows = np.frombuffer(data, dtype, element.count, at)
    return {
        name: rows[name].astype(rows[name].dtype.newbyteorder("="))
        for name, _ in element.properties
    }


def _ascii(path: Path, data: bytes, skip: int, element: _Element) -> dict[str, Array]:
    lines = data.decode("latin-1").splitlines()[skip : skip + element.count]
    if len(lines) < element.count:
        raise _damaged(path, f"it is cut short: its header promises {element.count} points")
    width = len(element.properties)
    try:
        rows = np.loadtxt(io.StringIO("\n".join(lines)), ndmin=2, comments=None)
    except ValueError as error:
        raise _damaged(path, f"its points are not rows of numbers ({error})") from None
    if rows.shape != (element.count, width):
        raise _damaged(path, f"its points are not rows of {width} numbers")
    columns = zip(element.properties, rows.T, strict=True)
    return {name: _typed(values, type) for (name, type), values in columns}


def _typed(values: Array, type: str) -> Array:
    """Numbers as the header types them; out of its range they stay what they are."""
    whole = np.dtype(type).kind in "iu"
    if whole and np.isfinite(values).all() and (values == np.rint(values)).all():
        return values.astype(np.int64) if np.abs(values).max() < 2**62 else values
    return values


def _damaged(path: Path, why: str) -> MediaError:
    return MediaError(f"{path}: not a readable PLY point cloud: {why}. Export it again")

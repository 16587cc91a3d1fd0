"""Configurations as YAML and plain data, overridable by ``key=value``.

Whatever does not fit the schema is an error that names the key and the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from open_crema.config.schema import Config
from open_crema.errors import ConfigError


def from_dict(data: Mapping[str, Any], *, where: str = "config", schema: type[Any] = Config) -> Any:
    """A configuration object from plain data.

    Raises ConfigError with ``where`` and the full key of each unknown or ill-typed value; for an
    unknown key, the nearest valid one.
    """
    try:
        return TypeAdapter(schema).validate_python(dict(data))
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"], e["type"], schema) for e in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _explain(location: tuple[int | str, ...], message: str, kind: str, schema: type[Any]) -> str:
    key = ".".join(str(part) for part in location)
    if kind not in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: {message[:1].lower()}{message[1:]}"
    section, _, name = key.rpartition(".")
    valid = [k.rpartition(".") for k in sorted(_keys(schema), key=lambda k: k.count("."))]
    beside = [last for above, _, last in valid if above == section]
    near = [(above, last) for above, _, last in valid if last == name]
    near += [(section, last) for last in difflib.get_close_matches(name, beside, n=1)]
    if near:
        return f"unknown key {key!r}, did you mean {'.'.join(near[0]).lstrip('.')!r}?"
    return f"unknown key {key!r}; {section or 'the top level'} has {', '.join(beside)}"


def _keys(schema: type[Any], prefix: str = "") -> list[str]:
    keys = []
    for f in dataclasses.fields(schema):
        keys.append(prefix + f.name)
        default = f.default_factory
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            keys += _keys(default, f"{prefix}{f.name}.")
    return keys


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data (lists, dicts, scalars) that :func:`from_dict` gives back unchanged."""
    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def to_yaml(config: Any) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def load(
    path: str | Path, overrides: Sequence[str] = (), *, overlays: Sequence[Path] = ()
) -> Config:
    """Reads a YAML file, lays overlays and then ``a.b=value`` overrides over it.

    A file may start from another by ``base: other.yaml`` (relative to itself).
    Raises ConfigError for a missing or broken file and for whatever does not fit the schema.
    """
    data = _read_yaml(Path(path))
    for overlay in overlays:
        data = _merge(data, _read_yaml(overlay))
    for override in overrides:
        data = _merge(data, _parse_override(override))
    where = " + ".join(str(source) for source in (path, *overlays, *overrides))
    config: Config = from_dict(data, where=where)
    return config


def override(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with ``a.b=value`` overrides laid over it."""
    data = to_dict(config)
    for text in overrides:
        data = _merge(data, _parse_override(text))
    changed: Config = from_dict(data, where=" + ".join(["overrides", *overrides]))
    return changed


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


# A nesting too deep, and scalars that look like a date or a number but are none.
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError)


def _read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """above: the files whose ``base`` led here."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        named = f", which {above[-1]} names as its base" if above else ""
        raise ConfigError(f"{path}: no such configuration file{named}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    try:
        data = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(data).__name__}")
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the path of a YAML file, found {base!r}")
    above = (*above, path.resolve())
    if (path.parent / base).resolve() in above:
        raise ConfigError(f"{path}: base: {base} leads back to itself")
    return _merge(_read_yaml(path.parent / base, above), data)


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.lstrip("-").partition("=")
    if not equals or not key:
        raise ConfigError(f"override {text!r}: write key=value, as in train.epochs=3")
    try:
        parsed: Any = yaml.load(value, _Loader) if value else None
    except _NOT_YAML:
        raise ConfigError(f"override {text!r}: {value!r} is not a YAML value") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged

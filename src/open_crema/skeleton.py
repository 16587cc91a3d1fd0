"""The skeleton of a package that adds a sense (``crema modality new NAME``)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

from open_crema import modality
from open_crema.errors import ConfigError

# Where each template goes.
_PLACES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "sense.py": "src/{package}/__init__.py",
    "test_sense.py": "tests/test_{name}.py",
}


def write_modality(name: str, folder: str | Path) -> Path:
    """Writes an installable package that registers the sense ``name``; returns its folder.

    Raises ConfigError for a name that is taken or cannot be one, and where the folder exists.
    """
    folder = Path(folder)
    if not name.isidentifier() or not name.isascii() or not name.islower():
        raise ConfigError(
            f"modality name {name!r}: use lower-case ASCII letters, digits and '_', a letter first"
        )
    if name in modality.names():
        raise ConfigError(f"modality {name!r} is already registered; choose another name")
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; choose another folder (--out)")
    words = name.split("_")
    values = {
        "name": name,
        "package": f"crema_{name}",
        "dashed": name.replace("_", "-"),
        "label": " ".join(words).title(),
        "class": "".join(word.title() for word in words) + "Encoder",
    }
    templates = files("open_crema") / "templates" / "modality"
    for template, place in _PLACES.items():
        text = Template((templates / f"{template}.tmpl").read_text(encoding="utf-8"))
        file = folder / place.format(**values)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.substitute(values), encoding="utf-8")
    return folder

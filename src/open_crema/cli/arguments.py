"""What the commands share: how one is added, and arguments that several have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from open_crema.errors import ConfigError


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    """A sub-command that calls ``run``; the text is its help."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(run=run)
    return added


def overridable(added: argparse.ArgumentParser) -> None:
    """``--overlay FILE`` and ``KEY=VALUE`` over a configuration."""
    added.add_argument(
        "--overlay",
        action="append",
        default=[],
        type=Path,
        help="YAML laid over the configuration, as configs/reference.yaml; may be repeated",
    )
    added.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="as in train.epochs=3 (also --KEY=VALUE)",
    )


def options_of_task(added: argparse.ArgumentParser) -> None:
    """``--option NAME=VALUE`` of a task."""
    added.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the task, as in split=real of music_avqa; may be repeated (docs/tasks.md)",
    )


def chosen_options(options: argparse.Namespace) -> dict[str, str]:
    """Raises ConfigError for one without a value."""
    chosen = {}
    for given in options.option:
        name, found, value = given.partition("=")
        if not found or not name or not value:
            raise ConfigError(f"--option {given}: write NAME=VALUE, as in split=real")
        chosen[name] = value
    return chosen

"""What the commands share: how one is added, and arguments that several have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


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

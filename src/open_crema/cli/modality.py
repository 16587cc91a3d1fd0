"""crema modality: the senses that are known here, and the skeleton of a new one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from open_crema.cli.arguments import command


def add(commands: Any) -> None:
    group = commands.add_parser("modality", help="List the known senses; begin a new one.")
    parts = group.add_subparsers(dest="part", required=True, metavar="COMMAND")
    known = command(parts, "list", _list, "List the senses that are known here.")
    known.add_argument("--json", action="store_true")
    new = command(parts, "new", _new, "Write the skeleton of a package that adds a sense.")
    new.add_argument("name", help="lower-case letters, digits, '_'")
    new.add_argument("--out", type=Path, help="folder to make; default: ./crema-NAME")


def _list(options: argparse.Namespace) -> None:
    from open_crema import modality

    senses = [modality.get(name) for name in modality.names()]
    rows = [
        {
            "name": sense.name,
            "label": sense.label,
            "encoder": sense.encoder if isinstance(sense.encoder, str) else "its own",
            "made from": list(sense.expert_from) if sense.expert else [],
            "alignment": sense.alignment,
        }
        for sense in senses
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    shown = Table()
    for title in rows[0]:
        shown.add_column(title)
    for row in rows:
        shown.add_row(*(v if isinstance(v, str) else ", ".join(v) for v in row.values()))
    Console().print(shown)


def _new(options: argparse.Namespace) -> None:
    from open_crema.skeleton import write_modality

    folder = write_modality(options.name, options.out or Path(f"crema-{options.name}"))
    print(f"written to {folder}; next: pip install -e {folder}, then edit src/ and run its tests")

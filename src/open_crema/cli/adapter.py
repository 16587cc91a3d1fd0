"""crema adapter list, add, remove, export; crema push: adapters as files that change hands."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from open_crema.cli.arguments import command

_LIST = "List a model's adapters: sense, size, encoder, fingerprint, company in training."
_ADD = "Add an adapter that was trained on the same base; nothing else of the model moves."
_REMOVE = "Take an adapter out; the others answer as if it had never been there."
_EXPORT = "Write an adapter as a folder of its own, to be added to other copies of its base."
_PUSH = "Publish a model or an exported adapter on the Hugging Face hub."


def add(commands: Any) -> None:
    text = "List, add, remove or export the adapters of a model."
    parts = commands.add_parser("adapter", help=text, description=text)
    actions = parts.add_subparsers(dest="action", required=True, metavar="ACTION")

    listed = command(actions, "list", _list, _LIST)
    listed.add_argument("model", type=Path, help="model folder")
    listed.add_argument("--json", action="store_true")

    added = command(actions, "add", _add, _ADD)
    added.add_argument("model", type=Path, help="model folder")
    added.add_argument("adapter", help="adapter folder, or user/name on the hub")
    added.add_argument("--out", type=Path, help="write a new model there; default: change this one")
    added.add_argument(
        "--force",
        action="store_true",
        help="although its fusion bias or primary sense is not that of its training",
    )
    added.add_argument("--replace", action="store_true", help="instead of the one that is there")
    added.add_argument("--revision", help="of the hub repository")

    removed = command(actions, "remove", _remove, _REMOVE)
    removed.add_argument("model", type=Path, help="model folder")
    removed.add_argument("name", help="sense")
    removed.add_argument("--out", type=Path, help="write a new model there; default: change this")

    exported = command(actions, "export", _export, _EXPORT)
    exported.add_argument("model", type=Path, help="model folder")
    exported.add_argument("name", help="sense")
    exported.add_argument("out", type=Path, help="folder to write")

    push = command(commands, "push", _push, _PUSH)
    push.add_argument("folder", type=Path, help="model folder, or that of an exported adapter")
    push.add_argument("repository", help="user/name")
    push.add_argument("--private", action="store_true", help="if it is made now")
    push.add_argument("--revision", help="branch; default: main")
    push.add_argument("--message", help="of the commit")
    push.add_argument("--licence", default="other", help="identifier for the card, as apache-2.0")


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from open_crema.config import to_dict
    from open_crema.model.exchange import list_adapters

    found = list_adapters(options.model)
    if options.json:
        rows = [
            {
                **to_dict(one.info),
                "parameters": one.parameters,
                "bytes": one.bytes,
                "notes": list(one.notes),
            }
            for one in found
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table("sense", "parameters", "MB", "encoder")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("trained with")
    table.add_column("state")
    for one in found:
        info = one.info
        table.add_row(
            info.sense,
            f"{one.parameters:,}",
            f"{one.bytes / 1e6:.1f}",
            info.encoder.name or f"own ({info.encoder.width} wide)",
            info.fingerprint,
            ", ".join(info.trained_with) or "-",
            "untrained" if info.fresh else "trained",
        )
    Console().print(table)
    for one in found:
        _say(one.info.sense, one.notes)


def _add(options: argparse.Namespace) -> None:
    from open_crema.model.exchange import add_adapter

    remarks = add_adapter(
        options.model,
        options.adapter,
        out=options.out,
        force=options.force,
        replace=options.replace,
        revision=options.revision,
    )
    _say("note", remarks)
    print(options.out or options.model)


def _remove(options: argparse.Namespace) -> None:
    from open_crema.model.exchange import remove_adapter

    _say("note", remove_adapter(options.model, options.name, out=options.out))
    print(options.out or options.model)


def _export(options: argparse.Namespace) -> None:
    from open_crema.model.exchange import export_adapter

    print(export_adapter(options.model, options.name, options.out))


def _push(options: argparse.Namespace) -> None:
    from open_crema.model.publish import push_to_hub

    print(
        push_to_hub(
            options.folder,
            options.repository,
            private=options.private,
            revision=options.revision,
            message=options.message,
            licence=options.licence,
        )
    )


def _say(about: str, remarks: Any) -> None:
    for remark in remarks:
        print(f"{about}: {remark}", file=sys.stderr)

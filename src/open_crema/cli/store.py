"""crema store: what the feature store holds, whether it is whole, what can go."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from open_crema.cli.arguments import command
from open_crema.errors import CremaError

if TYPE_CHECKING:
    from open_crema.data.entry import About
    from open_crema.data.garbage import Removed
    from open_crema.data.inventory import Damage, Share
    from open_crema.data.store import FeatureStore


def add(commands: Any) -> None:
    store = commands.add_parser(
        "store",
        help="Look into the feature store, verify it, tidy it.",
        description="The feature store: what frozen encoders said of each source.",
    )
    parts = store.add_subparsers(dest="part", required=True, metavar="COMMAND")

    def part(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:
        added = command(parts, name, run, text)
        added.add_argument(
            "store", nargs="?", type=Path, help="its folder; default: the one in the cache"
        )
        added.add_argument("--json", action="store_true")
        return added

    part("info", _info, "Say what is in it, by sense and by encoder.")
    part("verify", _verify, "Read every entry; name each damaged one. Exit code 2 if there is any.")
    gc = part("gc", _gc, "Remove what no source on disk can reach any more, and stray files.")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.add_argument(
        "--gone",
        action="store_true",
        help="also entries whose source's whole folder is gone; else they are kept, since the "
        "disk may not be mounted",
    )


def _open(options: argparse.Namespace) -> FeatureStore:
    from open_crema import weights
    from open_crema.data import inventory

    return inventory.open_store(options.store or weights.home() / "features")


def _info(options: argparse.Namespace) -> None:
    from open_crema.data import inventory

    store = _open(options)
    found = inventory.summary(store)
    if options.json:
        print(json.dumps({"store": str(store.root), **asdict(found)}, indent=2))
        return
    console = Console()
    print(
        f"{store.root}: {found.entries} entries of {found.sources} sources, "
        f"{decimal(found.bytes)} in {found.shards} shards and {found.loose} loose files"
    )
    for title, shares in (("sense", found.senses), ("encoder", found.encoders)):
        console.print(_shares(title, shares))
    for sense, share in sorted(found.senses.items()):
        for reason, count in sorted(share.absent.items()):
            print(f"{count} without {sense}: {reason}")
    for count, what in (
        (found.copies, "second copies of an entry"),
        (found.earlier, "entries of an earlier version, not read any more"),
        (found.damaged, "damaged; `crema store verify` names them"),
    ):
        if count:
            print(f"{count} {what}")


def _shares(title: str, shares: dict[str, Share]) -> Table:
    table = Table(title, "entries", "absent", "size")
    for name, share in sorted(shares.items()):
        absent = sum(share.absent.values())
        table.add_row(name, str(share.entries), str(absent), decimal(share.bytes))
    return table


def _verify(options: argparse.Namespace) -> None:
    from open_crema.data import inventory

    store = _open(options)
    found = inventory.verify(store)
    damaged = (*found.entries, *found.shards)
    if options.json:
        report = {
            "store": str(store.root),
            "checked": found.checked,
            "good": found.good,
            "damaged": [_damage(one) for one in found.entries],
            "damaged_shards": [_damage(one) for one in found.shards],
            "earlier": found.earlier,
        }
        print(json.dumps(report, indent=2))
    else:
        for one in damaged:
            print(one)
        print(f"{found.checked} checked = {found.good} good + {len(found.entries)} damaged")
    if damaged:
        shards = f" and {len(found.shards)} whole shards" if found.shards else ""
        raise CremaError(
            f"{store.root}: {len(found.entries)} damaged entries{shards}; they are made again when "
            "next used, from their sources, and after that `crema store gc` removes them; check "
            "the disk"
        )


def _gc(options: argparse.Namespace) -> None:
    from open_crema.data import garbage
    from open_crema.data.extract import RECIPE

    store = _open(options)
    found = garbage.collect(store, recipe=RECIPE, dry_run=options.dry_run, gone=options.gone)
    size = sum(one.size for one in found.removed)
    if options.json:
        report = {
            "store": str(store.root),
            "dry_run": options.dry_run,
            "bytes": size,
            "removed": [_removed(one) for one in found.removed],
            "kept_away": found.away,
        }
        print(json.dumps(report, indent=2))
        return
    reasons: dict[str, list[int]] = {}
    for one in found.removed:
        reasons.setdefault(one.why, []).append(one.size)
    for why, sizes in reasons.items():
        print(f"{len(sizes)} {why}: {decimal(sum(sizes))}")
    done = "would be removed" if options.dry_run else "removed"
    print(f"{store.root}: {len(found.removed)} {done}, {decimal(size)}")
    if found.away:
        print(
            f"{found.away} entries kept although the folder of their source is missing or empty; "
            "if it will not come back: --gone"
        )


def _about(about: About | None) -> dict[str, Any]:
    if about is None:
        return {"sense": None, "sources": []}
    return {"sense": about.sense, "sources": [path for path, _ in about.sources]}


def _damage(one: Damage) -> dict[str, Any]:
    return {"file": str(one.file), "key": one.key, **_about(one.about), "why": one.why}


def _removed(one: Removed) -> dict[str, Any]:
    found = {"file": str(one.file), "why": one.why, "bytes": one.size}
    if one.copy is None:
        return found
    about = one.copy.label.about if one.copy.label else None
    return {**found, "key": one.copy.key, **_about(about)}

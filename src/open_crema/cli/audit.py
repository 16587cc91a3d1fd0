"""crema data audit: whether the questions of SenseQA can be answered without their senses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from open_crema.cli.arguments import command
from open_crema.errors import ConfigError, CremaError, did_you_mean
from open_crema.termination import at_once

if TYPE_CHECKING:
    from open_crema.senseqa.audit import Audit, Rate, Row

_KNOWN = ("senseqa",)
_COLUMNS = (
    "type",
    "sense withheld",
    "questions",
    "chance",
    "blind",
    "without",
    "pairs without",
    "with",
    "pairs with",
    "closed",
    "verdict",
)


def add(parts: Any) -> None:
    audit = command(
        parts,
        "audit",
        _audit,
        "Let simple classifiers answer the questions: without the sense that is needed, which must "
        "be no better than chance, and with it. Exit code 2 where a type is open or unsolved.",
    )
    audit.add_argument("name", help="senseqa")
    audit.add_argument("--n", type=int, default=2000, help="questions of each type; default: 2000")
    audit.add_argument("--seed", type=int, default=0)
    audit.add_argument("--split", default="val", help="train, val (default) or test")
    audit.add_argument(
        "--types", nargs="+", action="extend", metavar="TYPE", help="of questions; default: all"
    )
    audit.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write audit.json and audit.md here; features are kept here, too, so that the same "
        "command goes on where it was interrupted",
    )
    audit.add_argument("--workers", type=int, default=0, help="processes; default: one a core")
    audit.add_argument("--json", action="store_true")


def _audit(options: argparse.Namespace) -> None:
    if options.name not in _KNOWN:
        hint = did_you_mean(options.name, _KNOWN)
        raise ConfigError(f"unknown data set {options.name!r}: {hint}known: {', '.join(_KNOWN)}")
    try:
        from open_crema.senseqa.audit import audit
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("sklearn", "scipy"):
            raise
        raise CremaError("an audit needs scikit-learn: pip install 'open-crema[audit]'") from None
    from open_crema.senseqa.types import TYPES

    with at_once():
        found = audit(
            options.n,
            seed=options.seed,
            split=options.split,
            types=options.types or tuple(TYPES),
            out=options.out,
            workers=options.workers,
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        from open_crema.storage import write_json

        write_json(options.out / "audit.json", _report(options, found))
        text = _markdown(options, found)
        (options.out / "audit.md").write_text(text, encoding="utf-8")
    if options.json:
        print(json.dumps(_report(options, found), indent=2))
    else:
        Console().print(_table(found))
    if found.faults:
        raise CremaError(
            f"{len(found.faults)} types are open or unsolved: {', '.join(found.faults)}; what "
            "tells the answer away is to be found, or the probe is too weak"
        )


def _command(options: argparse.Namespace) -> str:
    types = f" --types {' '.join(options.types)}" if options.types else ""
    return (
        f"crema data audit {options.name} --n {options.n} --seed {options.seed} "
        f"--split {options.split}{types}"
    )


def _report(options: argparse.Namespace, found: Audit) -> dict[str, Any]:
    return {"command": _command(options), **found.json()}


def _cells(row: Row) -> Sequence[str]:
    return (
        row.type,
        row.sense,
        str(row.questions),
        f"{100 * row.chance:.1f}",
        _rate(row.blind),
        _rate(row.without),
        f"{100 * row.without_pairs.rate:.1f}",
        _rate(row.seen),
        _rate(row.seen_pairs),
        "yes" if row.closed else "NO",
        row.verdict,
    )


def _rate(rate: Rate) -> str:
    return f"{100 * rate.rate:.1f} ({100 * rate.low:.1f}-{100 * rate.high:.1f})"


def _table(found: Audit) -> Table:
    """Without intervals, for which a terminal is too narrow."""
    table = Table(
        *("type", "withheld", "chance", "blind", "without", "with", "pairs", ""),
        box=None,
        padding=(0, 1, 0, 0),
        caption=f"% of {found.n} questions a type; intervals: --json or --out",
    )
    for row in found.rows:
        rates = (row.blind.rate, row.without.rate, row.seen.rate, row.seen_pairs.rate)
        verdict = f"{'closed' if row.closed else 'OPEN'}, {row.verdict}"
        shown = (f"{100 * rate:.1f}" for rate in (row.chance, *rates))
        table.add_row(row.type, row.sense, *shown, verdict)
    return table


def _markdown(options: argparse.Namespace, found: Audit) -> str:
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_cells, found.rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"`{_command(options)}`\n\n{table}\n\n"
        "Per cent, with the Wilson interval at 95 %. *Pairs*: both of two questions right whose "
        "clips differ in that sense alone. *Closed*: chance is inside the intervals of *blind* and "
        f"*without* at {100 * found.sure:.2f} %, at which all intervals of the table together hold "
        "at 95 %, and no pair is answered without the sense.\n"
    )

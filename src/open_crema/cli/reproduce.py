"""crema reproduce: the tables of docs/results.md, measured again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from open_crema.cli.arguments import command
from open_crema.errors import ConfigError
from open_crema.termination import at_once


def add(commands: Any) -> None:
    reproduce = command(
        commands,
        "reproduce",
        _reproduce,
        "Measure the tables of docs/results.md again. What has been measured is not done again.",
    )
    reproduce.add_argument("benchmark", choices=["senseqa"])
    reproduce.add_argument(
        "--only", action="append", metavar="NAME", help="this study (repeatable)"
    )
    reproduce.add_argument("--list", action="store_true", help="name the studies, run none")
    reproduce.add_argument("--out", type=Path, default=Path("out/senseqa"), metavar="DIR")
    reproduce.add_argument("--base", type=Path, help="another base than the one that ships")
    reproduce.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of studies that train; default: 0"
    )
    reproduce.add_argument("--test", type=int, default=20, help="questions of each type")
    reproduce.add_argument(
        "--clips", type=int, default=600, help="that training studies learn from; default: 600"
    )
    reproduce.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every training")


def _reproduce(options: argparse.Namespace) -> None:
    from open_crema import reproduce

    if options.list:
        for name, study in reproduce.STUDIES.items():
            print(f"{name:10} {study.claim}")
        return
    if options.test < 2 or options.test % 2:
        raise ConfigError(f"--test {options.test}: questions come in pairs; give an even number")
    if options.clips < 2:
        raise ConfigError(f"--clips {options.clips}: give at least 2, a pair")
    chosen = {name: reproduce.find(name) for name in options.only or reproduce.STUDIES}
    with at_once():
        from rich.console import Console

        console = Console()
        bench = reproduce.Bench(
            options.out,
            base=options.base,
            size=reproduce.Size(options.test, options.clips),
            seeds=options.seeds,
            overrides=options.overrides,
        )
        for name, study in chosen.items():
            console.print(f"[bold]{name}[/bold]: {study.claim}")
            for i, table in enumerate(study.run(bench)):
                console.print(table.shown())
                table.write(bench.out / (f"{name}-{i + 1}" if i else name))
        console.print(f"written to {bench.out}")

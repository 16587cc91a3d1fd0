"""crema cost: parameters, operations, memory and disk of a configuration, before it is run."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console

from open_crema.cli.arguments import command, overridable
from open_crema.errors import ConfigError

if TYPE_CHECKING:
    from open_crema.cost import Workload

_TOKENS = ("frames", "audio_windows", "text", "answer", "label")


def add(commands: Any) -> None:
    text = (
        "Count parameters and operations by part, and estimate memory and disk: on the meta "
        "device, without weights."
    )
    cost = command(commands, "cost", _cost, text)
    cost.add_argument("config", nargs="?", help="YAML file, or model folder")
    cost.add_argument(
        "--all-paper",
        action="store_true",
        help="every row of the paper's tables beside what it prints; CONFIG: the folder "
        "configs/paper, if it is not here",
    )
    cost.add_argument("--frames", type=int, help="of a sample; default: data.frames")
    cost.add_argument("--audio-windows", type=int, help="of sound; default: 2, as published")
    cost.add_argument("--text-tokens", type=int, dest="text", help="of the question; default: 40")
    cost.add_argument(
        "--answer-tokens", type=int, dest="answer", help="its end token too; default: 3"
    )
    cost.add_argument(
        "--label-tokens", type=int, dest="label", help='of a prefix ("Frame 1: "); default: 4'
    )
    cost.add_argument("--clips", type=int, default=1, help="for the feature store's disk")
    cost.add_argument("--no-memory", action="store_true", help="leave out what takes longest")
    cost.add_argument("--json", action="store_true", help="a list of rows instead of tables")
    overridable(cost)


def _cost(options: argparse.Namespace) -> None:
    if options.all_paper:
        _all_paper(options)
        return
    if options.config is None:
        raise ConfigError("name a YAML file or a model folder, or give --all-paper")
    from open_crema import cost, experiment

    loaded, _ = experiment.load_run(options.config, options.overrides, options.overlay)
    work = cost.Workload.of(loaded, **_given(options))
    found = cost.whole(loaded, work, with_memory=not options.no_memory)
    if options.json:
        print(json.dumps([cost.to_row(found)], indent=2))
        return
    console = Console()
    for table in cost.tables(found, clips=options.clips):
        console.print(table)


def _given(options: argparse.Namespace) -> dict[str, int | None]:
    return {name: getattr(options, name) for name in _TOKENS}


def _all_paper(options: argparse.Namespace) -> None:
    if options.overrides or options.overlay:
        raise ConfigError("--all-paper counts the paper's rows as they are: no overlay, no KEY=...")
    from open_crema.cost import Workload, paper
    from open_crema.cost.table import paper_table

    folder = paper.folder_of_configs(options.config)
    given = {k: v for k, v in _given(options).items() if v is not None}
    work: Workload | None = Workload(**given) if given else None
    rows = list(paper.paper_rows(folder, work))
    if options.json:
        print(json.dumps([paper.to_row(row) for row in rows], indent=2))
    else:
        Console().print(paper_table(rows))

"""crema quickstart: what a new sense adds to the base, in a few minutes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from open_crema.cli.arguments import command
from open_crema.errors import ConfigError
from open_crema.termination import at_once


def add(commands: Any) -> None:
    quickstart = command(
        commands,
        "quickstart",
        _quickstart,
        "Add a sense to the base that ships: make clips, train its adapter, score, show a page.",
    )
    quickstart.add_argument("--sense", default="audio", help="default: audio")
    quickstart.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: out/quickstart, for other senses than audio out/quickstart-SENSE",
    )
    quickstart.add_argument("--seed", type=int, help="of the clips")
    quickstart.add_argument("--clips", type=int, help="to train on; default: 300")
    quickstart.add_argument("--test", type=int, help="questions of each type; default: 20")
    quickstart.add_argument("--base", type=Path, help="another base: a model folder with video")
    quickstart.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the training")


def _quickstart(options: argparse.Namespace) -> None:
    with at_once():
        from open_crema import quickstart

        size = quickstart.Size()
        train = size.train if options.clips is None else options.clips
        test = size.test if options.test is None else options.test
        if min(train, test) < 2:
            raise ConfigError("--clips and --test: give at least 2, a pair")
        # Of its own: clips and results of two senses in one folder would be taken for one run's.
        name = "quickstart" if options.sense == "audio" else f"quickstart-{options.sense}"
        quickstart.run(
            options.sense,
            options.out or Path("out") / name,
            seed=quickstart.SEED if options.seed is None else options.seed,
            size=quickstart.Size(train, test),
            overrides=options.overrides,
            base=options.base,
        )

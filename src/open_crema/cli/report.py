"""crema report: one HTML page about a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from open_crema.cli.arguments import command


def add(commands: Any) -> None:
    report = command(
        commands,
        "report",
        _report,
        "Write one self-contained HTML page about a run or its results.",
    )
    report.add_argument("folder", type=Path, metavar="RUN_DIR", help="`out` of a run, or results")
    report.add_argument("--out", type=Path, help="HTML file; default: report.html in RUN_DIR")
    report.add_argument(
        "--clips", type=_count, default=8, metavar="N", help="questions shown with their media"
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError
    return count


def _report(options: argparse.Namespace) -> None:
    from open_crema.evaluation.page import build

    print(build.write(options.folder, options.out, clips=options.clips))

"""crema doctor: which pretrained weights are there."""

from __future__ import annotations

import argparse
import json
from typing import Any

from open_crema.cli.arguments import command


def add(commands: Any) -> None:
    doctor = command(
        commands, "doctor", _doctor, "Say which pretrained weights are there; fetch them."
    )
    doctor.add_argument(
        "--fetch",
        nargs="*",
        action="extend",
        metavar="NAME",
        help="download what is missing (all, or these)",
    )
    doctor.add_argument("--verify", action="store_true", help="hash every file, not only its size")
    doctor.add_argument("--json", action="store_true")


def _doctor(options: argparse.Namespace) -> None:
    from open_crema import doctor, weights

    if options.fetch is not None:
        doctor.fetch(options.fetch)
    report = weights.report(verify=options.verify)
    if options.json:
        print(json.dumps(doctor.to_dicts(report), indent=2))
    else:
        print(doctor.describe(report))

"""crema export: a task's questions for other programs that score models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from open_crema.cli.arguments import chosen_options, command, options_of_task


def add(commands: Any) -> None:
    group = commands.add_parser("export", help="Write a task for another harness (lmms-eval).")
    parts = group.add_subparsers(dest="part", required=True, metavar="COMMAND")
    lmms = command(
        parts,
        "lmms-eval",
        _lmms_eval,
        "Write a task's questions as a folder for lmms-eval's --include_path (docs/lmms-eval.md).",
    )
    lmms.add_argument("folder", type=Path, metavar="DIR", help="to write")
    lmms.add_argument("--task", required=True, help="as music_avqa, nextqa or jsonl")
    lmms.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help="its file, or their folder"
    )
    lmms.add_argument("--media", type=Path, metavar="DIR", help="default: the folder of the file")
    lmms.add_argument(
        "--split", choices=("train", "val", "test"), help="of a folder of files; default: all"
    )
    lmms.add_argument("--name", help="of the tasks in the harness; default: crema_ and the task's")
    options_of_task(lmms)


def _lmms_eval(options: argparse.Namespace) -> None:
    from open_crema import tasks
    from open_crema.harness.export import export

    made = export(
        tasks.get(options.task, chosen_options(options)),
        options.folder,
        options.data,
        media=options.media,
        split=options.split,
        name=options.name,
    )
    for name, count in made.counts.items():
        print(f"{name}: {count} questions")
    if made.unanswered:
        print(f"left out: {made.unanswered} questions that name no answer", file=sys.stderr)
    if made.missing:
        print(
            f"missing now: {len(made.missing)} media files, the first of which is "
            f"{made.missing[0]}; export again where they are: names and senses are looked up",
            file=sys.stderr,
        )
    print(
        f"next: python -m lmms_eval --model open_crema --model_args pretrained=MODEL_FOLDER "
        f"--tasks {made.name} --include_path {options.folder}"
    )

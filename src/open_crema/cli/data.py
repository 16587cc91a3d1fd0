"""crema data: data sets that this program makes itself, and what benchmarks' files hold."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from open_crema.cli import audit
from open_crema.cli.arguments import chosen_options, command, options_of_task
from open_crema.errors import ConfigError, DataError, did_you_mean
from open_crema.termination import at_once

_KNOWN = ("senseqa",)
_TASKS = "a task, as music_avqa or nextqa; docs/tasks.md lists them"


def add(commands: Any) -> None:
    data = commands.add_parser(
        "data",
        help="Make data sets, and look at them; check a benchmark's files.",
        description="Data sets that this program makes itself (senseqa: questions about rendered "
        "rooms, each answered by one sense alone, or by two), and the files of benchmarks.",
    )
    parts = data.add_subparsers(dest="part", required=True, metavar="COMMAND")

    make = command(parts, "make", _make, "Write a set as media files and questions (JSONL).")
    make.add_argument("name", help="senseqa")
    make.add_argument("--n", type=int, required=True, help="questions, each about its own clip")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--split", default="train", help="train (default), val or test")
    make.add_argument("--out", type=Path, required=True, metavar="DIR")
    make.add_argument(
        "--types", nargs="+", action="extend", metavar="TYPE", help="of questions; default: all"
    )
    make.add_argument("--frames", type=int, help="key frames a clip; default: 4")
    make.add_argument("--workers", type=int, default=0, help="processes; default: one a core")

    check = command(
        parts,
        "check",
        _check,
        "Read a benchmark's files: counts, what is wrong with them, which media are missing.",
    )
    check.add_argument("name", help=_TASKS)
    check.add_argument(
        "--annotations", type=Path, required=True, metavar="PATH", help="a file, or their folder"
    )
    check.add_argument("--media", type=Path, metavar="DIR", help="also look for the media here")
    check.add_argument("--json", action="store_true", help="for programs")
    options_of_task(check)

    build = command(
        parts,
        "build",
        _build,
        "Write TouchQA or ThermalQA, of the files of Touch and Go or of Thermal-IM.",
    )
    build.add_argument("name", help="touchqa or thermalqa")
    build.add_argument("--source", type=Path, required=True, metavar="DIR", help="of the data set")
    build.add_argument("--out", type=Path, required=True, metavar="DIR")
    build.add_argument("--seed", type=int, default=0, help="of the split; default: 0")

    lessons = command(
        parts,
        "lessons",
        _lessons,
        "Write what a set's clips teach: captions, and several questions a clip.",
    )
    lessons.add_argument("folder", type=Path, metavar="DIR", help="a set that `make` has written")
    lessons.add_argument(
        "--senses", nargs="+", action="extend", required=True, help="that answer the questions"
    )
    lessons.add_argument("--more", type=int, default=8, help="questions a clip; default: 8")
    lessons.add_argument(
        "--own", action="store_true", help="only of clips whose own question these senses answer"
    )

    show = command(parts, "show", _show, "Draw a question: all senses of its clips, as PNG.")
    show.add_argument("name", help="senseqa")
    show.add_argument("--type", required=True, help="of the question")
    show.add_argument("--seed", type=int, default=0)
    show.add_argument("--split", default="val", help="train, val (default) or test")
    show.add_argument("--index", type=int, default=0, help="which of its type; default: 0")
    show.add_argument("--out", type=Path, required=True, metavar="PNG")

    audit.add(parts)


def _make(options: argparse.Namespace) -> None:
    _check_known(options.name)
    from open_crema.senseqa import files
    from open_crema.senseqa.sets import FRAMES, Spec
    from open_crema.senseqa.types import TYPES

    spec = Spec(
        options.split,
        options.seed,
        options.n,
        tuple(TYPES) if options.types is None else tuple(options.types),
        FRAMES if options.frames is None else options.frames,
    )
    with at_once():
        made = files.make(spec, options.out, workers=options.workers)
    if made.complete_before:
        print(f"{options.out}: {made.clips} clips, complete already; nothing to do")
        return
    rate = made.clips / made.seconds
    print(
        f"{options.out}: {made.clips} clips in {made.seconds:.1f} s, {rate:.1f} a second, "
        f"{decimal(made.bytes)}"
    )


def _check(options: argparse.Namespace) -> None:
    from rich.console import Console

    from open_crema import progress, tasks
    from open_crema.tasks.check import check, table

    task = tasks.get(options.name, chosen_options(options))
    if options.media is None:
        found = check(task, options.annotations)
    else:
        with progress.bar() as bar:
            shown = bar.add_task("looking for media", total=None, note="")
            found = check(
                task,
                options.annotations,
                options.media,
                progress=lambda done, total: bar.update(shown, completed=done, total=total),
            )
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        Console().print(table(found))
    if found.broken:
        count = sum(problem.count for problem in found.problems if problem.fatal)
        first = next(problem for problem in found.problems if problem.fatal)
        raise DataError(
            f"{first.places[0]}: {first.text}; {count} entries are broken in all, see above: "
            "mend them or get the files again"
        )


def _build(options: argparse.Namespace) -> None:
    from open_crema import progress
    from open_crema.tasks.build import build

    with at_once(), progress.bar() as bar:
        shown = bar.add_task("cutting clips", total=None, note="")
        built = build(
            options.name,
            options.source,
            options.out,
            seed=options.seed,
            progress=lambda done, total: bar.update(shown, completed=done, total=total),
        )
    counts = ", ".join(f"{count} {split}" for split, count in built.counts.items())
    print(f"{options.out}: {counts} questions of {built.recordings} recordings")
    if built.left:
        print(f"{built.left} more questions belong to neither split")
    for note in built.notes:
        print(f"note: {note}")


def _lessons(options: argparse.Namespace) -> None:
    from open_crema.senseqa import lessons

    path, asked, clips = lessons.write(
        options.folder, options.senses, options.more, own=options.own
    )
    print(f"{path}: {asked} questions about {clips} clips")


def _show(options: argparse.Namespace) -> None:
    _check_known(options.name)
    from open_crema.senseqa.sets import ROUNDS, Group, Spec
    from open_crema.senseqa.show import show
    from open_crema.senseqa.types import find

    kind = find(options.type)
    spec = Spec(options.split, options.seed, 1, (kind.name,))  # refuses what is no set
    if not 0 <= options.index < ROUNDS:
        raise ConfigError(f"index {options.index}: give 0 to {ROUNDS - 1}")
    first = 2 ** len(kind.flips)
    group = Group(kind, spec.split, spec.seed, options.index, spec.frames, first)
    print(f"written to {show(group, options.out)}")


def _check_known(name: str) -> None:
    if name not in _KNOWN:
        hint = did_you_mean(name, _KNOWN)
        raise ConfigError(f"unknown data set {name!r}: {hint}known: {', '.join(_KNOWN)}")

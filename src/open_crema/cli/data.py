"""crema data: data sets that this program makes itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from open_crema.cli import audit
from open_crema.cli.arguments import command
from open_crema.errors import ConfigError, did_you_mean
from open_crema.termination import at_once

_KNOWN = ("senseqa",)


def add(commands: Any) -> None:
    data = commands.add_parser(
        "data",
        help="Make data sets, and look at them.",
        description="Data sets that this program makes itself. senseqa: questions about rendered "
        "rooms, each answered by one sense alone, or by two.",
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

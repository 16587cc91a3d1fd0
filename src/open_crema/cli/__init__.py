"""The command line: parse, call, print. Errors a user can act on are one line and exit code 2."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from open_crema import __version__, processes
from open_crema.cli import (
    adapter,
    ask,
    convert,
    data,
    doctor,
    export,
    extract,
    modality,
    quickstart,
    report,
    reproduce,
    runs,
    store,
    tune,
)
from open_crema.errors import ConfigError, CremaError
from open_crema.termination import Stopped

# What takes seconds to import (torch, transformers) is imported by the command that needs it.
COMMANDS = (
    quickstart,
    runs,
    tune,
    report,
    reproduce,
    ask,
    extract,
    adapter,
    convert,
    modality,
    store,
    data,
    export,
    doctor,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, or 2 after an error message."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    unknown = [r for r in rest if not ("=" in r and hasattr(options, "overrides"))]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    logging.basicConfig(format="crema: %(message)s", stream=sys.stderr)
    logging.getLogger("open_crema").setLevel(logging.INFO)  # downloads take a while: say so
    try:
        if processes.asked_for() > 1 and options.command != "train":
            raise ConfigError(
                f"crema {options.command} runs in one process; torchrun is for `crema train` alone"
            )
        options.run(options)
        sys.stdout.flush()  # here, and not at exit, where a reader that has gone makes a traceback
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CremaError, OSError) as error:  # OSError: a full disk, a folder that is gone by now
        print(f"crema: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Stopped as request:
        print(f"crema: {request}", file=sys.stderr)
    except KeyboardInterrupt:
        print("crema: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crema", description="Give a frozen video-language model new senses (Open CREMA)."
    )
    parser.add_argument("--version", action="version", version=f"open-crema {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for part in COMMANDS:
        part.add(commands)
    return parser

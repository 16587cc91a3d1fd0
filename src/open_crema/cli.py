"""The command line: parse, call, print. Errors a user can act on are one line and exit code 2."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from open_crema import __version__
from open_crema.errors import ConfigError, CremaError

# What takes seconds to import (torch, transformers) is imported by the command that needs it.


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
        options.run(options)
        sys.stdout.flush()  # here, and not at exit, where a reader that has gone makes a traceback
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CremaError, OSError) as error:  # OSError: a full disk, a folder that is gone by now
        print(f"crema: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
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

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def overridable(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--overlay",
            action="append",
            default=[],
            type=Path,
            help="YAML laid over the configuration, as configs/reference.yaml; may be repeated",
        )
        added.add_argument(
            "overrides",
            nargs="*",
            metavar="KEY=VALUE",
            help="as in train.epochs=3 (also --KEY=VALUE)",
        )

    train = command("train", _train, "Train adapters and fusion as a YAML file says.")
    train.add_argument("config", help="YAML file")
    train.add_argument("--fresh", action="store_true", help="discard an unfinished run in `out`")
    overridable(train)

    score = command("eval", _eval, "Score a trained model, with chance and blind rows.")
    score.add_argument("config", help="the YAML file of its training, or its model folder")
    score.add_argument("--model", type=Path, help="model folder; default: the one in `out`")
    score.add_argument("--data", type=Path, help="data file; default: data.test")
    score.add_argument("--senses", nargs="+", action="extend", help="give it only these senses")
    score.add_argument("--results", type=Path, help="where results go; default: beside the model")
    score.add_argument("--json", action="store_true", help="print results.json instead of a table")
    overridable(score)

    ask = command("ask", _ask, "Ask a question about a video (or other media).")
    ask.add_argument("video", help="video, folder of pictures, picture; '-' for none")
    ask.add_argument("question")
    ask.add_argument("--model", type=Path, help="model folder")
    ask.add_argument(
        "--sense", action="append", default=[], metavar="NAME=PATH", help="file of another sense"
    )
    ask.add_argument("--options", nargs="+", action="extend", help="choose among these answers")
    ask.add_argument("--json", action="store_true")

    cost = command("cost", _cost, "Count trainable and frozen parameters by part.")
    cost.add_argument("config", help="YAML file")
    cost.add_argument("--json", action="store_true")
    overridable(cost)

    doctor = command("doctor", _doctor, "Say which pretrained weights are there; fetch them.")
    doctor.add_argument(
        "--fetch",
        nargs="*",
        action="extend",
        metavar="NAME",
        help="download what is missing (all, or these)",
    )
    doctor.add_argument("--verify", action="store_true", help="hash every file, not only its size")
    doctor.add_argument("--json", action="store_true")
    return parser


def _train(options: argparse.Namespace) -> None:
    from open_crema import config, experiment

    loaded = config.load(options.config, options.overrides, overlays=options.overlay)
    folder = experiment.train(loaded, fresh=options.fresh)
    print(folder)


def _eval(options: argparse.Namespace) -> None:
    from open_crema import experiment
    from open_crema.evaluation import report

    config, folder = experiment.load_run(options.config, options.overrides, options.overlay)
    if options.data is not None:
        config = replace(config, data=replace(config.data, test=str(options.data)))
    if options.model is None and not folder.exists():
        raise ConfigError(
            f"no trained model at {folder}; run `crema train {options.config}` first, or name a "
            "model folder by --model"
        )
    folder = options.model or folder
    out = options.results or folder.absolute().parent / "results"  # the folder may be "."
    found = experiment.evaluate_split(config, folder, senses=options.senses, out=out)
    if options.json:
        print((out / "results.json").read_text(encoding="utf-8"), end="")
    else:
        Console().print(report.table(found.summary()))
        print(f"written to {out}")


def _ask(options: argparse.Namespace) -> None:
    import time

    from open_crema import experiment
    from open_crema.model.files import from_pretrained, run_of
    from open_crema.predictor import Predictor

    senses = _senses(options.sense)
    folder = options.model or experiment.default_model()
    if options.model is None and not folder.exists():
        raise ConfigError(
            f"no --model given and none at {folder}; make one with `make quickstart` or "
            "`crema train`, then name its folder: crema ask ... --model OUT/model"
        )
    start = time.perf_counter()
    run = run_of(folder)
    predictor = Predictor(from_pretrained(folder), data=run.data, eval=run.eval)
    loading = time.perf_counter() - start
    predictor.set_media(None if options.video == "-" else options.video, senses)
    answer = predictor.ask(options.question, options.options).to_dict()
    answer["seconds"] = {"load": loading, **answer["seconds"]}
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
        return
    print(answer["answer"])
    for choice in answer.get("options", []):
        print(f"  {100 * choice['probability']:5.1f} %  {choice['option']}")
    for name, used in answer["senses"].items():
        gate = "" if used["gate"] is None else f", {100 * used['gate']:.0f} % of the fused tokens"
        print(f"used {name}: {used['segments']} segments{gate}", file=sys.stderr)
    for name, reason in answer["absent"].items():
        print(f"without {name}: {reason}", file=sys.stderr)


def _senses(texts: Sequence[str]) -> dict[str, str]:
    senses: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"--sense {text!r}: write NAME=PATH, as in --sense depth=room.png")
        if name in senses:
            raise ConfigError(f"--sense {name} is given twice: {senses[name]} and {path}; drop one")
        senses[name] = path
    return senses


def _cost(options: argparse.Namespace) -> None:
    from open_crema import config, cost

    loaded = config.load(options.config, options.overrides, overlays=options.overlay)
    if options.json:
        counted = cost.count(loaded.model, train_qformer=loaded.train.qformer != "frozen")
        print(json.dumps(cost.to_dict(counted), indent=2))
    else:
        Console().print(cost.main_table(loaded))


def _doctor(options: argparse.Namespace) -> None:
    from open_crema import doctor, weights

    if options.fetch is not None:
        doctor.fetch(options.fetch)
    report = weights.report(verify=options.verify)
    if options.json:
        print(json.dumps(doctor.to_dicts(report), indent=2))
    else:
        print(doctor.describe(report))


if __name__ == "__main__":
    sys.exit(main())

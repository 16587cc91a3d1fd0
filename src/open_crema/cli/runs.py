"""crema train, eval, cost: what a configuration file says."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from open_crema import processes, termination
from open_crema.cli.arguments import chosen_options, command, options_of_task, overridable
from open_crema.errors import ConfigError

if TYPE_CHECKING:
    from open_crema.config import Config


def add(commands: Any) -> None:
    train = command(commands, "train", _train, "Train adapters and fusion as a YAML file says.")
    train.add_argument("config", help="YAML file")
    train.add_argument("--fresh", action="store_true", help="discard an unfinished run in `out`")
    overridable(train)

    score = command(commands, "eval", _eval, "Score a trained model, with chance and blind rows.")
    score.add_argument(
        "config", nargs="?", help="the YAML file of its training, or its model folder"
    )
    score.add_argument(
        "--model", help="model folder, or user/name on the hub; default: the one in `out`"
    )
    score.add_argument(
        "--task", help="benchmark that --data are of, as nextqa (docs/tasks.md); default: the run's"
    )
    score.add_argument(
        "--data",
        "--annotations",
        type=Path,
        dest="data",
        metavar="PATH",
        help="data file, or the folder of a benchmark's files; default: data.test",
    )
    score.add_argument("--media", type=Path, metavar="DIR", help="where the media of --data are")
    options_of_task(score)
    score.add_argument("--senses", nargs="+", action="extend", help="give it only these senses")
    score.add_argument(
        "--subsets",
        metavar="WHICH",
        help="score it on several sets of these senses at once: all, drop-one, single, add-one, or "
        "a list as in video,video+audio",
    )
    score.add_argument(
        "--confidence-curve",
        action="store_true",
        help="what each threshold of `crema ask --confidence` costs, and how often it is right",
    )
    score.add_argument(
        "--no-drop-one",
        action="store_true",
        help="do not also score it without each of its senses",
    )
    score.add_argument(
        "--easy-hard",
        type=Path,
        metavar="RESULTS",
        help="also by difficulty: easy is what these results (zero-shot, video alone) have right",
    )
    score.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="instead: how much better results B are than A, and whether that is chance",
    )
    score.add_argument(
        "--out",
        "--results",
        type=Path,
        dest="results",
        metavar="DIR",
        help="where results go; default: beside the model, or in `out`",
    )
    score.add_argument(
        "--json", action="store_true", help="print what is in the JSON files instead of tables"
    )
    overridable(score)

    cost = command(
        commands,
        "cost",
        _cost,
        "Count parameters, operations, memory and disk, without any weights.",
    )
    cost.add_argument("config", nargs="?", help="YAML file, or a model folder")
    cost.add_argument(
        "--all-paper", action="store_true", help="every published count, beside what it is here"
    )
    cost.add_argument("--json", action="store_true", help="a list of rows")
    for name, text in (
        ("frames", "default: data.frames"),
        ("windows", "of sound; default: 2"),
        ("points", "default: 5000"),
        ("label-tokens", "of the text before each block; default: 4"),
        ("text-tokens", "of question and instruction; default: 40"),
        ("answer-tokens", "default: 3"),
    ):
        cost.add_argument(f"--{name}", type=int, metavar="N", help=text)
    overridable(cost)


def _train(options: argparse.Namespace) -> None:
    # Features that are made stay, and training defers it.
    with termination.at_once(), processes.joined():
        from open_crema import config, experiment

        if processes.rank() > 0:  # the first says what there is to say
            logging.getLogger("open_crema").setLevel(logging.ERROR)
        loaded = config.load(options.config, options.overrides, overlays=options.overlay)
        folder = experiment.train(loaded, fresh=options.fresh)
        first = processes.rank() == 0
    if first:
        print(folder)


def _eval(options: argparse.Namespace) -> None:
    if options.compare is not None:
        _compare(options)
        return
    from open_crema import experiment
    from open_crema.evaluation import beside, report, subsets
    from open_crema.model import hub

    if options.config is None:
        raise ConfigError("name the YAML file of a training, or a model folder")
    config, folder = experiment.load_run(options.config, options.overrides, options.overlay)
    config = _other_data(config, options)
    if options.model is None and not folder.exists():
        raise ConfigError(
            f"no trained model at {folder}; run `crema train {options.config}` first, or name a "
            "model folder by --model"
        )
    place = folder
    if options.model is not None:
        folder = hub.local(options.model)
        if Path(options.model).exists():  # a download is no place for results
            place = folder
    out = options.results or place.absolute().parent / "results"  # the folder may be "."
    if options.subsets is not None or options.confidence_curve:
        _eval_subsets(options, config, folder, out)
        return
    found = experiment.evaluate_split(
        config,
        folder,
        senses=options.senses,
        drop_one=not options.no_drop_one,
        difficulty=options.easy_hard,
        out=out,
    )
    if options.json:
        print((out / "results.json").read_text(encoding="utf-8"), end="")
        return
    console, evaluation = Console(), found.evaluation
    summary = {**evaluation.summary(), **found.more}
    console.print(report.table(summary))
    if found.drop_one:
        for table in subsets.matrix([evaluation, *found.drop_one], console.width):
            console.print(table)
    if summary.get("published", {}).get("rows"):
        console.print(beside.table(summary["published"], evaluation.senses))
    print(f"written to {out}")


def _other_data(config: Config, options: argparse.Namespace) -> Config:
    """With the task and the data that the command line names. Of a benchmark's folder its own
    train split makes the majority rate; training data of another task make none."""
    data = config.data
    if options.task is not None and options.task != data.task:
        if options.data is None:
            raise ConfigError(f"--task {options.task}: name its files by --annotations")
        data = replace(data, task=options.task, options={}, train=None, validation=None)
    if options.data is not None:
        data = replace(data, test=str(options.data), validation=None)
        if options.task is not None:
            data = replace(data, media_root=None)
    if options.media is not None:
        data = replace(data, media_root=str(options.media))
    chosen = chosen_options(options)
    return replace(config, data=replace(data, options={**data.options, **chosen}))


def _compare(options: argparse.Namespace) -> None:
    from open_crema.evaluation import compare
    from open_crema.storage import write_json

    found = compare.compare(*options.compare)
    if options.results is not None:
        options.results.mkdir(parents=True, exist_ok=True)
        write_json(options.results / "compare.json", found.to_dict())
    if options.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        Console().print(compare.table(found))


def _eval_subsets(options: argparse.Namespace, config: Config, folder: Path, out: Path) -> None:
    from open_crema import experiment
    from open_crema.evaluation import dropout, exit_curve, subsets

    found, curve = experiment.evaluate_subsets(
        config,
        folder,
        subsets=options.subsets,
        curve=options.confidence_curve,
        senses=options.senses,
        out=out,
    )
    if options.json:
        content: dict[str, Any] = {"subsets": subsets.rows(found)}
        if (lost := dropout.dropout(found)) is not None:
            content["dropout"] = lost.to_dict()
        if curve is not None:
            content["exit_curve"] = curve.to_dict()
        print(json.dumps(content, indent=2))
        return
    console = Console()
    for table in subsets.matrix(found, console.width):
        console.print(table)
    if (lost := dropout.dropout(found)) is not None:
        console.print(dropout.table(lost))
    if curve is not None:
        console.print(exit_curve.table(curve))
    print(f"written to {out}")


def _cost(options: argparse.Namespace) -> None:
    from open_crema import cost

    console = Console()
    if options.all_paper:
        rows = list(cost.paper_rows())
        if options.json:
            print(json.dumps([row.to_dict() for row in rows], indent=2))
        else:
            console.print(cost.paper_table(rows))
        return
    if options.config is None:
        raise ConfigError("name a YAML file or a model folder, or give --all-paper")
    loaded = _configuration(options)
    given = {
        "frames": options.frames or loaded.data.frames,
        "windows": options.windows,
        "points": options.points,
        "label": options.label_tokens,
        "text": options.text_tokens,
        "answer": options.answer_tokens,
    }
    if wrong := [f"--{name}" for name, n in given.items() if n is not None and n < 1]:
        raise ConfigError(f"{', '.join(wrong)}: give at least 1")
    tokens = cost.Tokens(**{name: n for name, n in given.items() if n is not None})
    if options.json:
        print(json.dumps([cost.run_cost(loaded, tokens).row()], indent=2))
    else:
        console.print(cost.main_table(loaded, tokens))


def _configuration(options: argparse.Namespace) -> Config:
    """Of a YAML file, or of the run that made a model folder."""
    from open_crema import config
    from open_crema.model.files import run_of

    if not Path(options.config).is_dir():
        return config.load(options.config, options.overrides, overlays=options.overlay)
    run = config.override(run_of(options.config), options.overrides)
    # The model is here already, whatever it was trained from.
    return replace(run, train=replace(run.train, scope="all", init=None))

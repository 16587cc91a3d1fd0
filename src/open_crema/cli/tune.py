"""crema tune-llm: a low-rank update by which the LLM reads captions, from words alone."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_crema.cli.arguments import command
from open_crema.errors import ConfigError
from open_crema.progress import bar
from open_crema.termination import at_once

_PAUSED, _EVERY = "paused", 25  # steps


def add(commands: Any) -> None:
    tune = command(
        commands,
        "tune-llm",
        _tune,
        "Teach SmolLM2 to read captions of SenseQA, from words alone (no media). The same command "
        "goes on where it was cut off.",
    )
    tune.add_argument("--out", type=Path, required=True, metavar="DIR", help="then as model.llm")
    tune.add_argument(
        "--init",
        type=Path,
        metavar="DIR",
        help="goes on from that update, at two thirds of the rate, with more clips and fewer "
        "questions of each",
    )
    tune.add_argument("--steps", type=int, help="default: those of the LLM that ships")
    tune.add_argument("--seed", type=int, default=0)
    tune.add_argument("--threads", type=int, default=0, help="0: torch's default")


def _tune(options: argparse.Namespace) -> None:
    with at_once():
        import torch

        from open_crema import backbones
        from open_crema.senseqa import told
        from open_crema.senseqa.scene import SECONDS
        from open_crema.storage import remove
        from open_crema.training.text_tuning import Recipe, TextTuning

        recipe = replace(Recipe(), seed=options.seed)
        if options.steps is not None:
            recipe = replace(recipe, steps=options.steps)
        telling = told.Telling()
        if options.init is not None:
            recipe = replace(recipe, lr=recipe.lr * 2 / 3)
            telling = told.Telling(clips=4, more=4, video_first=0)
        if recipe.steps < 1:
            raise ConfigError(f"{recipe.steps} steps: give at least 1")
        out: Path = options.out
        paused = out / _PAUSED
        if out.exists() and not paused.exists() and any(out.iterdir()):
            raise ConfigError(f"{out}: is not empty; choose another folder")
        if options.threads:
            torch.set_num_threads(options.threads)
        tuning = TextTuning(backbones.load_stock(), recipe, seconds=SECONDS)
        if options.init is not None:
            tuning.start_from(options.init)
        done = tuning.resume(paused) if paused.exists() else 0
        with bar() as shown:
            task = shown.add_task("text tuning", total=recipe.steps, completed=done, note="")
            batches = told.batches(recipe.seed, telling)
            for done, loss, right in tuning.train(batches):
                note = f"loss {loss:.3f}, {100 * right:.0f} % right"
                shown.update(task, advance=1, note=note)
                if done % _EVERY == 0:
                    tuning.pause(paused)
        tuning.save(out, backbones.STOCK)
        remove(paused)
    print(out)

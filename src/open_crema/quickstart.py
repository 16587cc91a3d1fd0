"""The quickstart: what a new sense adds to the base that ships, seen in a few minutes.

Fresh clips of seeds that the base has never seen; the base with video alone is scored; a sense is
added by training its adapter and fusion block from scratch; the result is scored again, asked one
question about one clip, and shown as a page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from open_crema import config as configuration
from open_crema import experiment
from open_crema.config import Config
from open_crema.errors import ConfigError, did_you_mean
from open_crema.evaluation import metrics
from open_crema.evaluation.page import build
from open_crema.evaluation.result import Evaluation, Row
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, run_of, save_pretrained
from open_crema.predictor import Predictor
from open_crema.senseqa import files as senseqa
from open_crema.senseqa import lessons
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.sets import Spec, groups
from open_crema.senseqa.types import IN_TIME, TYPES, needing

SEED = 2026  # of its clips; the base was trained on others
_TRAIN, _TEST = 300, 20  # clips; clips a type


@dataclass(frozen=True)
class Size:
    """train: clips that the sense is trained on. test: clips of each type of question."""

    train: int = _TRAIN
    test: int = _TEST


def types_of(sense: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The types that video alone answers, and those that video and the sense answer together; of
    the latter those that one frame answers, unless the sense has no other."""
    added = needing(sense, "video")
    of_one_frame = tuple(name for name in added if name not in IN_TIME)
    return needing("video"), of_one_frame or added


def run(
    sense: str,
    out: str | Path,
    *,
    seed: int = SEED,
    size: Size | None = None,
    overrides: Sequence[str] = (),
    base: str | Path | None = None,
    console: Console | None = None,
) -> Path:
    """Does all of it and returns the page. base: a model folder with video, by default the one that
    ships. Files go to ``out``: ``data``, ``base``, ``model``, ``results``, ``report.html``.

    Raises ConfigError for a sense that SenseQA does not have, or video itself.
    """
    if sense not in SENSES[1:]:
        hint = did_you_mean(sense, SENSES[1:])
        raise ConfigError(f"no sense {sense!r} to add: {hint}known: {', '.join(SENSES[1:])}")
    begun, out, size = time.perf_counter(), Path(out), size or Size()
    console = console or Console()
    shipped = Path(base) if base is not None else experiment.shipped_base()
    save_pretrained(from_pretrained(shipped, senses=["video"]), out / "base", run=run_of(shipped))
    data = _make_clips(sense, out / "data", seed, size, console)
    config = _config(sense, out, data, overrides)

    def scored(model: Path, subsets: str) -> tuple[Evaluation, ...]:
        return experiment.evaluate_subsets(config, model, subsets=subsets, out=out / "results")[0]

    console.print("[bold]The base, with video alone")
    before = scored(out / "base", "blind,video")
    console.print(f"[bold]Adding {sense}: training its adapter and fusion block, nothing else")
    started = time.perf_counter()
    model = experiment.train(config, fresh=True)
    took = time.perf_counter() - started
    after = scored(model, f"video+{sense}")
    found = {"blind (question only)": before[0], "video": before[1], f"video + {sense}": after[0]}
    console.print(table(found, types_of(sense)[0]))
    both = from_pretrained(model)
    trained = sum(p.numel() for p in both.adapter(sense).parameters())
    trained += both.fusion.blocks[sense].numel()
    console.print(f"trained in {took:.0f} s: {trained:,} parameters; seed {seed}, one run")
    _ask(sense, both, config, data / "test", console)
    page = build.write(out)
    console.print(f"[dim]page: {page}; model: {model}; {time.perf_counter() - begun:.0f} s in all")
    return page


def _make_clips(sense: str, folder: Path, seed: int, size: Size, console: Console) -> Path:
    alone, added = types_of(sense)
    console.print(f"[bold]Making {size.train} clips to learn from, others to be asked about")
    senseqa.make(Spec("train", seed, size.train, added), folder / "train")
    lessons.write(folder / "train", ["video", sense], 8, own=True)
    types = (*alone, *added)
    senseqa.make(Spec("test", seed, size.test * len(types), types), folder / "test")
    return folder


def _config(sense: str, out: Path, data: Path, overrides: Sequence[str]) -> Config:
    recipe = files("open_crema") / "assets" / "quickstart.yaml"
    # The recipe is no configuration without it: scope "own" is of a trained model.
    config = configuration.load(Path(str(recipe)), [f"train.init={json.dumps(str(out / 'base'))}"])
    base = run_of(out / "base").model
    frames = 4 if types_of(sense)[1][0] in IN_TIME else 1
    config = replace(
        config,
        out=str(out),
        model=replace(base, senses=("video", sense)),
        data=replace(
            config.data,
            train=str(data / "train" / f"lessons-video+{sense}.jsonl"),
            test=str(data / "test" / senseqa.QUESTIONS),
            store=str(out / "store"),
            store_frames=frames,
            frames=frames,
        ),
    )
    return configuration.override(config, list(overrides))


def table(found: Mapping[str, Evaluation], alone: Sequence[str]) -> Table:
    """Types of questions by what the model is given: accuracy with its interval. alone: the types
    that video answers, which a new sense should leave as they are."""
    first = next(iter(found.values()))
    shown = Table(title="right answers in % (95 % interval), clips of seeds never seen")
    shown.add_column("questions")
    shown.add_column("N", justify="right")
    for name in ("chance", *found):
        shown.add_column(name, justify="right")
    names = [n for n in TYPES if n in first.types]
    for kind, title in ((True, "all that video answers"), (False, "all that need the new sense")):
        own = [n for n in names if (n in alone) == kind]
        for name in own:
            rows = [result.types[name] for result in found.values()]
            shown.add_row(name, str(rows[0].n), _percent(rows[0].chance), *map(_cell, rows))
        sums = [_together([r.types[n] for n in own]) for r in found.values()]
        n, chance = sums[0][1], sum(first.types[k].chance * first.types[k].n for k in own)
        shown.add_row(
            title,
            str(n),
            _percent(chance / max(n, 1)),
            *(_interval(right, count) for right, count in sums),
            style="bold",
            end_section=True,
        )
    scored = sum(len(result.predictions) for result in found.values())
    expected = sum(result.expected for result in found.values())
    shown.caption = f"expected {expected} answers, scored {scored}"
    return shown


def _together(rows: Sequence[Row]) -> tuple[int, int]:
    return sum(row.correct for row in rows), sum(row.n for row in rows)


def _cell(row: Row) -> str:
    return _interval(row.correct, row.n)


def _interval(right: int, count: int) -> str:
    low, high = metrics.wilson(right, count)
    return f"{_percent(right / count)} ({_percent(low)} - {_percent(high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def given(sense: str, folder: Path, media: Mapping[str, str]) -> dict[str, Path]:
    """What is given of a sense beside the video: its file, or nothing where the video holds it."""
    return {sense: folder / media[sense]} if sense in media else {}


def _ask(sense: str, model: Crema, config: Config, folder: Path, console: Console) -> None:
    """One question about the files of one clip, with and without the new sense."""
    group, question = next(
        (group, question)
        for group in groups(senseqa.held(folder))
        for question in group.questions
        if sense in question.needs and not question.options
    )
    media = senseqa.media_of_clip(group, group.variants[0])
    video, own = folder / media["video"], given(sense, folder, media)
    files = "".join(f" --sense {name}={path}" for name, path in own.items())
    console.print(f"crema ask {video} {question.text!r}{files}")
    both = Predictor(model, data=config.data, eval=config.eval)
    both.set_media(video, own)
    answer = both.ask(question.text)
    console.print(f"  with {sense}: {answer.answer}   (right is: {question.answer})")
    model.remove_sense(sense)
    alone = Predictor(model, data=config.data, eval=config.eval)
    alone.set_media(video)
    console.print(f"  without:{'':{len(sense)}} {alone.ask(question.text).answer}")

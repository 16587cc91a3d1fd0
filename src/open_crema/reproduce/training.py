"""Studies that train: the paper's claims in miniature, on three senses beside video.

All runs start from one model: the base with video alone and the others' adapters after a short
alignment, so that there is something left to learn. What differs is named by each run's overrides.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from open_crema import config as configuration
from open_crema import experiment
from open_crema.config import Config, FusionConfig
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Extractor
from open_crema.errors import ConfigError
from open_crema.evaluation.subsets import BLIND, name_of
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, run_of, save_pretrained
from open_crema.reproduce.bench import Bench
from open_crema.reproduce.table import Count, Table, spread
from open_crema.senseqa import files as senseqa
from open_crema.senseqa import lessons
from open_crema.senseqa.sets import Spec
from open_crema.senseqa.types import IN_TIME, needing

SENSES = ("video", "audio", "flow", "thermal")
SEED = 2028  # of the clips that are trained on
VIDEO = needing("video")
OTHERS = tuple(n for s in SENSES[1:] for n in needing(s, "video") if n not in IN_TIME)
_STARTED = 6  # epochs of the alignment that all runs start from


@dataclass(frozen=True)
class Run:
    """One training of a study, in the folder of its name. fusion: another one than the base's.
    like: the sense as whose adapter the others start, instead of at random."""

    name: str
    overrides: Sequence[str] = ()
    fusion: FusionConfig | None = None
    like: str | None = None

    @property
    def title(self) -> str:
        """Without the study's own name."""
        return self.name.partition("-")[2]


@dataclass(frozen=True)
class Outcome:
    """video, others: the questions that video alone answers, and those that need another sense,
    each given all senses. size: parameters of adapters and fusion.
    tokens: mean length of the LLM's input. updates: optimizer steps. exits: sense -> the epoch
    after which it stopped, from 0."""

    video: Count
    others: Count
    size: int
    tokens: float
    updates: int
    seconds: float
    exits: Mapping[str, int]


def fusion(bench: Bench) -> Iterator[Table]:
    """Table 7."""
    kinds = (
        FusionConfig(kind="self-gated", init="identity"),
        FusionConfig(kind="ungated", init="identity"),
        FusionConfig(kind="concat", init="identity"),
        FusionConfig(kind="linear", init="identity"),
        FusionConfig(kind="mixture-of-experts", init="identity"),
        FusionConfig(kind="cross-attention", init="identity"),
    )
    runs = [Run(f"fusion-{kind.kind}", fusion=kind) for kind in kinds]
    yield _compare(bench, "Fusion (paper, Table 7)", runs)


def strategy(bench: Bench) -> Iterator[Table]:
    """Table 5: sequential against joint, as many updates of each adapter, and as much time."""
    sequential = Run("strategy-sequential", ["train.strategy=sequential"])
    shuffled = Run("strategy-shuffled", ["train.strategy=sequential", "train.order=shuffled"])
    joint = Run("strategy-joint")
    (ran,), (other,) = _outcomes(bench, sequential)[:1], _outcomes(bench, joint)[:1]
    steps = max(round(6 * ran.seconds / other.seconds), 6)
    longer = Run(f"strategy-joint-{5 * steps}-steps", [f"train.epoch_steps={steps}"])
    yield _compare(bench, "Strategy", [joint, longer, sequential, shuffled])


def early_exit(bench: Bench) -> Iterator[Table]:
    """Table 6, with its control: as many epochs without exit."""
    plain = ["train.strategy=sequential", "train.epochs=8", "train.epoch_steps=3"]
    runs = [Run("exit-none", plain)]
    for tau in (0.8, 1.0, 1.4):
        own = [*plain, "train.exit.enabled=true", f"train.exit.temperature={tau}"]
        runs.append(Run(f"exit-{tau}", own))
    yield _compare(bench, "Early exit (paper, Table 6), by its temperature", runs)


def start(bench: Bench) -> Iterator[Table]:
    """An adapter that starts as the video's against one from scratch, after as much alignment."""
    runs = [
        Run("start-scratch", ["train.epochs=0"]),
        Run("start-video", ["train.epochs=0"], like="video"),
    ]
    yield _compare(bench, f"After {_STARTED} epochs of alignment, from two starts", runs)


def _compare(bench: Bench, title: str, runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        found = _outcomes(bench, run)
        first = found[0]
        rows.append(
            [
                run.title,
                spread([one.video for one in found]),
                spread([one.others for one in found]),
                f"{first.size:,}",
                f"{first.tokens:.0f}",
                str(first.updates),
                f"{statistics.mean(one.seconds for one in found):.0f}",
                ", ".join(f"{s} after {e + 1}" for s, e in first.exits.items()) or "-",
            ]
        )
    first = _outcomes(bench, runs[0])[0]
    # The frozen LLM alone: the same of all runs.
    blind = bench.scored("untrained", [*VIDEO, *OTHERS], [()])[BLIND]["types"]
    rows.append(
        ["blind", str(Count.of(blind, VIDEO)), str(Count.of(blind, OTHERS)), "", "", "", "", ""]
    )
    return Table(
        title,
        [
            "run",
            "video types",
            "types of the others",
            "parameters",
            "LLM tokens",
            "updates",
            "s",
            "exit",
        ],
        rows,
        f"Seeds {', '.join(map(str, bench.seeds))}; N {first.video.n} and {first.others.n} a seed, "
        f"chance {first.video.chance} and {first.others.chance}. One seed: 95 % Wilson interval; "
        "several: mean and standard deviation over seeds. parameters: of adapters and fusion. "
        "updates: optimizer steps in all; s: seconds of training.",
    )


def _outcomes(bench: Bench, run: Run) -> list[Outcome]:
    return [_outcome(bench, run, seed) for seed in bench.seeds]


def _outcome(bench: Bench, run: Run, seed: int) -> Outcome:
    name = f"{run.name}-{seed}"
    out = bench.out / "runs" / name
    if not (out / "model").exists():
        config = config_of(bench, out, _start(bench, run, seed), seed, run.overrides)
        experiment.train(config)
    scores = bench.scored(name, [*VIDEO, *OTHERS], [SENSES], model=out / "model")
    own = scores[name_of(SENSES)]["types"]
    log, timing = lines(out / "log.jsonl"), lines(out / "timing.jsonl")
    exits: dict[str, int] = {}
    for line in log:
        if line["kind"] == "epoch":
            exits |= {sense: line["epoch"] for sense in line["exited"] if sense not in exits}
    model = from_pretrained(out / "model")
    parameters = [*model.adapters.parameters(), *model.fusion.parameters()]
    return Outcome(
        Count.of(own, VIDEO),
        Count.of(own, OTHERS),
        sum(p.numel() for p in parameters),
        _tokens(bench, model),
        sum(line["kind"] == "step" for line in log),
        sum(line["seconds"] for line in timing),
        exits,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a JSONL file; none where there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


@torch.no_grad()
def _tokens(bench: Bench, model: Crema) -> float:
    """Mean length of the prompts of some questions, given all senses."""
    config = replace(bench.asking("tokens", VIDEO[:1], 1), model=model.config)
    samples = experiment.read_samples(config, "test")[:8]
    data = FeatureDataset(samples, Extractor.from_config(config), frames=1)
    (batch,) = data.batches(len(samples))
    prompt = model.prompt(model.query_all(batch), batch)
    return prompt.mask.sum(dim=1).float().mean().item()


def _start(bench: Bench, run: Run, seed: int) -> Path:
    """The model that a run starts from: aligned, and with the fusion that it asks for."""
    named = "aligned" if run.like is None else f"aligned-like-{run.like}"
    aligned = bench.out / "runs" / f"{named}-{seed}"
    if not (aligned / "model").exists():
        like = [] if run.like is None else [f"train.like={run.like}"]
        own = ["train.scope=own", "train.epochs=0", f"train.alignment.epochs={_STARTED}", *like]
        experiment.train(config_of(bench, aligned, video_alone(bench), seed, own))
    if run.fusion is None:
        return aligned / "model"
    place = bench.out / "runs" / f"{run.name}-{seed}-start"
    if not place.exists():
        model = from_pretrained(aligned / "model")
        torch.manual_seed(seed)
        model.change_fusion(run.fusion)
        saved = replace(run_of(aligned / "model"), model=model.config)
        save_pretrained(model, place, run=saved)
    return place


def config_of(
    bench: Bench,
    out: Path,
    init: Path,
    seed: int,
    overrides: Sequence[str],
    *,
    senses: Sequence[str] = SENSES,
) -> Config:
    """Of a training run from the model ``init`` on."""
    recipe = files("open_crema") / "assets" / "reproduce.yaml"
    config = configuration.load(Path(str(recipe)), [f"train.init={json.dumps(str(init))}"])
    config = replace(
        config,
        seed=seed,
        out=str(out),
        model=replace(run_of(init).model, senses=tuple(senses)),
        data=replace(bench.asking("tokens", VIDEO[:1], 1).data, train=str(taught(bench, senses))),
    )
    return configuration.override(config, [*overrides, *bench.overrides])


def taught(bench: Bench, senses: Sequence[str]) -> Path:
    """Of the clips that studies train on those whose questions these senses answer, with captions
    and several questions each."""
    place = bench.out / "train"
    path = place / f"lessons-{'+'.join(senses)}.jsonl"
    if not path.exists():
        senseqa.make(Spec("train", SEED, bench.size.train, (*VIDEO, *OTHERS)), place)
        path, count, _ = lessons.write(place, senses, 8, own=True)
        if not count:
            path.unlink()
            raise ConfigError(
                f"of {bench.size.train} clips none has a question about {', '.join(senses)} alone; "
                "give more --clips"
            )
    return path


def video_alone(bench: Bench) -> Path:
    """The base without its other senses."""
    place = bench.out / "runs" / "video"
    if not place.exists():
        alone = from_pretrained(bench.base, senses=["video"])
        save_pretrained(alone, place, run=run_of(bench.base))
    return place

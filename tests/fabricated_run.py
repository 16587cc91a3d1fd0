"""The files of runs that nobody ran: results with answers by rule, and training logs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
from open_crema.config import from_dict
from open_crema.data.sample import Sample
from open_crema.data.sampler import BITS, draw
from open_crema.evaluation import metrics, result
from open_crema.evaluation.result import Evaluation, Prediction, Skipped

CONFIG: dict[str, Any] = {"name": "made-up", "data": {"store_frames": 4, "frames": 4}}


def write_results(
    folder: Path,
    samples: Sequence[Sample],
    senses: Sequence[str],
    data: Path,
    *,
    skipped: Sequence[Skipped] = (),
    config: dict[str, Any] = CONFIG,
) -> Path:
    """As ``crema eval`` writes them, of a model that is right nine times in ten where it has what a
    question needs, and else guesses."""
    scored = [sample for sample in samples if sample.id not in {s.id for s in skipped}]
    found = Evaluation(
        senses=tuple(senses),
        expected=len(samples),
        predictions=tuple(
            _prediction(sample, senses, by_chance)
            for sample, by_chance in zip(scored, metrics.chance(scored), strict=True)
        ),
        skipped=tuple(skipped),
    )
    return result.write(found, folder, config=from_dict(config), model=tiny.crema(), data=data)


def _prediction(sample: Sample, senses: Sequence[str], chance: float) -> Prediction:
    answer = sample.answers[0]
    choices = sample.options or sample.candidates or (answer, "something else")
    knows = set(sample.needs) <= set(senses) and _share(sample.id, *senses) < 0.9
    said = answer if knows else _guess(choices, sample.id, "+".join(senses))
    blind = _guess(choices, sample.question)
    weights = [3.0 if option == said else 1.0 for option in sample.options]
    strengths = {s: [0.2 + _share(sample.id, s, t) for t in range(4)] for s in senses[1:]}
    totals = [sum(own[t] for own in strengths.values()) for t in range(4)]
    return Prediction(
        id=sample.id,
        type=sample.type,
        question=sample.question,
        answers=sample.answers,
        prediction=said,
        correct=metrics.is_correct(sample, said),
        options=sample.options,
        probabilities=tuple(w / sum(weights) for w in weights),
        senses=tuple(senses),
        absent={},
        blind=blind,
        blind_correct=metrics.is_correct(sample, blind),
        chance=chance,
        majority=False,
        needs=sample.needs,
        pairs=sample.pairs,
        gates={
            sense: tuple(own[t] / totals[t] for t in range(4)) for sense, own in strengths.items()
        },
    )


def _share(*parts: str | int) -> float:
    return draw(*parts) / 2**BITS


def _guess(choices: Sequence[str], *parts: str) -> str:
    return choices[draw("guess", *parts) % len(choices)]


def write_log(folder: Path, senses: Sequence[str], *, epochs: int = 4, steps: int = 10) -> Path:
    """Of sequential training with one step a sense and mini-batch; the last sense exits in the last
    epoch but one."""
    folder.mkdir(parents=True, exist_ok=True)
    exited: dict[str, int] = {}
    lines: list[dict[str, Any]] = [
        {"kind": "align", "epoch": 0, "step": n, "loss": 5 * math.exp(-n / 5)} for n in range(20)
    ]
    for epoch in range(epochs):
        for step in range(epoch * steps, (epoch + 1) * steps):
            for i, sense in enumerate(senses):
                if sense not in exited:
                    loss = 2.5 * math.exp(-step / 15) + 0.3 * _share("loss", sense, step)
                    gradient = 1e-3 * (1 + i) * (0.6 + 0.4 * math.sin(step / 9 + i))
                    line = {"sense": sense, "loss": loss, "lr": 1e-3, "gradient": gradient}
                    lines.append({"kind": "step", "step": step, "epoch": epoch, **line})
        if epoch == epochs - 2:
            exited[senses[-1]] = epoch
        validation = {"accuracy": 0.3 + 0.1 * epoch, "n": 40}
        end = {"kind": "epoch", "epoch": epoch, "exited": dict(exited)}
        lines.append({**end, "validation": validation})
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path

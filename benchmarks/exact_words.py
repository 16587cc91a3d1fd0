"""What a sense would be worth if its adapter made no mistake: captions in the place of its tokens.

    python benchmarks/exact_words.py depth [--base MODEL] [--test 24] [--out out/exact_words]

Asks SenseQA's test questions that need the sense, with video alone, with the sense, and with the
sense's query tokens replaced by the very rows of the LLM's embedding matrix that its adapter was
aligned with. The distance between the last two is the adapter's; what is missing then is the LLM's.
Prints JSON: right answers of N by type. Questions that are asked from frame to frame are left out.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from open_crema import experiment
from open_crema.backbones.base import Backbone
from open_crema.data.sample import Batch
from open_crema.model.crema import Crema
from open_crema.model.fusion import QueryTokens
from open_crema.reproduce import Bench, Size
from open_crema.senseqa.captions import Caption, caption
from open_crema.senseqa.clips import SENSES
from open_crema.senseqa.files import held
from open_crema.senseqa.sets import groups
from open_crema.senseqa.types import IN_TIME, needing
from open_crema.training.words import token_of


def rows_of(backbone: Backbone, words: list[str]) -> torch.Tensor:
    """``[N, D]``: what tokens are aligned with."""
    ids, shares = zip(*(token_of(backbone, word) for word in words), strict=True)
    return backbone.embed(torch.tensor(ids)).float() * torch.tensor(shares)[:, None]


def exact(
    model: Crema,
    batch: Batch,
    tokens: dict[str, QueryTokens],
    sense: str,
    told: Mapping[str, Caption],
) -> dict[str, QueryTokens]:
    """The tokens with those of the sense as its captions say."""
    if sense not in tokens:
        return tokens
    said = tokens[sense].tokens.clone()
    for row, sample in enumerate(batch.samples):
        count = int(tokens[sense].segments[row].sum())
        parts = told[sample.id]
        for k in range(count):
            words = parts[(2 * k + 1) * len(parts) // (2 * count)]
            said[row, k, : len(words)] = rows_of(model.backbone, words)
    return {**tokens, sense: replace(tokens[sense], tokens=said)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    asked = [s for s in SENSES[1:] if not set(needing(s, "video")) <= set(IN_TIME)]
    parser.add_argument("sense", choices=asked)
    parser.add_argument("--base", type=Path, help="default: the base that ships")
    parser.add_argument("--test", type=int, default=24, help="questions of each type")
    parser.add_argument("--out", type=Path, default=Path("out/exact_words"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sense = options.sense
    types = [name for name in needing(sense, "video") if name not in IN_TIME]
    bench = Bench(options.out, base=options.base, size=Size(test=options.test))
    asking = bench.asking(f"exact-{sense}", types, 1)
    told = {
        question.id: caption(group.asked.worlds[variant], sense)
        for group in groups(held(options.out / "test"))
        for variant, question in zip(group.variants, group.questions, strict=False)
        if question.type in types
    }
    query_all = Crema.query_all
    report: dict[str, object] = {"sense": sense, "base": str(bench.base)}
    for name in ("adapter", "exact words"):
        if name != "adapter":
            Crema.query_all = lambda model, batch: exact(  # type: ignore[method-assign]
                model, batch, query_all(model, batch), sense, told
            )
        place = options.out / "results" / f"{sense}-{name.replace(' ', '-')}"
        found, _ = experiment.evaluate_subsets(
            asking, bench.base, subsets=f"video,video+{sense}", out=place
        )
        for one in found[name != "adapter" :]:
            given = "video" if len(one.senses) == 1 else f"video + {sense}, {name}"
            summary = one.summary()["types"]
            report[given] = {t: [round(r["accuracy"] * r["n"]), r["n"]] for t, r in summary.items()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

"""What adapters say: the words that query tokens stand for, against the captions of clips.

    crema data make senseqa --n 328 --seed 7 --split val --out VAL
    crema data lessons VAL --senses video audio flow depth normal point touch thermal --more 1
    python benchmarks/words.py [MODEL] VAL/lessons-....jsonl [--frames 4]

Prints JSON: of each sense and each place of its captions, in how many segments the nearest word (by
cosine, among those that the sense says anywhere in the file) is the caption's, and how many there
are; places with nothing to say are left out, and counted by themselves under "filler".
"""

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from open_crema import experiment
from open_crema.model.files import from_pretrained, run_of
from open_crema.senseqa.captions import FILLER
from open_crema.training.align import captions_of
from open_crema.training.words import token_of


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", nargs="?", default=str(experiment.shipped_base()))
    parser.add_argument("data")
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--store", default=tempfile.gettempdir() + "/open-crema-words")
    options = parser.parse_args()
    model = from_pretrained(options.model).eval()
    run = run_of(options.model)
    shown = replace(
        run.data,
        train=str(Path(options.data)),
        store=options.store,
        store_frames=options.frames,
        frames=options.frames,
        on_error="mask",
    )
    config = replace(run, model=model.config, data=shown)
    dataset = experiment.read_data(config, experiment.read_samples(config, "train"))
    captions = captions_of(model.backbone, dataset.samples)
    rows = model.backbone.llm.get_input_embeddings().weight
    right: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for batch in dataset.batches(32, questions=10):
        for sense, tokens in model.query_all(batch).items():
            words = sorted({int(i) for own in captions.ids.values() if sense in own
                            for i in own[sense].flatten()})  # fmt: skip
            if not words:
                continue
            table = functional.normalize(rows[words], dim=1)
            filler = token_of(model.backbone, FILLER[sense])[0]
            for row, sample in enumerate(batch.samples):
                own = captions.ids[frozenset(sample.media.items())].get(sense)
                if own is None:
                    continue
                count = int(tokens.segments[row].sum())
                parts = (torch.arange(count) * 2 + 1) * len(own) // (2 * count)
                said = functional.normalize(tokens.tokens[row, :count], dim=2) @ table.T
                said = torch.tensor(words)[said.argmax(dim=2)]
                for place in range(own.shape[1]):
                    for heard, meant in zip(said[:, place], own[parts, place], strict=True):
                        name = "filler" if int(meant) == filler else str(place)
                        cell = right[sense][name]
                        cell[0] += int(heard == meant)
                        cell[1] += 1
    print(json.dumps(right, indent=1))


if __name__ == "__main__":
    main()

"""How well an LLM reads captions that are exact: questions of SenseQA, told in words, no media.

    python benchmarks/reading.py [smollm2-135m-captions|FOLDER of crema tune-llm] [--batches 400]

What adapters can at best be worth with this LLM. Prints JSON: of each type of question how many
were answered right, word for word, and asked, on the split val, with the words exact and with the
noise that text tuning adds.
"""

import argparse
import json
from dataclasses import replace
from itertools import islice

import torch

from open_crema import backbones
from open_crema.senseqa import told
from open_crema.senseqa.scene import SECONDS
from open_crema.training.text_tuning import Recipe, TextTuning

SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("llm", nargs="?", default=backbones.CAPTIONS)
    parser.add_argument("--batches", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = {"llm": options.llm}
    for name, noise in (("exact", 0.0), ("noisy", max(Recipe().noise))):
        backbone = backbones.load(options.llm)
        recipe = replace(Recipe(), wrong=0.0, blended=0.0, faint=1.0, noise=(noise,), template="")
        telling = told.Telling(video_first=0, bare=0.0)
        drawn = islice(told.batches(SEED, telling, split="val"), options.batches)
        torch.manual_seed(SEED)
        found = TextTuning(backbone, recipe, seconds=SECONDS).check(drawn)
        asked, right = sum(n for _, n in found.values()), sum(r for r, _ in found.values())
        report[name] = {"right": right, "asked": asked, "types": found}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

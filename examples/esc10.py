"""ESC-10 as open-ended audio question answering: data files and configurations for five folds.

    python examples/esc10.py write FOLDER_OF_ESC10 OUT      # OUT/fold1/{train,test}.jsonl, run.yaml
    crema train OUT/fold1/run.yaml && crema eval OUT/fold1/run.yaml    # and so for each fold
    python examples/esc10.py probe OUT                      # linear probe on the same features
    python examples/esc10.py table OUT                      # both, over the folds

ESC-10 (Piczak, CC BY-SA; part of github.com/karolpiczak/ESC-50) has 400 recordings of 5 s in 10
classes: ``<number> - <Class>/<fold>-<clip>-<take>.ogg``. The fold is the author's; clips of one
source recording never leave their fold.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
import yaml

from open_crema import config, experiment
from open_crema.evaluation.metrics import wilson

QUESTION = "What sound is this?"
FOLDS = range(1, 6)


def write(source: Path, out: Path) -> None:
    """Per fold: the other four folds for training, it for the test, and a configuration."""
    clips = []
    for folder in sorted(p for p in source.iterdir() if p.is_dir() and " - " in p.name):
        name = folder.name.split(" - ", 1)[1].lower()
        clips += [
            (int(clip.name.split("-")[0]), name, clip) for clip in sorted(folder.glob("*.ogg"))
        ]
    if not clips:
        raise SystemExit(f"{source}: no '<number> - <Class>/*.ogg' in it; is this ESC-10?")
    base = Path(__file__).resolve().parents[1] / "configs" / "embedded" / "esc10.yaml"
    for fold in FOLDS:
        place = out / f"fold{fold}"
        place.mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            lines = [
                {
                    "id": clip.stem,
                    "question": QUESTION,
                    "answer": name,
                    "media": {"audio": str(clip.resolve())},
                }
                for own, name, clip in clips
                if (own == fold) == (split == "test")
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (place / f"{split}.jsonl").write_text(text, encoding="utf-8")
        run = {
            "base": str(base),
            "name": f"esc10-fold{fold}",
            "out": str(place.resolve()),
            "data": {s: str((place / f"{s}.jsonl").resolve()) for s in ("train", "test")},
        }
        (place / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    print(f"{len(clips)} clips, {len(FOLDS)} folds in {out}")


def probe(out: Path) -> None:
    """Multinomial logistic regression on each clip's mean frozen feature."""
    for fold in FOLDS:
        run = config.load(out / f"fold{fold}" / "run.yaml")
        train, test = (_pooled(run, split) for split in ("train", "test"))
        names = sorted(set(train[1]))
        mean, spread = train[0].mean(0), train[0].std(0) + 1e-6
        x, y = (train[0] - mean) / spread, torch.tensor([names.index(a) for a in train[1]])
        torch.manual_seed(0)
        layer = torch.nn.Linear(x.shape[1], len(names))
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(x), y).backward()
            optimizer.step()
        said = layer((test[0] - mean) / spread).argmax(1)
        right = sum(names[int(i)] == answer for i, answer in zip(said, test[1], strict=True))
        result = {
            "n": len(test[1]),
            "correct": right,
            "accuracy": right / len(test[1]),
            "parameters": sum(p.numel() for p in layer.parameters()),
        }
        (out / f"fold{fold}" / "probe.json").write_text(json.dumps(result) + "\n")
        print(f"fold {fold}: {result}")


def _pooled(run: config.Config, split: str) -> tuple[torch.Tensor, list[str]]:
    data = experiment.read_data(run, experiment.read_samples(run, split))
    features, answers = [], []
    for batch in data.batches(32):
        x = batch.senses["audio"]
        mask = x.mask[..., None]
        features.append((x.tokens.float() * mask).sum((1, 2)) / mask.sum((1, 2)))
        answers += [sample.answers[0] for sample in batch.samples]
    return torch.cat(features), answers


def table(out: Path) -> None:
    """One line a fold, then mean and spread of both."""
    rates: dict[str, list[float]] = {"CREMA": [], "probe": []}
    totals = [0, 0]
    for fold in FOLDS:
        ours = json.loads((out / f"fold{fold}" / "results" / "results.json").read_text())
        linear = json.loads((out / f"fold{fold}" / "probe.json").read_text())
        rates["CREMA"].append(ours["accuracy"])
        rates["probe"].append(linear["accuracy"])
        totals = [totals[0] + ours["correct"], totals[1] + ours["n"]]
        print(
            f"fold {fold}: N {ours['n']} of {ours['expected']}, chance {ours['chance']:.3f}, "
            f"blind {ours['blind']:.3f}, CREMA {ours['accuracy']:.3f}, "
            f"linear probe {linear['accuracy']:.3f}"
        )
    for name, values in rates.items():
        print(
            f"{name}: mean {statistics.mean(values):.3f}, spread over folds (standard deviation) "
            f"{statistics.stdev(values):.3f}"
        )
    low, high = wilson(*totals)
    print(f"CREMA over all folds: {totals[0]} of {totals[1]}, 95 % interval {low:.3f} - {high:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "probe", "table"))
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    {"write": write, "probe": probe, "table": table}[options.action](*options.paths)


if __name__ == "__main__":
    main()

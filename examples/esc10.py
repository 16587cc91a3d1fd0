"""ESC-10 by VGGSound's protocol: a class is asked for as words, and answered by generation.

    python examples/esc10.py write FOLDER_OF_ESC10 OUT      # five folds, in the layout of VGGSound
    crema train OUT/fold1/base.yaml && crema eval OUT/fold1/base.yaml        # from the shipped base
    crema train OUT/fold1/scratch.yaml && crema eval OUT/fold1/scratch.yaml  # and without it
    python examples/esc10.py probe OUT                      # linear probe on the same features
    python examples/esc10.py table OUT                      # all of them, over the folds

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
from open_crema.storage import read_json

FOLDS = range(1, 6)
STARTS = ("base", "scratch")


def write(source: Path, out: Path) -> None:
    """OUT/media/audio has the recordings; a fold's folder train.csv (the other four folds),
    test.csv (it), stat.csv (the classes), and a configuration for each start."""
    clips = []
    for folder in sorted(p for p in source.iterdir() if p.is_dir() and " - " in p.name):
        name = folder.name.split(" - ", 1)[1].lower()
        clips += [
            (int(clip.name.split("-")[0]), name, clip) for clip in sorted(folder.glob("*.ogg"))
        ]
    if not clips:
        raise SystemExit(f"{source}: no '<number> - <Class>/*.ogg' in it; is this ESC-10?")
    media = (out / "media").resolve()
    (media / "audio").mkdir(parents=True, exist_ok=True)
    for _, _, clip in clips:
        place = media / "audio" / clip.name
        if not place.exists():
            place.symlink_to(clip.resolve())
    names = [name for _, name, _ in clips]
    classes = "".join(f"{name},{names.count(name)},sounds\n" for name in sorted(set(names)))
    shared = Path(__file__).resolve().parents[1] / "configs" / "embedded" / "esc10.yaml"
    base = experiment.shipped_base()
    model = {**read_json(base / "config.json", "the shipped base")["model"], "senses": ["audio"]}
    starts = {
        "scratch": {},
        # The shipped Q-Former stays as it is, and its adapter of audio goes on learning.
        "base": {
            "model": model,
            "train": {"init": str(base), "strategy": "sequential", "qformer": "frozen"},
        },
    }
    for fold in FOLDS:
        place = out / f"fold{fold}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "stat.csv").write_text(classes, encoding="utf-8")
        for split in ("train", "test"):
            kept = [c for c in clips if (c[0] == fold) == (split == "test")]
            lines = [f"{clip.name},{name}\n" for _, name, clip in kept]
            (place / f"{split}.csv").write_text("".join(lines), encoding="utf-8")
        for start, differs in starts.items():
            run = {
                "base": str(shared),
                "name": f"esc10-fold{fold}-{start}",
                "out": str((place / start).resolve()),
                "data": {
                    "train": str((place / "train.csv").resolve()),
                    "test": str((place / "test.csv").resolve()),
                    "media_root": str(media),
                },
                **differs,
            }
            (place / f"{start}.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    print(f"{len(clips)} clips, {len(FOLDS)} folds in {out}")


def probe(out: Path) -> None:
    """Multinomial logistic regression on each clip's mean frozen feature."""
    for fold in FOLDS:
        run = config.load(out / f"fold{fold}" / "scratch.yaml")
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
    """A line a fold and start, then mean and spread of each."""
    rates: dict[str, list[float]] = {}
    totals: dict[str, list[int]] = {}
    for fold in FOLDS:
        place = out / f"fold{fold}"
        linear = json.loads((place / "probe.json").read_text())
        rates.setdefault("linear probe", []).append(linear["accuracy"])
        for start in STARTS:
            if not (place / start / "results" / "results.json").exists():
                continue
            ours = json.loads((place / start / "results" / "results.json").read_text())
            inside = ours["accuracy"] if ours["inside"] is None else ours["inside"]
            for score, value in (
                ("strict", ours["accuracy"]),
                ("lenient", ours["lenient"]),
                ("in-vocabulary", inside),
            ):
                rates.setdefault(f"{start}, {score}", []).append(value)
            right = totals.setdefault(start, [0, 0])
            right[0], right[1] = right[0] + ours["correct"], right[1] + ours["n"]
            print(
                f"fold {fold}, {start}: N {ours['n']} of {ours['expected']}, chance "
                f"{ours['chance']:.3f}, blind {ours['blind']:.3f}, strict {ours['accuracy']:.3f}, "
                f"lenient {ours['lenient']:.3f}, outside {ours['outside']}, "
                f"linear probe {linear['accuracy']:.3f}"
            )
    for name, values in rates.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name}: mean {statistics.mean(values):.3f}, standard deviation {spread:.3f}")
    for start, (right, n) in totals.items():
        low, high = wilson(right, n)
        print(f"{start}, all folds: {right} of {n}, 95 % interval {low:.3f} - {high:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "probe", "table"))
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    {"write": write, "probe": probe, "table": table}[options.action](*options.paths)


if __name__ == "__main__":
    main()

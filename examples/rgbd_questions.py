"""Questions made by rule about one posed RGB-D sequence, split by time with a gap.

    python examples/rgbd_questions.py write SEQUENCE OUT [--rate 30]
    python examples/rgbd_questions.py probe configs/embedded/rgbd.yaml [KEY=VALUE ...]

SEQUENCE is an RGB-D folder with poses (7-Scenes, tsdf-fusion or ScanNet layout). OUT gets
``clips/`` (RGB-D folders of a few frames each), ``train.jsonl`` and ``test.jsonl``. Three types,
the answers of each equally frequent:

    turn    did the camera turn left, right or not?          from the poses
    half    which half of the picture is closer?             from the depth
    centre  is the centre nearer at the end than at first?   from the depth

Clips in which the answer is a close call are not asked about. Neighbouring clips overlap, so a
split holds fewer independent ones than questions; the script says how many fit side by side.

``probe`` is what one would do without an LLM: logistic regression, one a type, on the same frozen
features (the means of the left and right halves of each frame's patches; of a point cloud, the mean
of all).
"""

import argparse
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from open_crema import config, experiment
from open_crema.evaluation.metrics import wilson
from open_crema.media import Clip, Limits
from open_crema.media.rgbd import find_layout, read_rgbd

QUESTIONS = {
    "turn": "Did the camera turn left, right or not?",
    "half": "Which half of the picture is closer, left or right?",
    "centre": "Is the centre of the picture nearer or farther at the end?",
}
TURNED, STILL = 4.0, 2.0  # degrees over a clip; between them it is a close call
APART = 0.05  # relative difference of two distances; less is a close call


def write(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="rgbd_questions.py write")
    parser.add_argument("sequence", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    parser.add_argument("--frames", type=int, default=24, help="frames a clip")
    parser.add_argument("--stride", type=int, default=2, help="frames between clips")
    parser.add_argument("--train", type=float, default=0.6, help="share of the time to train on")
    parser.add_argument("--gap", type=float, default=2.0, help="seconds between the splits")
    options = parser.parse_args(arguments)
    everything = Clip(10**9, Limits(), options.rate)
    rgbd = read_rgbd(options.sequence, everything, posed=True)
    count = len(rgbd.metres)
    edge = round(options.train * count)
    spans = {"train": (0, edge), "test": (edge + round(options.gap * options.rate), count)}
    for split, (first, last) in spans.items():
        asked = defaultdict(lambda: defaultdict(list))  # type -> answer -> first frames
        for start in range(first, last - options.frames + 1, options.stride):
            frames = slice(start, start + options.frames)
            for kind, answer in answers(rgbd.poses[frames], rgbd.metres[frames]).items():
                asked[kind][answer].append(start)
        lines = [
            {
                "id": f"{split}-{kind}-{start}",
                "video": f"clips/{start:06d}",
                "question": QUESTIONS[kind],
                "answer": answer,
                "type": kind,
            }
            for kind, by_answer in asked.items()
            for answer, starts in by_answer.items()
            for start in thinned(starts, min(map(len, by_answer.values())))
        ]
        for start in sorted({int(line["video"][-6:]) for line in lines}):
            write_clip(options, start, rgbd.poses, options.out / "clips" / f"{start:06d}")
        text = "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda x: x["id"]))
        (options.out / f"{split}.jsonl").write_text(text)
        counts = {kind: {a: len(x) for a, x in by.items()} for kind, by in asked.items()}
        seconds, apart = (last - first) / options.rate, (last - first) // options.frames
        print(f"{split}: {len(lines)} questions over {seconds:.1f} s ({apart} clips side by side)")
        print(f"  before balancing: {counts}")


def answers(poses: np.ndarray, metres: np.ndarray) -> dict[str, str]:
    """What the rules say of a clip: poses [n, 4, 4] camera to world, metres [n, h, w]."""
    found = {}
    ahead = poses[0, :3, :3].T @ poses[-1, :3, 2]  # the last view's axis, seen from the first
    turn = np.degrees(np.arctan2(ahead[0], ahead[2]))
    if abs(turn) > TURNED:
        found["turn"] = "right" if turn > 0 else "left"
    elif abs(turn) < STILL:
        found["turn"] = "no"
    height, width = metres.shape[1:]
    left, right = np.nanmedian(metres[..., : width // 2]), np.nanmedian(metres[..., width // 2 :])
    if abs(left - right) > APART * min(left, right):
        found["half"] = "left" if left < right else "right"
    centre = metres[:, height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8]
    first, last = np.nanmedian(centre[:2]), np.nanmedian(centre[-2:])
    if abs(first - last) > APART * min(first, last):
        found["centre"] = "nearer" if last < first else "farther"
    return found


def thinned(starts: list[int], count: int) -> list[int]:
    return [starts[i * len(starts) // count] for i in range(count)]


def write_clip(options: argparse.Namespace, start: int, poses: np.ndarray, folder: Path) -> None:
    layout = find_layout(options.sequence)
    frames = slice(start, start + options.frames)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for i, files in enumerate(zip(layout.colour[frames], layout.depth[frames], strict=True)):
        for role, file in zip(("color", "depth"), files, strict=True):
            shutil.copy(file, folder / f"frame-{i:06d}.{role}{file.suffix}")
    for file in layout.intrinsics:
        shutil.copy(file, folder / file.name)
    np.save(folder / "poses.npy", poses[frames])
    times = (f"{i / options.rate:.6f}\n" for i in range(options.frames))
    (folder / "timestamps.txt").write_text("".join(times))


def probe(arguments: list[str]) -> None:
    run = config.load(arguments[0], arguments[1:])
    (x, asked, right), (x_test, asked_test, right_test) = (
        pooled(run, split) for split in ("train", "test")
    )
    mean, spread = x.mean(dim=0), x.std(dim=0) + 1e-3
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    for kind in QUESTIONS:
        rows = [i for i, k in enumerate(asked) if k == kind]
        test = [i for i, k in enumerate(asked_test) if k == kind]
        names = sorted({right[i] for i in rows})
        target = torch.tensor([names.index(right[i]) for i in rows])
        torch.manual_seed(run.seed)
        layer = torch.nn.Linear(x.shape[1], len(names))
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=1.0)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(x[rows]), target).backward()
            optimizer.step()
        said = [names[i] for i in layer(x_test[test]).argmax(dim=1).tolist()]
        correct = sum(a == right_test[i] for a, i in zip(said, test, strict=True))
        low, high = wilson(correct, len(test))
        print(
            f"{kind}: {correct} of {len(test)}, {correct / len(test):.2f} ({low:.2f} - {high:.2f})"
        )


def pooled(run: config.Config, split: str) -> tuple[torch.Tensor, list[str], list[str]]:
    """Features [N, F] of a split's clips, and the type and answer of each question."""
    data = experiment.read_data(run, experiment.read_samples(run, split))
    rows = []
    for batch in data.batches(1):
        parts = []
        for sense, x in batch.senses.items():
            tokens = x.tokens[0].float()  # [S, K, W]
            if sense == "point":
                parts.append(tokens.mean(dim=(0, 1)))
                continue
            patches = tokens[:, 1:]  # without the class token
            side = round(patches.shape[1] ** 0.5)
            grid = patches.unflatten(1, (side, side))
            halves = grid[:, :, : side // 2].mean(dim=(1, 2)), grid[:, :, side // 2 :].mean((1, 2))
            parts += [half.flatten() for half in halves]
        rows.append(torch.cat(parts))
    samples = data.samples
    return torch.stack(rows), [s.type for s in samples], [s.answers[0] for s in samples]


if __name__ == "__main__":
    actions = {"write": write, "probe": probe}
    if len(sys.argv) < 3 or sys.argv[1] not in actions:
        raise SystemExit(__doc__)
    actions[sys.argv[1]](sys.argv[2:])

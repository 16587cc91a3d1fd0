"""Questions made by rule about one posed RGB-D sequence, split by time with a gap.

    python examples/rgbd_questions.py SEQUENCE OUT [--rate 30]

SEQUENCE is an RGB-D folder with poses (7-Scenes, tsdf-fusion or ScanNet layout). OUT gets
``clips/`` (RGB-D folders of a few frames each), ``train.jsonl`` and ``test.jsonl``. Three types,
the answers of each equally frequent:

    turn    did the camera turn left, right or not?          from the poses
    half    which half of the picture is closer?             from the depth
    centre  is the centre nearer at the end than at first?   from the depth

Clips in which the answer is a close call are not asked about. Neighbouring clips overlap, so a
split holds fewer independent ones than questions; the script says how many fit side by side.
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np

from open_crema.media import Clip, Limits
from open_crema.media.rgbd import find_layout, read_rgbd

QUESTIONS = {
    "turn": "Did the camera turn left, right or not?",
    "half": "Which half of the picture is closer, left or right?",
    "centre": "Is the centre of the picture nearer or farther at the end?",
}
TURNED, STILL = 4.0, 2.0  # degrees over a clip; between them it is a close call
APART = 0.05  # relative difference of two distances; less is a close call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sequence", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    parser.add_argument("--frames", type=int, default=24, help="frames a clip")
    parser.add_argument("--stride", type=int, default=2, help="frames between clips")
    parser.add_argument("--train", type=float, default=0.6, help="share of the time to train on")
    parser.add_argument("--gap", type=float, default=2.0, help="seconds between the splits")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()

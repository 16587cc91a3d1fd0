"""Make the data of examples/add_sense.py: short clips with a motion sensor's recording beside each.

    python examples/make_motion.py FOLDER [--train 96] [--test 40] [--seed 0]

The clips are those of make_clips.py, which show nothing of how their camera moves. What the sensor
felt is one of four ways of moving; the question asks for it, so the pictures alone cannot answer.
Writes ``train.jsonl``, ``test.jsonl``, ``clips/*.mp4`` and ``motion/*.npy`` [n, 6] at 100 Hz:
acceleration (m/s^2) and turning rate (rad/s).
"""

import argparse
import json
from pathlib import Path

import make_clips
import numpy as np

RATE, SECONDS = 100, 3
MOTIONS = ("still", "walking", "running", "turning")
QUESTION = "How does the camera move?"


def record(kind: str, rng: np.random.Generator) -> np.ndarray:
    """``[RATE * SECONDS, 6]`` float32 of one way of moving."""
    t = np.arange(RATE * SECONDS) / RATE
    signal = rng.normal(0, 0.15, (len(t), 6))
    signal[:, 2] += 9.81
    if kind in ("walking", "running"):
        hertz, lift = (
            (rng.uniform(1.6, 2.1), 2.0) if kind == "walking" else (rng.uniform(2.6, 3.2), 9.0)
        )
        bounce = np.sin(2 * np.pi * hertz * t + rng.uniform(0, 6))
        signal[:, 2] += lift * rng.uniform(0.8, 1.2) * bounce
        signal[:, 0] += 0.4 * lift * np.roll(bounce, 12)
    elif kind == "turning":
        signal[:, 5] += rng.choice([-1, 1]) * rng.uniform(0.8, 1.6)
    return signal.astype(np.float32)


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    """Writes ``count`` clips and recordings and a question about each."""
    make_clips.write_split(folder, split, count, seed)
    (folder / "motion").mkdir(exist_ok=True)
    rng = np.random.default_rng([seed, sum(split.encode())])
    lines = []
    for i in range(count):
        kind = MOTIONS[i % len(MOTIONS)]
        np.save(folder / "motion" / f"{split}{i:04d}.npy", record(kind, rng))
        lines.append(
            {
                "id": f"{split}{i:04d}",
                "video": f"clips/{split}{i:04d}.mp4",
                "media": {"imu": f"motion/{split}{i:04d}.npy"},
                "question": QUESTION,
                "answer": kind,
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{split}.jsonl").write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=96)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_split(given.folder, "train", given.train, given.seed)
    write_split(given.folder, "test", given.test, given.seed)

"""Add a sense that the project does not know, a motion sensor, to a trained model.

    python examples/add_sense.py BASE_MODEL OUT [KEY=VALUE ...]

BASE_MODEL is the folder of a trained model, as docs/add-a-sense.md makes one.
Only the new sense's adapter and fusion block are trained; nothing of the base moves.
"""

import sys
from pathlib import Path

import make_motion
import numpy as np
import torch

from open_crema import Features, config, experiment
from open_crema.modality import modality


def read_imu(path, clip):
    return np.load(path)  # [seconds * 100, 6] at 100 Hz


@modality(name="imu", label="Motion Sensor", reader=read_imu, alignment="overlap")
class ImuEncoder:
    name, width, fingerprint = "imu-statistics", 18, "imu-statistics-1"

    def __call__(self, signal):
        tenths = torch.from_numpy(signal).view(-1, 10, 10, 6)
        parts = (tenths.mean(dim=2), tenths.std(dim=2), tenths.abs().amax(dim=2))
        tokens = torch.cat(parts, dim=2)  # [seconds, 10, 18]
        start = torch.arange(len(tokens), dtype=torch.float64)
        times = torch.stack([start, start + 1], dim=1)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), times)


if __name__ == "__main__":
    base, out = Path(sys.argv[1]), Path(sys.argv[2])
    for split, count in {"train": 96, "test": 40}.items():
        make_motion.write_split(out / "data", split, count, seed=0)
    run, _ = experiment.load_run(base, [
        f"out={out}", f"data.train={out}/data/train.jsonl", f"data.test={out}/data/test.jsonl",
        f"train.init={base}", "train.scope=own", "train.qformer=frozen", "train.epochs=10",
        "train.alignment.epochs=100", "train.alignment.lr=3e-3", *sys.argv[3:],
    ])  # fmt: skip
    known = list(run.model.senses)
    run = config.override(run, [f"model.senses={[*known, 'imu']}"])
    model = experiment.train(run, fresh=True)
    for senses in ([*known, "imu"], known):
        found = experiment.evaluate_split(run, model, senses=senses, out=out / "-".join(senses))
        print(f"{' + '.join(senses)}: {100 * found.accuracy:.0f} % of {len(found.predictions)}")

"""Writing, packing and reading the feature store: loose entries against shards.

    python benchmarks/store.py [--entries 2000] [--folder DIR]

Prints JSON: CPU milliseconds an entry on one thread for put, pack and get (every read verifies its
checksum; keys in random order, files in the page cache), and the seconds that a new process needs
to find the first packed entry. An entry is 8 frames of 65 tokens of width 384 in bfloat16, 400 kB.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable

import torch

from open_crema import Features
from open_crema.data.entry import About
from open_crema.data.store import FeatureStore, as_stored, feature_key

SHAPE = (8, 65, 384)


def cpu(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=2000)
    parser.add_argument("--folder", help="where the store is made and removed; default: temporary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    features = as_stored(
        Features(
            torch.randn(SHAPE, generator=generator),
            torch.ones(SHAPE[:2], dtype=torch.bool),
            torch.zeros(SHAPE[0], 2, dtype=torch.float64),
        )
    )
    keys = [feature_key(number=number) for number in range(options.entries)]
    about = About("video", "encoder/1", 1, (("/clips/a.mp4", "0" * 64),))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = FeatureStore(folder)
        seconds = {"put": cpu(lambda: [store.put(key, features, about=about) for key in keys])}
        random.Random(0).shuffle(keys)
        seconds["get_loose"] = cpu(lambda: [store.get(key) for key in keys])
        seconds["pack"] = cpu(store.pack)
        reader = FeatureStore(folder)
        first = cpu(lambda: reader.get(keys[0]))
        seconds["get_packed"] = cpu(lambda: [reader.get(key) for key in keys])
    found = {name: round(1000 * value / options.entries, 3) for name, value in seconds.items()}
    print(json.dumps({"entries": options.entries, "ms_an_entry": found, "first_get_s": first}))


if __name__ == "__main__":
    main()

"""Making SenseQA: what a clip costs, sense by sense, in memory and as files.

    python benchmarks/senseqa.py [--clips 172]

Prints JSON: CPU milliseconds a clip on one thread, for 4 and 8 key frames, all senses and each
(rays are cast by whichever asks first: the video), then the same clips written as files by
`open_crema.senseqa.files` with one worker (CPU of that worker and its parent), and bytes a clip.
172 clips are two rounds of all types.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from open_crema.senseqa import SENSES, Spec, files
from open_crema.senseqa.clips import GroupClips
from open_crema.senseqa.sets import groups


def in_memory(clips: int, frames: int) -> dict[str, float]:
    """CPU milliseconds a clip."""
    spent = dict.fromkeys(SENSES, 0.0)
    start = time.process_time()
    for group in groups(Spec("val", 0, clips, frames=frames)):
        for clip in GroupClips(group):
            for sense in SENSES:
                before = time.process_time()
                clip[sense]
                spent[sense] += time.process_time() - before
    spent["all"] = time.process_time() - start
    return {name: round(1000 * seconds / clips, 2) for name, seconds in spent.items()}


def as_files(clips: int, frames: int) -> dict[str, float]:
    """CPU milliseconds and kilobytes a clip."""

    def cpu() -> float:
        used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in used)

    with tempfile.TemporaryDirectory() as folder:
        start = cpu()
        files.make(Spec("val", 0, clips, frames=frames), Path(folder) / "set", workers=1)
        seconds = cpu() - start
        size = sum(file.stat().st_size for file in (Path(folder) / "set" / "clips").rglob("*.*"))
    return {"cpu_ms": round(1000 * seconds / clips, 2), "kB": round(size / 1000 / clips, 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=172)
    options = parser.parse_args()
    in_memory(20, 4)  # imports and caches
    found = {
        f"{frames} frames": {
            "in_memory_cpu_ms": in_memory(options.clips, frames),
            "files": as_files(options.clips, frames),
        }
        for frames in (4, 8)
    }
    print(json.dumps({"clips": options.clips, **found}, indent=2))


if __name__ == "__main__":
    main()

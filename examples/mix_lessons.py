"""Some clips of each sense's lessons in one file: what `configs/embedded/base_mix.yaml` trains on.

    python examples/mix_lessons.py FOLDER CLIPS SENSE...

FOLDER holds ``lessons-video+SENSE.jsonl`` of each sense (``crema data lessons``); ``mix.jsonl`` is
written beside them, with so many clips of each.
"""

import json
import random
import sys
from pathlib import Path


def main(folder: str, count: str, *senses: str) -> None:
    with Path(folder, "mix.jsonl").open("w", encoding="utf-8") as mixed:
        for sense in senses:
            clips: dict[tuple[str, str], list[dict[str, object]]] = {}
            with Path(folder, f"lessons-video+{sense}.jsonl").open(encoding="utf-8") as lessons:
                for line in map(json.loads, lessons):
                    key = (line["video"], json.dumps(line["media"]))
                    clips.setdefault(key, []).append(line)
            chosen = sorted(clips)
            random.Random(0).shuffle(chosen)
            for line in (line for key in chosen[: int(count)] for line in clips[key]):
                line["id"] = f"{sense}-{line['id']}"  # a question may be in several files
                mixed.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

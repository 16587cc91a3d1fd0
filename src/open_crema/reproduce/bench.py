"""What studies share: the clips, and models that are trained and scored once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from open_crema import config as configuration
from open_crema import experiment
from open_crema.config import Config, DataConfig
from open_crema.errors import ConfigError, CremaError
from open_crema.evaluation.subsets import name_of
from open_crema.model.files import run_of
from open_crema.senseqa import files as senseqa
from open_crema.senseqa.sets import Spec
from open_crema.senseqa.types import IN_TIME, TYPES
from open_crema.storage import read_json, write_json

SEED = 2027  # of the clips that are asked about; the base and the quickstart have seen others
_FRAMES = 4
_IDENTITY = "bench.json"
# Questions of a round in which every type has one group: a pair, or of two senses two pairs.
_ROUND = sum(2 ** len(kind.flips) for kind in TYPES.values())

Scores = Mapping[str, Mapping[str, Any]]  # name of a subset of the senses -> its results.json


@dataclass(frozen=True)
class Size:
    """test: questions of each type, and twice as many of those of two senses. train: clips that
    training studies learn from."""

    test: int = 20
    train: int = 600


class Bench:
    """Where studies work: a folder with the clips, features and results of all of them.

    What is there already is not made again. base: the model that studies start from; seeds: of
    those that train; overrides: ``KEY=VALUE`` of every training, above the studies' own.

    Raises ConfigError where the folder holds what another base, size or overrides gave.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        base: str | Path | None = None,
        size: Size | None = None,
        seeds: Sequence[int] = (0,),
        overrides: Sequence[str] = (),
    ) -> None:
        self.out = Path(out)
        self.base = Path(base) if base is not None else experiment.shipped_base()
        self.size = size or Size()
        self.seeds = tuple(dict.fromkeys(seeds))
        self.overrides = tuple(overrides)
        self.senses = run_of(self.base).model.senses
        self._claim()

    def _claim(self) -> None:
        own = {
            "base": _digest(self.base),
            "size": asdict(self.size),
            "overrides": list(self.overrides),
        }
        path = self.out / _IDENTITY
        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(path, own)
        elif differ := [k for k, v in read_json(path, "").items() if v != own.get(k)]:
            raise ConfigError(
                f"{self.out}: holds results of another {', '.join(differ)} ({_IDENTITY} says "
                "which); choose another --out, or delete it"
            )

    def scored(
        self,
        name: str,
        types: Sequence[str],
        subsets: Sequence[Sequence[str]],
        *,
        model: Path | None = None,
    ) -> Scores:
        """A model (the base by default) on questions of these types, for each subset of senses.

        Questions that are asked from frame to frame are given four frames, others one; results are
        summed up by type. Files go to ``out/results/NAME``.

        Raises CremaError where a question has no score.
        """
        found: dict[str, dict[str, Any]] = {}
        for frames, own in (
            (1, [t for t in types if t not in IN_TIME]),
            (_FRAMES, [t for t in types if t in IN_TIME]),
        ):
            if not own:
                continue
            place = self.out / "results" / name / f"frames-{frames}"
            if not (place / "subsets.json").exists():
                experiment.evaluate_subsets(
                    self.asking(name, own, frames),
                    model or self.base,
                    subsets=",".join(map(name_of, subsets)),
                    out=place,
                )
            for row in json.loads((place / "subsets.json").read_text(encoding="utf-8")):
                if row["scored"] != row["expected"]:
                    raise CremaError(f"{place}: {row['scored']} of {row['expected']} were scored")
                merged = found.setdefault(row["folder"], {"types": {}})
                merged["types"] |= row["types"]
        return found

    def asking(self, name: str, types: Sequence[str], frames: int) -> Config:
        """The base's configuration, with a study's test questions of these types and so many frames
        a clip."""
        place = self.out / "test"
        spec = Spec("test", SEED, self.size.test // 2 * _ROUND, tuple(TYPES))
        senseqa.make(spec, place)
        lines = (place / senseqa.QUESTIONS).read_text(encoding="utf-8").splitlines(keepends=True)
        path = place / f"{name}-{frames}.jsonl"
        path.write_text(
            "".join(line for line in lines if json.loads(line)["type"] in types), encoding="utf-8"
        )
        data = DataConfig(
            test=str(path), store=str(self.out / "store"), store_frames=frames, frames=frames
        )
        eval_ = configuration.EvalConfig(max_new_tokens=5)
        return replace(run_of(self.base), out=str(self.out), data=data, eval=eval_)


def _digest(model: Path) -> str:
    """Of all that a saved model holds, and which LLM it was made for."""
    digest = hashlib.sha256()
    for file in [model / "config.json", *sorted(model.rglob("*.safetensors"))]:
        digest.update(file.relative_to(model).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

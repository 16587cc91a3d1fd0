"""What studies share: the clips, and models that are trained and scored once."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from open_crema import config as configuration
from open_crema import experiment
from open_crema.config import Config, DataConfig
from open_crema.evaluation.subsets import name_of
from open_crema.model.files import run_of
from open_crema.senseqa import files as senseqa
from open_crema.senseqa.sets import Spec
from open_crema.senseqa.types import IN_TIME, TYPES

SEED = 2027  # of the clips that are asked about; the base and the quickstart have seen others
_FRAMES = 4

Scores = Mapping[str, Mapping[str, Any]]  # name of a subset of the senses -> its results.json


@dataclass(frozen=True)
class Size:
    """test: questions of each type. train: clips that training studies learn from."""

    test: int = 20
    train: int = 600


class Bench:
    """Where studies work: a folder with the clips, features and results of all of them.

    What is there already is not made again. base: the model that studies start from; seeds: of
    those that train.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        base: str | Path | None = None,
        size: Size | None = None,
        seeds: Sequence[int] = (0,),
    ) -> None:
        self.out = Path(out)
        self.base = Path(base) if base is not None else experiment.shipped_base()
        self.size = size or Size()
        self.seeds = tuple(seeds)
        self.senses = run_of(self.base).model.senses

    def scored(
        self,
        name: str,
        types: Collection[str],
        subsets: Sequence[Sequence[str]],
        *,
        model: Path | None = None,
        curve: bool = False,
    ) -> Scores:
        """A model (the base by default) on questions of these types, for each subset of senses.

        Questions that are asked from frame to frame are given four frames, others one; results are
        summed up by type. Files go to ``out/results/NAME``.
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
                    self._config(own, frames),
                    model or self.base,
                    subsets=",".join(map(name_of, subsets)),
                    curve=curve,
                    out=place,
                )
            for row in json.loads((place / "subsets.json").read_text(encoding="utf-8")):
                merged = found.setdefault(row["folder"], {"types": {}})
                merged["types"] |= row["types"]
        return found

    def _config(self, types: Sequence[str], frames: int) -> Config:
        return replace(
            run_of(self.base),
            out=str(self.out),
            data=self.data(types, frames),
            eval=configuration.EvalConfig(max_new_tokens=5),
        )

    def data(self, types: Sequence[str], frames: int) -> DataConfig:
        """The test questions of these types, with so many frames a clip."""
        return DataConfig(
            test=str(self.questions(types)),
            store=str(self.out / "store"),
            store_frames=frames,
            frames=frames,
        )

    def questions(self, types: Sequence[str]) -> Path:
        """A file of the test set's questions of these types."""
        place = self.out / "test"
        spec = Spec("test", SEED, self.size.test * len(TYPES), tuple(TYPES))
        senseqa.make(spec, place)
        lines = (place / senseqa.QUESTIONS).read_text(encoding="utf-8").splitlines(keepends=True)
        path = place / f"{'+'.join(types)[:80]}.jsonl"
        path.write_text("".join(line for line in lines if json.loads(line)["type"] in types))
        return path

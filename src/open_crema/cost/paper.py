"""Every row of the paper's tables that is a configuration here, beside what the paper prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from open_crema import config as configuration
from open_crema.config import Config
from open_crema.cost.memory import memory
from open_crema.cost.meta import skeleton
from open_crema.cost.operations import Operations, Workload, operations
from open_crema.cost.parameters import Cost, of_run
from open_crema.errors import ConfigError
from open_crema.evaluation import published
from open_crema.evaluation.published import PublishedRow

Verdict = Literal["match", "differs", "published values contradict each other"]
MATCH: Verdict = "match"
DIFFERS: Verdict = "differs"
CONTRADICT: Verdict = "published values contradict each other"

# The paper does not say how long its texts are: 10 to 40 tokens move the count of V by 4 %.
_MACS_TOLERANCE = 0.03
_MEMORY_TOLERANCE = 0.1


@dataclass(frozen=True)
class Judged:
    """quantity: "trainable", "total", "macs" or "memory". ours, theirs: in parameters,
    multiply-accumulates, bytes. reason: why they are not equal."""

    quantity: str
    ours: int
    theirs: float
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class PaperRow:
    """A row of a table: its configuration, what it costs here, and the paper's figures judged."""

    config: Config
    published: PublishedRow
    cost: Cost
    operations: Operations
    judged: tuple[Judged, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The worst; None where the paper prints nothing that could be compared."""
        found = {one.verdict for one in self.judged}
        return next((v for v in (CONTRADICT, DIFFERS, MATCH) if v in found), None)


def folder_of_configs(given: str | Path | None = None) -> Path:
    """configs/paper: the given folder, or the one of this checkout, or of the working directory.

    Raises ConfigError where it is in none of these places.
    """
    beside = Path(__file__).parents[3] / "configs" / "paper"
    places = [Path(given)] if given else [Path("configs/paper"), beside]
    for place in places:
        if (place / "_full_size.yaml").is_file():
            return place
    raise ConfigError(
        f"{places[0]}: no _full_size.yaml there; the paper's configurations are the repository's "
        "configs/paper: name that folder, as in crema cost configs/paper --all-paper"
    )


def paper_rows(folder: Path, work: Workload | None = None) -> Iterator[PaperRow]:
    """In printed order. Prompts are counted in the released code's layout, under which the paper's
    GFLOPs were."""
    counted: dict[str, tuple[Config, Cost, Operations]] = {}
    for row in published.rows():
        if row.config is None:
            continue
        if row.config not in counted:
            counted[row.config] = _count(folder / f"{row.config}.yaml", work)
        config, cost, done = counted[row.config]
        judged = tuple(_judge(config, row, cost, done, work))
        yield PaperRow(config, row, cost, done, judged)


def _count(path: Path, work: Workload | None) -> tuple[Config, Cost, Operations]:
    config = configuration.load(path)
    model = config.model
    prompt = replace(model.prompt, layout="reference")
    config = replace(config, model=replace(model, prompt=prompt))
    built = skeleton(config.model)
    done = operations(config, built, work or Workload.of(config))
    return config, of_run(config, built), done


def _judge(
    config: Config, row: PublishedRow, cost: Cost, done: Operations, work: Workload | None
) -> Iterator[Judged]:
    if row.trainable:
        verdict, reason = _trainable(row, cost)
        yield Judged("trainable", cost.trainable, row.trainable.value, verdict, reason)
    if row.total:
        total = cost.total
        same = row.total.says(total)
        reason = "" if same else _TOTAL
        yield Judged("total", total, row.total.value, MATCH if same else DIFFERS, reason)
    if row.gflops:
        theirs = row.gflops.value * 1e9
        same = abs(done.total - theirs) <= _MACS_TOLERANCE * theirs
        reason = "" if same else _why_macs(row, done)
        yield Judged("macs", done.total, theirs, MATCH if same else CONTRADICT, reason)
    if row.memory:
        ours = memory(config, work or Workload.of(config)).total
        same = abs(ours - row.memory.value) <= _MEMORY_TOLERANCE * row.memory.value
        reason = "" if same else _MEMORY
        yield Judged("memory", ours, row.memory.value, MATCH if same else DIFFERS, reason)


_TOTAL = (
    "4.1B is BLIP-2's own figure: with the Q-Former's text half (83M) and the ViT's last block "
    "(25M), neither of which is used; the paper's other totals are as much above the parts in use"
)
_MEMORY = (
    "an estimate of our step on features from the store; the paper's is not described beyond its "
    "batch size, and includes frozen encoders"
)


def _trainable(row: PublishedRow, cost: Cost) -> tuple[Verdict, str]:
    assert row.trainable is not None
    if row.trainable.says(cost.trainable):
        return MATCH, ""
    # Table 18 cuts off where the norm of the points, which is never applied, decides the digit.
    norm = cost.uncounted.get("norm of the point features", 0)
    if row.trainable.says(cost.trainable + norm):
        return MATCH, ""
    dead = sum(cost.uncounted.values())
    if row.trainable.says(cost.trainable + dead):
        return CONTRADICT, (
            f"only with {dead:,} parameters that the released code lists and never uses; Table 3 "
            "prints 28M for as many senses, without them"
        )
    if row.table == 6:
        return CONTRADICT, (
            "the accuracy of 20 epochs is Table 1's of V,A,F (21M); 38M is V,A,F,D,N's"
        )
    return DIFFERS, ""


def _why_macs(row: PublishedRow, done: Operations) -> str:
    """What the published figures would need, and which others forbid it."""
    if row.senses == ("video", "audio"):
        return (
            "would need about 6 windows of sound instead of 2; and one more sense (V,A,F) then "
            "adds 0.03K to it, while V,F is printed 0.92K above V"
        )
    if row.senses == ("video", "point"):
        return (
            "would need about 25,000 points instead of 5,000; V,P,D,N would then need 20,000, "
            "without its ViT passes"
        )
    if row.variant == "concat" or len(row.senses) < 3:
        return (
            "a further visual sense by concatenation is printed as +0.91K, +2.82K, +1.09K "
            "(Table 3), +1.43K (Table 1), +1.90K (Table 2); counted it is +1.25K each"
        )
    visual = [s for s in done.encoders if s not in ("video", "audio", "point")]
    extra = sum(done.encoders[s] or 0 for s in visual)
    return (
        f"{(done.total - extra) / 1e12:.2f}K without the ViT passes of {len(visual)} further "
        "senses: so flat only without them; a further sense is printed as +0.13K (Table 3), "
        "+0.015K (Table 1)"
    )


def summary(rows: Iterable[PaperRow]) -> Mapping[str, int]:
    """How often each verdict was given, over all compared figures."""
    found: dict[str, int] = {MATCH: 0, DIFFERS: 0, CONTRADICT: 0}
    for row in rows:
        for one in row.judged:
            found[one.verdict] += 1
    return found


def figures(row: PublishedRow) -> dict[str, Any]:
    """What the paper prints, as plain data: parameters, multiply-accumulates, bytes."""
    return {
        "table": row.table,
        "line": row.line,
        "method": row.method,
        "dataset": row.dataset,
        "variant": row.variant,
        "trainable": row.trainable and row.trainable.value,
        "total": row.total and row.total.value,
        "macs": row.gflops and row.gflops.value * 1e9,
        "memory": row.memory and row.memory.value,
    }


def to_row(row: PaperRow) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        "name": row.config.name,
        "senses": list(row.config.model.senses),
        "trainable": row.cost.trainable,
        "frozen": row.cost.frozen,
        "total": row.cost.total,
        "macs": row.operations.total,
        "operations": dict(row.operations.parts),
        "published": figures(row.published),
        "verdict": row.verdict,
        "verdicts": {one.quantity: one.verdict for one in row.judged},
        "reasons": {one.quantity: one.reason for one in row.judged if one.reason},
    }

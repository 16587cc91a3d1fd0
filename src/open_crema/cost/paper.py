"""``crema cost --all-paper``: every published count beside what the same model has here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from open_crema.config import ModelConfig, from_dict
from open_crema.cost.operations import Operations, operations
from open_crema.cost.parameters import Cost, count
from open_crema.evaluation import published
from open_crema.evaluation.published import GFLOPS, OURS, TOTAL, TRAINABLE, Row

_BASELINES = ("BLIP-2", "3D-LLM")
_FUSIONS = ("concat", "cross-attention", "linear", "mixture-of-experts", "self-gated")
MATCH, DIFFERS, CONTRADICT = "match", "differs", "published values contradict each other"
_SHORT = {MATCH: "match", DIFFERS: "differs", CONTRADICT: "contradict"}
_SAME = 0.025  # of MACs: one in the last printed digit is 0.8 %, and the tokens are not printed
_WHY_SOUND = (
    "would need 6 windows of sound, not 2; and flow beside it (V,A,F) is then printed as 0.03K "
    "more, which is 0.92K more than V in Table 3"
)
_WHY_POINTS = (
    "would need 25,000 points, not 5,000; V,P,D,N would then need 20,000 and a ViT for video alone"
)
_WHY_CONCAT = (
    "one more visual sense side by side is printed as 0.91K, 2.82K, 1.09K (Table 3), 1.43K "
    "(Table 1), 1.90K (Table 2); counted it is 1.25K each"
)
_WHY_38M = (
    "38M only with 9.4M that the released code lists as trainable and never uses; Table 3 has 28M "
    "for as many senses"
)


@dataclass(frozen=True)
class PaperRow:
    """A published row and its counts here. verdicts: column -> (verdict, reason or "")."""

    row: Row
    parameters: Cost
    operations: Operations
    verdicts: dict[str, tuple[str, str]]

    @property
    def name(self) -> str:
        return f"Table {self.row.table}, {self.row.task}, {self.row.method} {self.row.letters}"

    @property
    def trainable(self) -> int:
        return self.parameters.trainable

    @property
    def total(self) -> int:
        return self.parameters.trainable + self.parameters.frozen

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "senses": list(self.row.senses),
            "trainable": self.trainable,
            "total": self.total,
            "macs": self.operations.total,
            "published": dict(self.row.values),
            "verdicts": {
                column: {"verdict": verdict, "reason": reason}
                for column, (verdict, reason) in self.verdicts.items()
            },
        }


def full_size(letters: str, *, rank: int = 64, kind: str | None = None) -> ModelConfig:
    """The published model. kind: of the fusion; the counts imply none up to two senses, and the
    self-gated one from three on."""
    merged = kind or ("self-gated" if len(letters) > 2 else "concat")
    config: ModelConfig = from_dict(
        {
            "senses": [published.LETTERS[letter] for letter in letters],
            "llm": "flan-t5-xl",
            "encoders": {
                "vision": "eva-vit-g",
                "audio": "beats-iter3",
                "point": "points-3dllm",
                "resolution": 224,
                "audio_window": 5.12,
                "audio_max_windows": 2,
            },
            "qformer": {
                "layers": 12,
                "width": 768,
                "heads": 12,
                "ffn": 3072,
                "queries": 32,
                "encoder_width": 1408,
            },
            "lora": {"rank": rank},
            "fusion": {"kind": merged},
            "prompt": {"layout": "reference"},
        },
        schema=ModelConfig,
    )
    return config


def paper_rows() -> Iterator[PaperRow]:
    """Every row that names parameters or operations and is CREMA or a baseline that we have."""
    for row in published.rows():
        printed = [c for c in (TRAINABLE, TOTAL, GFLOPS) if c in row.values]
        kind = row.method if row.method in _FUSIONS else None
        ours = row.method.startswith((OURS, "video-only"))
        whole = row.method in _BASELINES and TOTAL not in row.values
        if not printed or not (ours or whole or kind):
            continue
        rank = int(row.method.rpartition("-")[2]) if "rank" in row.method else 64
        kind = "concat" if whole else kind
        parameters, done = _counted(row.letters, rank, kind, "each" if whole else "shared")
        verdicts = {c: _verdict(row, c, parameters, done) for c in printed}
        yield PaperRow(row, parameters, done, verdicts)


@cache
def _counted(
    letters: str, rank: int, kind: str | None, own: Literal["shared", "each"]
) -> tuple[Cost, Operations]:
    config = full_size(letters, rank=rank, kind=kind)
    config = replace(config, qformer=replace(config.qformer, own=own))
    return count(config), operations(config)


def _verdict(row: Row, column: str, cost: Cost, done: Operations) -> tuple[str, str]:
    said = row.number(column)
    assert said is not None
    if column == GFLOPS:
        if abs(done.total / 1e9 - said) <= _SAME * said:
            return MATCH, ""
        return CONTRADICT, _why_operations(row, done)
    if column == TOTAL:
        total = cost.trainable + cost.frozen
        return (MATCH, "") if abs(total - said) <= 0.05e9 else _total()
    if _as_printed(row.values[column], cost.trainable):
        return MATCH, ""
    if row.method in _BASELINES:
        return DIFFERS, (
            "106.7M a fully trained Q-Former with its query tokens, norm and projection, not 108M"
        )
    with_dead = list(cost.with_uncounted.values())
    if any(_as_printed(row.values[column], number) for number in with_dead):
        return CONTRADICT, _WHY_38M
    return DIFFERS, ""


def _why_operations(row: Row, done: Operations) -> str:
    """What the printed figure would need, and which others forbid it."""
    if row.letters in ("VA", "VP"):
        return _WHY_SOUND if row.letters == "VA" else _WHY_POINTS
    merged = row.method in _FUSIONS or row.method.startswith(OURS)
    if len(row.letters) < 3 or row.method == "concat" or not merged:
        return _WHY_CONCAT
    further = [s for s in done.encoders if s not in ("video", "audio", "point")]
    without = done.total - sum(done.encoders[s] or 0 for s in further)
    return (
        f"{without / 1e12:.2f}K without the ViT passes of senses besides video: printed so flat "
        "only without them; a further sense is printed as 0.13K (Table 3), 0.015K (Table 1)"
    )


def _total() -> tuple[str, str]:
    return DIFFERS, (
        "encoders of the senses, Q-Former without its text half, LLM and what is trained; what the "
        "paper counts is not said"
    )


def _as_printed(text: str, number: int) -> bool:
    """Whether a number is printed so, rounded or cut off."""
    digits = text.rstrip("MB")
    unit = 1e9 if text.endswith("B") else 1e6
    places = len(digits.partition(".")[2])
    scaled = number / unit
    cut = int(scaled * 10**places) / 10**places
    return float(digits) in (round(scaled, places), cut)


def paper_table(rows: list[PaperRow]) -> Table:
    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("table and row", overflow="fold")
    for head in ("parameters", "paper"):
        result.add_column(head, justify="right", no_wrap=True)
    result.add_column("", overflow="fold")
    for head in ("GMACs", "paper"):
        result.add_column(head, justify="right", no_wrap=True)
    result.add_column("", overflow="fold")
    reasons: dict[str, int] = {}

    def shown(own: PaperRow, *columns: str) -> tuple[str, str]:
        """What is printed and the verdict on it, of the first column that is there."""
        for column in columns:
            if column in own.verdicts:
                verdict, reason = own.verdicts[column]
                note = f" [{reasons.setdefault(reason, len(reasons) + 1)}]" if reason else ""
                return own.row.values[column], _SHORT[verdict] + note
        return "", ""

    for own in rows:
        counted = own.total if TOTAL in own.row.values else own.trainable
        result.add_row(
            f"{own.row.table} {own.row.task} {own.row.method} {own.row.letters}",
            f"{counted:,}",
            *shown(own, TRAINABLE, TOTAL),
            f"{own.operations.total / 1e9:,.0f}",
            *shown(own, GFLOPS),
        )
    result.caption = "\n".join(
        [
            "Parameters: trainable ones, of Table 5 all. GMACs: 10^9 multiply-accumulates of one "
            "sample, what the paper calls GFLOPs.",
            *(f"[{number}] {reason}" for reason, number in reasons.items()),
        ]
    )
    result.caption_justify = "left"
    return result

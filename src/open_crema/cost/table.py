"""What ``crema cost`` prints."""

from __future__ import annotations

from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.table import Table

from open_crema.cost.parameters import Cost


def table(cost: Cost) -> Table:
    """Trained parts above, frozen ones below, in 80 columns."""
    share = cost.trainable / (cost.trainable + cost.frozen)
    result = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="\n".join(
            [
                f"{share:.2%} of {cost.trainable + cost.frozen:,} parameters are trained.",
                *(f"{n:,} with the unused {name}" for name, n in cost.with_uncounted.items()),
            ]
        ),
        caption_justify="left",
    )
    result.add_column("parameters", overflow="fold")
    for head in ("LoRA", "queries", "input\nproj.", "input\nnorm", "LLM\nproj.", "total"):
        result.add_column(head, justify="right", no_wrap=True)

    def line(name: str, total: int | None, style: str | None = None) -> None:
        shown = "unknown" if total is None else f"{total:,}"
        result.add_row(name, *[""] * 5, shown, style=style)

    def adapters(moving: bool) -> None:
        for sense, own in cost.senses.items():
            if cost.moves(sense) == moving:
                parts = (f"{n:,}" for n in asdict(own).values())
                result.add_row(sense, *parts, f"{own.total:,}")

    adapters(True)
    line("fusion", cost.fusion - cost.published_fusion)
    if cost.qformer_trained:
        line("Q-Former", cost.qformer)
    line("trained", cost.trainable, "bold")
    result.add_section()
    if cost.published:
        adapters(False)
        line("fusion", cost.published_fusion)
    for name, n in cost.encoders.items():
        line(name, n)
    if not cost.qformer_trained:
        line("Q-Former", cost.qformer)
    line(cost.llm, cost.llm_parameters)
    line("frozen", cost.frozen, "bold")
    return result

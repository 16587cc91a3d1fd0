"""What ``crema cost`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.table import Table

from open_crema.cost.operations import PARTS
from open_crema.cost.paper import CONTRADICT, PaperRow, summary
from open_crema.cost.parameters import Cost
from open_crema.cost.whole import Whole


def table(cost: Cost) -> Table:
    """Trained parts above, frozen ones below, in 80 columns."""
    share = cost.trainable / cost.total
    result = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="\n".join(
            [
                f"{share:.2%} of {cost.total:,} parameters are trained.",
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


def tables(found: Whole, *, clips: int = 1) -> list[Table]:
    """Parameters, then operations, memory and disk."""
    return [table(found.cost), _rest(found, clips)]


_NAMES = {
    "expert": "experts",
    "encoder": "frozen encoders",
    "qformer": "adapters and Q-Former",
    "fusion": "fusion",
    "llm_encoder": "LLM, encoder",
    "llm_decoder": "LLM, decoder",
}


def _rest(found: Whole, clips: int) -> Table:
    work, done = found.work, found.operations
    unknown = [sense for sense, n in done.encoders.items() if n is None]
    notes = [
        f"One sample: {work.frames} frames, {work.audio_windows} windows of sound, {work.text} + "
        f"{work.answer} tokens of text;",
        f"a prompt of {done.prompt} tokens. GMAC: 1e9 multiply-accumulates, the paper's GFLOPs.",
        *(f"Without the encoder of {sense}, whose work is unknown." for sense in unknown),
    ]
    result = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption="\n".join(notes),
        caption_justify="left",
    )
    result.add_column("one forward pass, and training")
    result.add_column("", justify="right", no_wrap=True)
    for part in PARTS:
        result.add_row(_NAMES[part], f"{done.parts[part] / 1e9:,.2f} GMAC")
    result.add_row("forward pass", f"{done.total / 1e9:,.2f} GMAC", style="bold")
    strategy = found.config.train.strategy
    result.add_row(f"{strategy} training, from the store", f"{done.training / 1e9:,.2f} GMAC")
    result.add_section()
    if (peak := found.memory) is not None:
        result.add_row("loaded model", _gib(peak.weights))
        result.add_row("optimizer", _gib(peak.optimizer))
        result.add_row(f"step of {peak.batch_size} samples (estimate)", _gib(peak.step))
        result.add_row("peak of training (estimate)", _gib(peak.total), style="bold")
        result.add_section()
    for sense, size in found.store.items():
        result.add_row(f"{sense} in the store, {_clips(clips)}", _gib(size * clips))
    total = sum(found.store.values()) * clips
    result.add_row(f"feature store, {_clips(clips)}", _gib(total), style="bold")
    return result


def _clips(count: int) -> str:
    return "one clip" if count == 1 else f"{count:,} clips"


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:,.2f} MiB"


_SHORT = {CONTRADICT: "contradicts"}


def paper_table(rows: Sequence[PaperRow]) -> Table:
    """Each row beside what is printed, in 80 columns; below it each reason once."""
    reasons: dict[str, int] = {}
    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    for head in ("table", "row", "", "counted", "printed", "verdict"):
        end = head in ("counted", "printed")
        result.add_column(head, justify="right" if end else "left", no_wrap=head != "row")
    before = 0
    for row in rows:
        printed = row.published
        if printed.table != before:
            result.add_section()
        name = f"{printed.dataset} {printed.letters}" + f" {printed.variant}".rstrip()
        place = str(printed.table) if printed.table != before else ""
        before = printed.table
        if not row.judged:
            size = f"{row.cost.trainable / 1e6:.2f}M"
            result.add_row(place, name, "trainable", size, "-", "")
        for one in row.judged:
            mark = ""
            if one.reason:
                mark = f" [{reasons.setdefault(one.reason, len(reasons) + 1)}]".replace("[", "\\[")
            theirs = _printed(one.quantity, one.theirs)
            ours = _printed(one.quantity, one.ours)
            verdict = _SHORT.get(one.verdict, one.verdict) + mark
            result.add_row(place, name, one.quantity, ours, theirs, verdict)
            place = name = ""
    counts = ", ".join(f"{verdict}: {n}" for verdict, n in summary(rows).items())
    notes = [f"\\[{number}] {reason}" for reason, number in reasons.items()]
    result.caption = "\n".join([f"{counts} (contradicts)." if counts else "", *notes])
    return result


def _printed(quantity: str, value: float) -> str:
    if quantity == "macs":
        return f"{value / 1e12:.3f}K"
    if quantity == "memory":
        return f"{value / 2**30:.1f}GiB"
    return f"{value / 1e9:.2f}B" if quantity == "total" else f"{value / 1e6:.2f}M"

"""Results that a person can read: a table of the rates, and the curves of a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from open_crema.errors import CremaError, DataError

_COLUMNS = ("N", "chance", "majority", "blind", "accuracy", "95 %", "lenient")


def table(results: Mapping[str, Any]) -> Table:
    """A row for all samples and one for each type, from an evaluation's summary or the content of
    its ``results.json``. The caption says how answers were scored, what was skipped, and which
    senses were missing.

    Where questions come in pairs, a column has the rate of pairs with both right, of whatever
    sense, and a row for each sense the rates over its pairs instead of samples.
    """
    pairs = results.get("pairs", {})  # none in results of before there were pairs
    senses = ", ".join(results["senses"]) or "none (question only)"
    shown = Table(title=f"senses: {senses}; rates in %")
    shown.add_column("type")
    columns = (*_COLUMNS, "pairs") if pairs else _COLUMNS
    for name in columns:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_row("all", *_cells(results)[: len(columns)], style="bold", end_section=True)
    for part in ("types", "groups"):
        for name, row in results.get(part, {}).items():
            shown.add_row(Text(name or "(no type)"), *_cells(row)[: len(columns)])
        shown.add_section()
    difficulty = results.get("difficulty") or {}
    for name in ("easy", "hard"):
        if difficulty.get(name):
            shown.add_row(name, *_cells(difficulty[name])[: len(columns)])
    shown.add_section()
    for sense, row in pairs.items():
        shown.add_row(f"pairs: {sense}", *_cells(row))
    shown.caption = Text("\n".join(_notes(results)))
    return shown


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Those of a row of samples or of pairs, which has no majority."""
    rates = [_percent(row.get(name)) for name in ("chance", "majority", "blind", "accuracy")]
    drawn = row.get("bootstrap") or row["interval"]  # pairs, and results of before, have one only
    interval = " - ".join(map(_percent, drawn)) if drawn else "-"
    lenient = _percent(row.get("lenient"))
    return [str(row["n"]), *rates, interval, lenient, _both_right(row.get("pairs", {}))]


def _both_right(pairs: Mapping[str, Mapping[str, Any]]) -> str:
    n = sum(row["n"] for row in pairs.values())
    correct = sum(row["correct"] for row in pairs.values())
    return f"{_percent(correct / n)} ({n})" if n else ""


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def _notes(results: Mapping[str, Any]) -> list[str]:
    skipped = sum(results["skipped"].values())
    notes = [f"expected {results['expected']} = scored {results['scored']} + skipped {skipped}"]
    if skipped:
        notes[0] += f" ({_counts(results['skipped'])})"
    if scores := results.get("scores"):
        notes += [f"accuracy: {scores['strict']}", f"lenient: {scores['lenient']}"]
    if results.get("outside"):
        inside = results["inside"]
        without = "" if inside is None else f"; without them {_percent(inside)}"
        notes.append(f"{results['outside']} answers are none of the candidates{without}")
    if difficulty := results.get("difficulty"):
        unknown = f"; {difficulty['unknown']} are not in it" if difficulty["unknown"] else ""
        notes.append(f"easy: right in {difficulty['by']}{unknown}")
    if pairs := results.get("pairs", {}):
        notes.append("pairs: both questions right; their chance is that of independent guesses")
        missing = {sense: row["incomplete"] for sense, row in pairs.items() if row["incomplete"]}
        if missing:
            counts = ", ".join(f"{count} of {sense}" for sense, count in missing.items())
            notes.append(f"incomplete pairs, not counted: {counts}")
    notes += [f"without {sense}: {_counts(why)}" for sense, why in results["absent"].items()]
    return notes + _zero_shot(results.get("training"))


def _zero_shot(training: Mapping[str, Any] | None) -> list[str]:
    if training is None:
        return []
    notes, epochs = [], training["epochs"]
    if epochs is None:
        notes.append("zero-shot, unless other code trained it: no run is recorded with the model")
    elif training["zero_shot"] and not epochs:
        of = f" since {training['init']}" if training["init"] else ""
        notes.append(f"zero-shot: the model has not been trained{of}")
    elif training["zero_shot"]:
        notes.append(f"zero-shot: the model was last trained on {training['data']} alone")
    if training["untrained"]:
        notes.append(f"used as they start, untrained: {', '.join(training['untrained'])}")
    return notes


def _counts(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in reasons.items())


def curves(log: str | Path, picture: str | Path) -> Path:
    """Draws a training log (``log.jsonl``) as a PNG: the loss by step of each sense, the loss of
    the alignment stage and the validation accuracy by epoch, where the log has them.

    Raises DataError, naming the line, for a broken log or one without any loss. A last line that
    was cut off by the end of its process is left out.
    """
    lines = _read_log(Path(log))
    panels = []
    for kind, draw in (("align", _draw_alignment), ("step", _draw_losses), ("epoch", _draw_epochs)):
        chosen = [line for line in lines if line.get("kind") == kind]
        if kind == "epoch":
            chosen = [line for line in chosen if line.get("validation")]
        if chosen:
            panels.append((draw, chosen))
    if not any(line.get("kind") in ("align", "step") for line in lines):
        raise DataError(f"{log}: holds no training step; train first, then draw")
    figure = Figure(figsize=(8, 3.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for (draw, chosen), ax in zip(panels, axes, strict=True):
        try:
            draw(ax, chosen)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{log}: not a training log ({error!r} in a line)") from None
        ax.grid(alpha=0.3)
    picture = Path(picture)
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture, format="png", dpi=120)
    except OSError as error:
        raise CremaError(f"{picture}: cannot be written ({error.strerror})") from None
    return picture


def _read_log(log: Path) -> list[dict[str, Any]]:
    try:
        texts = log.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{log}: cannot be read as a training log ({error})") from None
    lines = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            if number == len(texts):  # a whole line ends with a line break
                break
            raise DataError(f"{log}, line {number}: not valid JSON: {error.msg}") from None
        if not isinstance(line, dict):
            raise DataError(f"{log}, line {number}: expected a JSON object")
        lines.append(line)
    return lines


def _draw_losses(ax: Axes, steps: list[dict[str, Any]]) -> None:
    for sense in dict.fromkeys(line["sense"] for line in steps):
        own = [line for line in steps if line["sense"] == sense]
        ax.plot([s["step"] for s in own], [float(s["loss"]) for s in own], label=sense, linewidth=1)
    ax.set(xlabel="step", ylabel="loss", title="training")
    ax.legend()


def _draw_alignment(ax: Axes, steps: list[dict[str, Any]]) -> None:
    ax.plot(
        [s["step"] for s in steps], [float(s["loss"]) for s in steps], color="tab:grey", linewidth=1
    )
    ax.set(xlabel="step", ylabel="loss", title="alignment stage")


def _draw_epochs(ax: Axes, epochs: list[dict[str, Any]]) -> None:
    done = [line["epoch"] + 1 for line in epochs]
    ax.plot(done, [100 * line["validation"]["accuracy"] for line in epochs], marker="o")
    for sense, epoch in epochs[-1].get("exited", {}).items():
        ax.axvline(epoch + 1, linestyle=":", color="tab:red")
        ax.annotate(
            f"{sense} exits",
            (epoch + 1, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
        )
    ax.set(xlabel="epochs done", ylabel="accuracy, %", title="validation")
    ax.locator_params(axis="x", integer=True)

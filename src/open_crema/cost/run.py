"""``crema cost CONFIG``: all that a run costs, as a table and as a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from open_crema.config import Config
from open_crema.cost.experts import Expert
from open_crema.cost.memory import Memory, store_bytes, training_memory
from open_crema.cost.operations import Operations, Tokens, operations
from open_crema.cost.parameters import Cost, of_run, table, to_dict


@dataclass(frozen=True)
class RunCost:
    """store: bytes of a clip's cached features, by sense."""

    name: str
    parameters: Cost
    operations: Operations
    memory: Memory
    store: dict[str, int]
    tokens: Tokens

    def row(self) -> dict[str, Any]:
        """Plain data for JSON; ``published`` is of ``--all-paper`` alone."""
        memory, parameters = self.memory, self.parameters
        return {
            "name": self.name,
            "senses": list(parameters.senses),
            "trainable": parameters.trainable,
            "frozen": parameters.frozen,
            "total": parameters.trainable + parameters.frozen,
            "macs": self.operations.total,
            "published": None,
            "parameters": to_dict(parameters),
            "operations": self.operations.to_dict(),
            "memory": {
                "weights": memory.weights,
                "training": memory.training,
                "step": memory.step,
                "moments": memory.moments,
            },
            "store": {"clip": sum(self.store.values()), "senses": self.store},
            "tokens": vars(self.tokens),
        }


def run_cost(config: Config, tokens: Tokens | None = None) -> RunCost:
    """Raises what :func:`of_run` does."""
    given = tokens or Tokens(frames=config.data.frames)
    return RunCost(
        config.name,
        of_run(config),
        operations(config.model, given),
        training_memory(config, given),
        store_bytes(config, given),
        given,
    )


def main_table(config: Config, tokens: Tokens | None = None) -> Group:
    """What ``crema cost`` prints for a run's configuration."""
    cost = run_cost(config, tokens)
    return Group(table(cost.parameters), _operations(cost), _places(cost, config))


def _operations(cost: RunCost) -> Table:
    done = cost.operations
    t = cost.tokens
    result = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=(
            f"Of one sample: {t.frames} frames, {t.windows} windows of sound, {t.points} points, "
            f"{done.prompt_tokens} tokens to the LLM ({t.text} of text), {t.answer} answered. "
            + _told(done.experts)
        ),
        caption_justify="left",
    )
    result.add_column("multiply-accumulates, in 10^9", overflow="fold")
    for head in ("expert", "encoder", "Q-Former", "total"):
        result.add_column(head, justify="right", no_wrap=True)
    for sense, own in done.encoders.items():
        read = done.qformer[sense]
        shown = "unknown" if own is None else f"{own / 1e9:,.2f}"
        result.add_row(
            sense,
            _made(done.experts[sense]),
            shown,
            f"{read / 1e9:,.2f}",
            f"{((own or 0) + read) / 1e9:,.2f}",
        )
    for name, number in (
        ("fusion", done.fusion),
        ("LLM, its input", done.llm_prompt),
        ("LLM, the answer", done.llm_answer),
    ):
        result.add_row(name, "", "", "", f"{number / 1e9:,.2f}")
    result.add_row("all", "", "", "", f"{done.total / 1e9:,.2f}", style="bold")
    return result


def _told(experts: Mapping[str, Expert]) -> str:
    """What stands in the column of the experts."""
    lines = ["The total is without experts."]
    lines += [f"{sense}: {own.said}." for sense, own in experts.items() if own.macs != 0]
    if papers := [f"{own.paper} ({sense})" for sense, own in experts.items() if own.paper]:
        lines.append(
            f"The paper's {', '.join(papers)}: not counted, their networks are not part of this."
        )
    return "\n".join(lines)


def _made(expert: Expert) -> str:
    if expert.macs is None:
        return "not counted"
    return f"{expert.macs / 1e9:,.2f}" if expert.macs else "none"


def _places(cost: RunCost, config: Config) -> Table:
    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("memory and disk", overflow="fold")
    result.add_column("GiB", justify="right", no_wrap=True)
    memory, batch = cost.memory, config.train.batch_size
    for name, size in (
        ("weights as loaded, without encoders", memory.weights),
        (f"a training step of {batch} beyond them (estimate)", memory.training),
        ("feature store, 1,000 clips", 1000 * sum(cost.store.values())),
    ):
        result.add_row(name, f"{size / 2**30:,.2f}")
    return result

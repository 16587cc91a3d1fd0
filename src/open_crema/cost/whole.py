"""All that one configuration costs, together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from open_crema.config import Config
from open_crema.cost.disk import store_bytes
from open_crema.cost.memory import Memory, memory
from open_crema.cost.meta import skeleton
from open_crema.cost.operations import Operations, Workload, operations
from open_crema.cost.paper import figures
from open_crema.cost.parameters import Cost, of_run, to_dict
from open_crema.evaluation import published


@dataclass(frozen=True)
class Whole:
    """store: sense -> bytes of one clip. memory: None where it was not asked for."""

    config: Config
    work: Workload
    cost: Cost
    operations: Operations
    store: dict[str, int]
    memory: Memory | None


def whole(config: Config, work: Workload, *, with_memory: bool = True) -> Whole:
    """Raises ConfigError where a part is unknown, and what :func:`of_run` does."""
    model = skeleton(config.model)
    return Whole(
        config,
        work,
        of_run(config, model),
        operations(config, model, work),
        store_bytes(config, work),
        memory(config, work) if with_memory else None,
    )


def to_row(found: Whole) -> dict[str, Any]:
    """Plain data for JSON; published: the first row of the paper's tables that this is."""
    rows = published.of_config(found.config.name)
    peak = found.memory
    return {
        "name": found.config.name,
        "senses": list(found.config.model.senses),
        "trainable": found.cost.trainable,
        "frozen": found.cost.frozen,
        "total": found.cost.total,
        "macs": found.operations.total,
        "published": figures(rows[0]) if rows else None,
        "parameters": to_dict(found.cost),
        "operations": {
            **found.operations.parts,
            "encoders": dict(found.operations.encoders),
            "training_step": found.operations.training,
            "prompt_tokens": found.operations.prompt,
        },
        "workload": asdict(found.work),
        "memory": peak and {**asdict(peak), "above_model": peak.above, "total": peak.total},
        "store": {**found.store, "total": sum(found.store.values())},
    }

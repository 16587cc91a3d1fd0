"""What a configuration costs before anything is downloaded: parameters, operations, memory, disk.

Models are built on the meta device, where tensors have shapes but no memory, so that billions of
parameters are counted in seconds on any machine.
"""

from open_crema.cost.memory import Memory, store_bytes, training_memory
from open_crema.cost.operations import Operations, Tokens, operations
from open_crema.cost.paper import PaperRow, paper_rows, paper_table
from open_crema.cost.parameters import (
    Cost,
    SenseCost,
    count,
    of_run,
    skeleton,
    table,
    to_dict,
)
from open_crema.cost.run import RunCost, main_table, run_cost

__all__ = [
    "Cost",
    "Memory",
    "Operations",
    "PaperRow",
    "RunCost",
    "SenseCost",
    "Tokens",
    "count",
    "main_table",
    "of_run",
    "operations",
    "paper_rows",
    "paper_table",
    "run_cost",
    "skeleton",
    "store_bytes",
    "table",
    "to_dict",
    "training_memory",
]

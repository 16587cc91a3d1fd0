"""What a configuration costs before anything is downloaded: parameters, operations, memory, disk.

The model is built on the meta device, where tensors have shapes but no memory, so that a model of
billions is counted in seconds on any machine.
"""

from open_crema.cost.memory import Memory, memory
from open_crema.cost.meta import skeleton
from open_crema.cost.operations import Operations, Workload, operations
from open_crema.cost.parameters import Cost, SenseCost, count, of_run, to_dict
from open_crema.cost.table import table, tables
from open_crema.cost.whole import Whole, to_row, whole

__all__ = [
    "Cost",
    "Memory",
    "Operations",
    "SenseCost",
    "Whole",
    "Workload",
    "count",
    "memory",
    "of_run",
    "operations",
    "skeleton",
    "table",
    "tables",
    "to_dict",
    "to_row",
    "whole",
]

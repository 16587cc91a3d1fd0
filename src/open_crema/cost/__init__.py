"""What a configuration costs before anything is downloaded: parameters, operations, memory, disk.

The model is built on the meta device, where tensors have shapes but no memory, so that a model of
billions is counted in seconds on any machine.
"""

from open_crema.cost.meta import skeleton
from open_crema.cost.operations import Operations, Workload, operations
from open_crema.cost.parameters import Cost, SenseCost, count, of_run, to_dict
from open_crema.cost.table import table

__all__ = [
    "Cost",
    "Operations",
    "SenseCost",
    "Workload",
    "count",
    "of_run",
    "operations",
    "skeleton",
    "table",
    "to_dict",
]

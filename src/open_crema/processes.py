"""The processes of one training run: as many as ``torchrun`` started, one a GPU, or one in all.

Each has the whole model, reads its own micro-batches and takes every optimizer step; gradients are
summed, so that a step is that of all micro-batches together. DistributedDataParallel would not do:
it wraps one forward pass of one module, where a sequential step is several passes through parts of
the model, and which of them are made hangs on the data.

Without torchrun each function is that of a single process, and nothing is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from open_crema.errors import ConfigError
from open_crema.termination import Stopped

if TYPE_CHECKING:  # importing it takes seconds, which a command that only prints need not wait
    from torch import Tensor

# One process may extract features or validate while the others wait; torchrun ends those that wait
# for one that has died.
_PATIENCE = timedelta(days=7)


def asked_for() -> int:
    """How many processes torchrun started; 1 without it. A WORLD_SIZE alone is somebody else's, as
    of a cluster's scheduler."""
    started = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    return int(os.environ.get("WORLD_SIZE") or 1) if started else 1


@contextmanager
def joined() -> Iterator[None]:
    """In this block the processes that torchrun started know of each other; each "cuda" is a GPU
    of its own.

    Raises ConfigError where there are more processes than GPUs.
    """
    if asked_for() == 1:
        yield
        return
    import torch

    # Imported later (as transformers does), its functions would keep the group as a default
    # argument: its threads would never end, and now and then abort the process at exit.
    import torch.distributed.nn.functional
    from torch import distributed

    backend = "gloo"
    if gpus := torch.cuda.device_count():
        local = int(os.environ["LOCAL_RANK"])
        if local >= gpus:
            raise ConfigError(
                f"torchrun started more processes here than there are GPUs ({gpus}): give it "
                f"--nproc-per-node {gpus}"
            )
        # The only one that it sees: a current device would be that of one thread, and encoders and
        # LLMs are loaded by others. CUDA reads it when it is first used, which is later.
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[local]
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield
    except Stopped:  # which all of them do
        distributed.destroy_process_group()
        raise
    # Not after an error of this process alone: the others, who wait for it, would be waited for.
    distributed.destroy_process_group()


def count() -> int:
    if asked_for() == 1:
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; the first is the one that writes files and speaks."""
    if count() == 1:
        return 0
    from torch import distributed

    return distributed.get_rank()


def seed(number: int) -> None:
    """Seeds torch for something that all processes do at once, each with random numbers of its
    own; the first draws what a single process would."""
    import torch

    torch.manual_seed(number + rank() * 1_000_000_007)


def wait() -> None:
    """Until all processes are here."""
    total([0.0])  # on the CPU: a barrier of NCCL would ask for a GPU


def total(numbers: Sequence[float]) -> list[float]:
    """Each summed over the processes."""
    if count() == 1 or not numbers:
        return list(numbers)
    import torch
    from torch import distributed

    summed = torch.tensor(numbers, dtype=torch.float64)
    distributed.all_reduce(summed)
    found: list[float] = summed.tolist()
    return found


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Each true where it is in at least one of the processes."""
    return [number > 0 for number in total([float(flag) for flag in flags])]


def agree(text: str) -> bool:
    """Whether all processes have the same one."""
    if count() == 1:
        return True
    from torch import distributed

    found: list[str | None] = [None] * count()
    distributed.all_gather_object(found, text)
    return len(set(found)) == 1


def share(part: int) -> float:
    """Of the sum of all processes' parts; 0 where they have none."""
    (whole,) = total([part])
    return part / whole if whole else 0.0


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Each parameter's gradient becomes the sum over the processes. One that has none in some of
    them counts as zeros there; one that has none in all of them keeps none."""
    if count() == 1:
        return
    import torch
    from torch import distributed

    every = list(parameters)
    there = any_of([p.grad is not None for p in every])
    moved = [p for p, has in zip(every, there, strict=True) if has]
    if not moved:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in moved]
    flat = torch.cat([g.flatten() for g in grads])  # one message instead of hundreds
    distributed.all_reduce(flat)
    parts = torch.split(flat, [g.numel() for g in grads])
    for parameter, part in zip(moved, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def same(tensors: Iterable[Tensor]) -> None:
    """Each becomes the first process's."""
    if count() == 1:
        return
    from torch import distributed

    for tensor in tensors:
        distributed.broadcast(tensor.data, src=0)

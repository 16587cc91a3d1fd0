"""Several processes that train together as torchrun would start them: forked, on the CPU, joined
by gloo on this machine."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable


def together(count: int, work: Callable[[int], object]) -> None:
    """Calls ``work(rank)`` in so many processes at once; AssertionError where one of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(count),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            }
            _end_with(work, rank)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ends == [0] * count, f"exit codes of the processes: {ends}"


def _end_with(work: Callable[[int], object], rank: int) -> None:
    from open_crema import processes

    code = 1
    try:
        with processes.joined():
            work(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # without pytest's own ending

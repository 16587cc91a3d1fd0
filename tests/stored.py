"""What the tests of the feature store share: small features, and processes that may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import torch

from open_crema.data.entry import About
from open_crema.data.store import feature_key
from open_crema.features import Features

KEY = feature_key(source="abc", sense="video", frames=8)
ABOUT = About("audio", "encoder/1", 2, (("/clips/ü.mp4", "abc"),))


def make_features(seed=0, segments=2, keys=3, width=4):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(segments, keys, dtype=torch.bool)
    mask[0, -1] = False
    times = torch.arange(2.0 * segments, dtype=torch.float64).reshape(segments, 2) / 3
    return Features(torch.randn(segments, keys, width, generator=generator), mask, times)


def same(a, b):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        and getattr(a, name).dtype == getattr(b, name).dtype
        for name in ("tokens", "mask", "times")
    )


def never():
    raise AssertionError("made although it is in the store")


def files(root):
    """Every file below the folder but the lock, with its content."""
    found = (path for path in Path(root).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def start(target, *arguments, **named):
    """Another process; forked, because importing torch anew would take seconds."""
    process = multiprocessing.get_context("fork").Process(
        target=target, args=arguments, kwargs=named
    )
    process.start()
    return process


WRITE_POINTS = ("fsync", "replace", "unlink")


def killed_at(point, work):
    """Runs the work in a process that is killed at its n-th call that changes the disk.

    Before the call where n is even, after it where it is odd. Whether it came that far.
    """

    def run():
        left = [point // 2]

        def deadly(call):
            def then_die(*arguments, **named):
                due = left[0] == 0
                left[0] -= 1
                if due and point % 2 == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    call(*arguments, **named)
                finally:
                    if due:
                        os.kill(os.getpid(), signal.SIGKILL)

            return then_die

        for name in WRITE_POINTS:
            setattr(os, name, deadly(getattr(os, name)))
        work()

    process = start(run)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0

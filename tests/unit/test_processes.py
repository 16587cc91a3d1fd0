"""What processes tell each other, and that a single one needs nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from open_crema import processes
from open_crema.errors import ConfigError
from process_group import together
from tiny import one_seeded_thread  # noqa: F401


def said(folder: Path, count: int, work) -> list:
    """What each process of a group found."""

    def write(rank: int) -> None:
        (folder / f"{rank}.json").write_text(json.dumps(work(rank)))

    together(count, write)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def test_one_process_needs_nobody():
    parameter = torch.nn.Parameter(torch.ones(2))
    with processes.joined():
        assert (processes.count(), processes.rank()) == (1, 0)
        assert processes.total([1.5, 2]) == [1.5, 2]
        assert processes.any_of([True, False]) == [True, False]
        assert processes.share(3) == 1.0
        assert processes.agree("a")
        processes.sum_gradients([parameter])
        processes.same([parameter])
        processes.wait()
    assert parameter.grad is None


def test_sums_shares_and_flags(tmp_path):
    def work(rank: int) -> list:
        return [
            processes.total([rank + 1, 0.5]),
            processes.any_of([rank == 1, False, True]),
            processes.share([1, 0, 3][rank]),
            processes.share(0),
            [*processes.total([]), *processes.any_of([])],
        ]

    found = said(tmp_path, 3, work)
    assert [one[0] for one in found] == [[6, 1.5]] * 3
    assert [one[1] for one in found] == [[True, False, True]] * 3
    assert [one[2] for one in found] == [0.25, 0, 0.75]
    assert [one[3:] for one in found] == [[0, []]] * 3


def test_they_agree_or_all_of_them_know_that_they_do_not(tmp_path):
    found = said(
        tmp_path,
        3,
        lambda rank: [processes.agree("the same"), processes.agree("ab"[rank == 2])],
    )
    assert found == [[True, False]] * 3


def test_gradients_are_summed_and_none_stays_none_where_nobody_has_one(tmp_path):
    def work(rank: int) -> list:
        parameters = [torch.nn.Parameter(torch.zeros(2, 3)[:, : i + 1]) for i in range(3)]
        parameters[0].grad = torch.full((2, 1), rank + 1.0)
        if rank == 0:
            parameters[1].grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        processes.sum_gradients(parameters)
        return [None if p.grad is None else p.grad.tolist() for p in parameters]

    expected = [[[3.0], [3.0]], [[1.0, 2.0], [3.0, 4.0]], None]
    assert said(tmp_path, 2, work) == [expected, expected]


def test_tensors_become_the_first_ones_and_random_numbers_do_not(tmp_path):
    torch.manual_seed(5)
    alone = torch.rand(2).tolist()

    def work(rank: int) -> list:
        there = torch.nn.Parameter(torch.full((2,), rank + 7.0))
        processes.same([there])
        processes.seed(5)
        return [there.tolist(), torch.rand(2).tolist()]

    first, second = said(tmp_path, 2, work)
    assert first == [[7.0, 7.0], alone]
    assert second[0] == [7.0, 7.0]
    assert second[1] != alone


def test_a_world_size_that_a_scheduler_left_is_not_torchruns(monkeypatch):
    for name in ("RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.asked_for() == 1
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "::1")
    assert processes.asked_for() == 4


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "2", "MASTER_ADDR": "::1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="--nproc-per-node 2"), processes.joined():
        raise AssertionError("joined")

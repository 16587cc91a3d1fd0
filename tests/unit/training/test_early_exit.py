"""Early exit against numbers worked out by hand (paper 3.3 and the released rule)."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiny
from open_crema.config import ExitConfig
from open_crema.training.early_exit import EarlyExit, gradient_figure


class Fake(nn.Module):
    """An adapter whose gradient figure is a given number, under both metrics."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.weight.grad = torch.tensor([[float(value)]])

    def lora_matrices(self) -> list[nn.Parameter]:
        return [self.weight]


def run(epochs: list[list[float]], exits: EarlyExit, sense: str = "audio") -> list[int]:
    """Feeds figures, epoch by epoch; the epochs after which the sense leaves."""
    left = []
    for epoch, figures in enumerate(epochs):
        for value in figures:
            exits.observe(sense, Fake(value))
        if sense in exits.end_epoch(epoch):
            left.append(epoch)
    return left


def exits(**config) -> EarlyExit:
    return EarlyExit(ExitConfig(enabled=True, **config))


def test_the_papers_rule():
    # means 4, 2, 2.5, 3.5: 1.5 times the mean of the former is 6, 4.5, 4.25
    watched = exits(temperature=1.5)
    assert run([[3, 5], [2, 2], [2, 3], [3, 4]], watched) == []
    assert watched.history == {"audio": [4.0, 2.0, 2.5, 3.5]}
    watched.observe("audio", Fake(4.5))
    assert watched.end_epoch(4) == [], "1.5 * 3 is equal, not above"
    watched.observe("audio", Fake(5.0))
    assert watched.end_epoch(5) == ["audio"]  # 1.5 * 3.3 = 4.95
    assert watched.exited == {"audio": 5}


@pytest.mark.parametrize(("temperature", "left"), [(1.0, [1]), (1.4, [2]), (1.9, [3]), (3.0, [])])
def test_temperature(temperature, left):
    # against means 1, 1.15, 1.4
    epochs = [[1.0], [1.3], [1.9], [2.8], [1.0]]
    assert run(epochs, exits(temperature=temperature)) == left


def test_history_takes_the_mean_of_an_epoch_or_its_last_step():
    epochs = [[1.0, 1.0], [10.0, 1.0], [1.0, 1.0]]
    assert run(epochs, exits(history="epoch-mean", temperature=1.5)) == [1]
    last = exits(history="last-step", temperature=1.5)
    assert run(epochs, last) == []
    assert last.history["audio"] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("first", "left"), [(0, [1]), (1, [1]), (2, [2]), (3, []), (5, [])])
def test_first_epoch_is_the_first_whose_end_may_exit(first, left):
    # the mean before epochs 1, 2, 3: 1, 1.5, 1.67
    assert run([[1.0], [2.0], [2.0], [2.0]], exits(first_epoch=first, temperature=1.25)) == left


def test_the_released_codes_delay():
    epochs = [[1.0]] * 5
    assert run([*epochs, [1.5]], exits(first_epoch=5, temperature=1.4)) == [5]
    assert run([[1.0], [9.0]] * 3, exits(first_epoch=5, temperature=1.8)) == [5]


def test_warm_up_is_counted_in_the_mean_or_not():
    epochs = [[9.0], [9.0], [1.0], [1.5]]
    assert run(epochs, exits(first_epoch=2, temperature=1.4, warmup="counted")) == []
    assert run(epochs, exits(first_epoch=2, temperature=1.4, warmup="excluded")) == [3]


def test_the_first_epoch_after_an_excluded_warm_up_has_nothing_to_compare_with():
    epochs = [[1.0], [100.0]]
    assert run(epochs, exits(first_epoch=1, warmup="excluded")) == []


def test_an_exited_sense_stays_out_and_leaves_once():
    watched = exits(temperature=1.0)
    assert run([[1.0], [2.0], [1.0], [9.0]], watched) == [1]
    assert watched.exited == {"audio": 1}
    assert watched.live(["flow", "audio", "video"]) == ["flow", "video"]
    assert watched.history["audio"] == [1.0, 2.0, 1.0, 9.0], "joint training goes on observing it"


def test_a_falling_gradient_never_exits():
    assert run([[8.0], [4.0], [2.0], [1.0]], exits(temperature=1.0)) == []


def test_disabled_it_watches_only():
    watched = EarlyExit(ExitConfig(enabled=False, temperature=1.0))
    assert run([[1.0], [9.0], [99.0]], watched) == []
    assert watched.history["audio"] == [1.0, 9.0, 99.0]


def test_senses_are_judged_one_by_one():
    watched = exits(temperature=1.4)
    for epoch, (audio, flow) in enumerate([(1.0, 5.0), (2.0, 5.0), (9.0, 9.0)]):
        watched.observe("audio", Fake(audio))
        watched.observe("flow", Fake(flow))
        watched.end_epoch(epoch)
    assert watched.exited == {"audio": 1, "flow": 2}


def test_a_sense_absent_for_an_epoch_has_no_figure_for_it():
    watched = exits(temperature=1.4)
    assert run([[1.0], [], [1.25], [], [1.75]], watched) == [4]  # 1.4 * 1.125 = 1.575
    assert watched.history["audio"] == [1.0, 1.25, 1.75]


def test_an_absence_does_not_shift_the_excluded_warm_up():
    watched = exits(first_epoch=2, warmup="excluded", temperature=1.4)
    # epochs 2 and 3 are past the warm-up; 5 > 1.4 * mean(1, 1)
    assert run([[9.0], [], [1.0], [1.0], [5.0]], watched) == [4]
    watched = exits(first_epoch=2, warmup="excluded", temperature=1.4)
    assert run([[9.0], [], [1.0], [2.0]], watched) == [3]


def test_a_restored_watch_goes_on_exactly_even_inside_an_epoch():
    epochs = [[1.0, 2.0], [1.0, 3.0], [2.0, 4.0], [9.0, 0.0], [1.0, 7.0]]
    steps = [(e, i, v) for e, own in enumerate(epochs) for i, v in enumerate(own)]
    whole = exits(temperature=1.3)
    run(epochs, whole)
    for cut in range(len(steps) + 1):
        watched = exits(temperature=1.3)
        for at, (epoch, i, value) in enumerate(steps):
            if at == cut:
                state = json.loads(json.dumps(watched.state()))
                watched = exits(temperature=1.3)
                watched.restore(state)
            watched.observe("audio", Fake(value))
            if i == 1:
                watched.end_epoch(epoch)
        assert (watched.history, watched.exited) == (whole.history, whole.exited)


def test_a_state_is_a_snapshot():
    watched = exits()
    run([[1.0], [2.0]], watched)
    watched.observe("audio", Fake(3.0))
    state = watched.state()
    taken = copy.deepcopy(state)
    run([[5.0], [9.0]], watched)
    assert state == taken


def test_restoring_leaves_the_state_as_it_was():
    watched = exits()
    run([[1.0], [2.0]], watched)
    state = json.loads(json.dumps(watched.state()))
    taken = copy.deepcopy(state)
    restored = exits()
    restored.restore(state)
    run([[5.0]], restored)
    assert state == taken


# The figure


def adapter_with_gradients():
    model = tiny.crema("video", "audio")
    adapter = model.adapters["audio"]
    for i, parameter in enumerate(adapter.parameters()):
        parameter.grad = torch.full_like(parameter, float((-1) ** i * (i + 1)))
    return adapter


def test_mean_abs_is_over_every_element_of_the_whole_adapter():
    adapter = adapter_with_gradients()
    total = sum((i + 1) * p.numel() for i, p in enumerate(adapter.parameters()))
    count = sum(p.numel() for p in adapter.parameters())
    assert gradient_figure(adapter, "mmqa-mean-abs") == pytest.approx(total / count, rel=1e-6)


def test_lora_l2_is_over_its_matrices_only():
    adapter = adapter_with_gradients()
    lora = [p for n, p in adapter.named_parameters() if n.startswith("lora.")]
    assert len(lora) == 8
    squares = sum(float(p.grad.square().sum()) for p in lora)
    assert gradient_figure(adapter, "lora-l2") == pytest.approx(squares**0.5, rel=1e-6)
    adapter.queries.grad *= 100
    assert gradient_figure(adapter, "lora-l2") == pytest.approx(squares**0.5, rel=1e-6)


@pytest.mark.parametrize("metric", ["mmqa-mean-abs", "lora-l2"])
def test_no_gradient_is_a_figure_of_zero(metric):
    assert gradient_figure(tiny.crema("video").adapters["video"], metric) == 0.0


def test_a_sense_without_lora_has_no_lora_gradient():
    model = tiny.crema("video", "audio", lora={"skip": ["video"]}).train()
    batch = tiny.batch(tiny.item(1, video=2, audio=1))
    model(batch).loss.backward()
    assert gradient_figure(model.adapters["video"], "lora-l2") == 0.0
    assert gradient_figure(model.adapters["video"], "mmqa-mean-abs") > 0


def test_half_precision_gradients_are_summed_in_full():
    weight = nn.Parameter(torch.zeros(300, 300, dtype=torch.bfloat16))
    weight.grad = torch.full_like(weight, 1e-3)
    adapter = SimpleNamespace(parameters=lambda: iter([weight]), lora_matrices=lambda: [weight])
    expected = float(torch.tensor(1e-3).bfloat16())
    assert gradient_figure(adapter, "mmqa-mean-abs") == pytest.approx(expected, rel=1e-5)
    assert gradient_figure(adapter, "lora-l2") == pytest.approx(300 * expected, rel=1e-4)

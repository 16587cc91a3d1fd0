"""Strategies against plain loops that do everything again: every sub-step a full forward pass."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

import tiny
from open_crema.config import ExitConfig, TrainConfig
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError, DataError
from open_crema.model.crema import Crema
from open_crema.training.early_exit import EarlyExit, gradient_figure
from open_crema.training.optimizer import build_optimizer
from open_crema.training.strategy import joint, sequential

SENSES = ("video", "audio", "flow", "point")
PRESENCE: Sequence[Sequence[dict[str, int]]] = (  # batches of samples
    ({"video": 3, "audio": 2, "flow": 3, "point": 1}, {"video": 2, "audio": 1}),
    ({"video": 2, "flow": 2}, {"flow": 3, "point": 1}, {}),  # no audio
    ({"audio": 2, "point": 1}, {"audio": 3}),  # neither video nor flow
)


def make_batches(presence: Sequence[Sequence[dict[str, int]]] = PRESENCE) -> list[Batch]:
    answers = ("red", "two dogs", "a cat and a dog")
    return [
        tiny.batch(
            *(
                tiny.item(10 * b + i, answer=answers[(b + i) % 3], question="why not " * i, **own)
                for i, own in enumerate(batch)
            )
        )
        for b, batch in enumerate(presence)
    ]


def weights(model: Crema) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def worst(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[n] - b[n]).abs().max()) for n in a)


def orders(shuffled: bool) -> Callable[[int, int], list[str]]:
    def order(epoch: int, iteration: int) -> list[str]:
        own = list(SENSES)
        if shuffled:
            random.Random(f"{epoch} {iteration}").shuffle(own)
        return own

    return order


class Plain:
    """The published loop: gradients for one sense at a time, all senses run forward each time;
    the exit rule is written out once more."""

    def __init__(self, model: Crema, train: TrainConfig, exits: ExitConfig) -> None:
        self.model, self.exits = model, exits
        self.optimizer = build_optimizer(model, train)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.losses: list[tuple[str, float]] = []
        self.history: dict[str, list[float]] = {}
        self.out: dict[str, int] = {}

    def toggle(self, sense: str | None) -> None:
        for parameter in self.trainable:
            parameter.requires_grad_(sense is None)
        if sense is not None:
            for parameter in self.model.unit(sense):
                parameter.requires_grad_(True)

    def step(self, batch: Batch, sense: str) -> float:
        self.toggle(sense)
        self.model.train()
        loss = self.model(batch).loss
        self.losses.append((sense, loss.item()))
        loss.backward()
        figure = gradient_figure(self.model.adapters[sense], self.exits.metric)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.toggle(None)
        return figure

    def run(self, epochs: int, batches: list[Batch], order: Callable[[int, int], list[str]]):
        for epoch in range(epochs):
            figures: dict[str, list[float]] = {}
            for i, batch in enumerate(batches):
                for sense in order(epoch, i):
                    there = sense in batch.senses and batch.senses[sense].present.any()
                    if there and sense not in self.out:
                        figures.setdefault(sense, []).append(self.step(batch, sense))
            for sense, own in figures.items():
                mean = sum(own) / len(own)
                past = self.history.setdefault(sense, [])
                due = epoch >= self.exits.first_epoch and past
                if due and mean > self.exits.temperature * sum(past) / len(past):
                    self.out[sense] = epoch
                past.append(mean)
        return self


@pytest.mark.parametrize("shuffled", [False, True], ids=["listed", "shuffled"])
@pytest.mark.parametrize(
    ("fusion", "optimizer", "lr", "temperature"),  # of which some senses exit, never all
    [
        ("self-gated", "sgd", 1e-2, 0.85),
        ("self-gated", "adamw", 2e-3, 1.05),
        ("concat", "sgd", 1e-2, 1.03),
        ("concat", "adamw", 2e-3, 1.03),
    ],
)
def test_sequential_is_the_plain_loop(fusion, optimizer, lr, temperature, shuffled):
    train = TrainConfig(optimizer=optimizer, lr=lr, weight_decay=0.05)
    watch = ExitConfig(enabled=True, temperature=temperature, first_epoch=1)
    model = tiny.crema(*SENSES, fusion={"kind": fusion}).double()  # no rounding to argue about
    start = weights(model)
    batches, order = make_batches(), orders(shuffled)
    plain = Plain(copy.deepcopy(model), train, watch).run(4, batches, order)

    stepper, exits = build_optimizer(model, train), EarlyExit(watch)
    losses = []
    for epoch in range(4):
        for i, batch in enumerate(batches):
            for sub in sequential(model, [batch], exits.live(order(epoch, i))):
                losses.append((sub.sense, sub.loss.item()))
                sub.loss.backward()
                assert sub.last
                exits.observe(sub.sense, model.adapters[sub.sense])
                stepper.step()
                stepper.zero_grad()
        exits.end_epoch(epoch)

    assert [s for s, _ in losses] == [s for s, _ in plain.losses]
    expected = [x for _, x in plain.losses]
    assert [x for _, x in losses] == pytest.approx(expected, abs=1e-6)
    assert exits.exited == plain.out
    assert 0 < len(exits.exited) < len(SENSES), "the case must have exits, and not of all"
    assert min(exits.exited.values()) < 3, "and training must go on after them"
    for sense, own in plain.history.items():
        assert exits.history[sense] == pytest.approx(own, rel=1e-5)
    assert worst(weights(model), weights(plain.model)) <= 1e-9
    assert worst(weights(model), start) > 1e-2, "it must have moved"


@pytest.mark.parametrize("kind", ["decoder-only", "encoder-decoder"])
def test_joint_is_one_forward_pass_of_everything(kind):
    model = tiny.crema(*SENSES, kind=kind)
    plain = copy.deepcopy(model)
    for batch in make_batches():
        for made in (model, plain):
            made.zero_grad()
        (sub,) = joint(model, [batch])
        loss = plain.train()(batch).loss
        assert (sub.sense, sub.last) == (None, True)
        assert torch.equal(sub.loss, loss)
        sub.loss.backward()
        loss.backward()
        for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
            if p.grad is None or q.grad is None:
                assert p.grad is q.grad, name
            else:
                assert torch.equal(p.grad, q.grad), name


def test_joint_training_trains_no_frozen_sense_but_hears_it():
    model = tiny.crema(*SENSES)
    batch = make_batches()[0]
    (sub,) = joint(model, [batch], frozen=["audio"])
    assert torch.allclose(sub.loss, model(batch).loss, atol=1e-6)
    sub.loss.backward()
    assert all(p.grad is None for p in model.adapters["audio"].parameters())
    assert model.adapters["flow"].queries.grad.any()
    assert model.fusion.blocks["audio"].grad.any()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_joint_training_with_exits_is_the_plain_loop(optimizer):
    train = TrainConfig(optimizer=optimizer, lr=1e-2)
    model = tiny.crema(*SENSES).double()
    start, plain = weights(model), copy.deepcopy(model)
    batches, out = make_batches(), [(), ("audio",), ("audio", "video")]
    a, b = build_optimizer(model, train), build_optimizer(plain, train)
    for frozen in out:  # one epoch each
        for batch in batches:
            for sub in joint(model, [batch], frozen):
                sub.loss.backward()
                a.step()
                a.zero_grad()
            for sense in SENSES:
                plain.adapters[sense].requires_grad_(sense not in frozen)
            plain.train()(batch).loss.backward()
            b.step()
            b.zero_grad()
    assert worst(weights(model), {n: p.detach() for n, p in plain.named_parameters()}) <= 1e-9
    assert worst(weights(model), start) > 1e-2


# Accumulation


def gradients(subs: Iterator[Any], model: Crema) -> list[tuple[Any, float, dict]]:
    """Per optimizer step: its sense, its loss, the gradients; SGD by hand."""
    found, total = [], 0.0
    for sub in subs:
        sub.loss.backward()
        total += sub.loss.item()
        if sub.last:
            grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            found.append((sub.sense, total, grads))
            with torch.no_grad():
                for p in model.parameters():
                    if p.grad is not None:
                        p -= 0.05 * p.grad
            model.zero_grad()
            total = 0.0
    return found


FULL = ({"video": 3, "audio": 2, "flow": 3}, {"video": 2, "audio": 1, "flow": 1})
MICRO = (FULL, ({"video": 2, "audio": 3}, {"audio": 2}, {"audio": 1, "flow": 1}), FULL[:1])


def both(presence, strategy) -> tuple[list, list]:
    """Steps of micro-batches and of the one large batch that holds them all."""
    answers = ("red", "two dogs", "a cat and a dog")
    groups, n = [], 0
    for group in presence:
        groups.append([])
        for own in group:
            groups[-1].append(tiny.item(n, answer=answers[n % 3], **own))
            n += 1
    micro = [tiny.batch(*group) for group in groups]
    large = tiny.batch(*(i for group in groups for i in group))
    a = tiny.crema("video", "audio", "flow")
    b = copy.deepcopy(a)
    return gradients(strategy(a, micro), a), gradients(strategy(b, [large]), b)


def assert_same_steps(micro: list, large: list) -> None:
    assert [s for s, _, _ in micro] == [s for s, _, _ in large]
    for (sense, loss, own), (_, whole, theirs) in zip(micro, large, strict=True):
        assert loss == pytest.approx(whole, abs=1e-5), sense
        assert own.keys() == theirs.keys()
        for name in own:
            assert torch.allclose(own[name], theirs[name], atol=2e-5), (sense, name)


@pytest.mark.parametrize("presence", [MICRO, (FULL, FULL)], ids=["ragged", "even"])
def test_joint_micro_batches_are_the_large_batch(presence):
    assert_same_steps(*both(presence, joint))


def in_order(*order: str):
    return lambda model, batches: sequential(model, batches, order)


def test_sequential_micro_batches_are_the_large_batch():
    assert_same_steps(*both((FULL, FULL[::-1], FULL[:1]), in_order("audio", "video", "flow")))


def test_sequential_micro_batches_without_the_sense_train_the_fusion():
    presence = (FULL, ({"video": 2, "flow": 2}, {"video": 1, "flow": 3}))
    assert_same_steps(*both(presence, in_order("audio", "video", "flow")))


@pytest.mark.parametrize("without", [{"video": 2}, {}], ids=["video only", "question only"])
def test_sequential_micro_batches_may_have_nothing_to_train(without):
    assert_same_steps(*both((FULL, (without, {})), in_order("video", "audio", "flow")))


def test_a_joint_batch_may_have_nothing_to_train():
    assert_same_steps(*both((FULL, ({}, {})), joint))


@pytest.mark.parametrize("strategy", [joint, in_order("video")], ids=["joint", "sequential"])
def test_a_missing_answer_among_micro_batches_names_the_sample(strategy):
    batches = [tiny.batch(tiny.item(i, answer="red" * i, video=1)) for i in (0, 1)]
    with pytest.raises(DataError, match="'0' has no answer"):
        list(strategy(tiny.crema("video"), batches))


# Nothing is computed twice


class Count:
    """Calls of the shared Q-Former, by the queries (the sense) that it was called with."""

    def __init__(self, model: Crema) -> None:
        self.calls: list[tuple[str, bool]] = []
        names = {id(a.queries): s for s, a in model.adapters.items()}

        def note(module: torch.nn.Module, args: tuple) -> None:
            self.calls.append((names[id(args[0])], torch.is_grad_enabled()))

        self.hook = model.qformer.register_forward_pre_hook(note)

    def of(self, sense: str) -> int:
        return sum(s == sense for s, _ in self.calls)


def steps(subs: Iterator[Any]) -> list[str]:
    found = []
    for sub in subs:
        sub.loss.backward()
        found.append(sub.sense)
    return found


@pytest.mark.parametrize("order", [SENSES, SENSES[::-1], ("flow", "video", "point", "audio")])
def test_sequential_runs_the_qformer_no_more_than_it_must(order):
    model, n = tiny.crema(*SENSES, dropout=0.1), len(SENSES)
    count = Count(model)
    assert steps(sequential(model, make_batches()[:1], order)) == list(order)
    assert len(count.calls) == (n - 1) + n + (n - 1)
    assert sum(graph for _, graph in count.calls) == n, "one pass with a graph a sense"
    assert count.of(order[0]) == 2, "made once, and once more after its step"
    assert count.of(order[-1]) == 2, "settled once, then made; its new tokens nobody needs"
    assert all(count.of(s) == 3 for s in order[1:-1])


@pytest.mark.parametrize("order", [SENSES, SENSES[::-1], ("flow", "video", "point", "audio")])
def test_without_dropout_a_sense_is_trained_on_the_tokens_that_were_heard(order):
    model, n = tiny.crema(*SENSES), len(SENSES)
    count = Count(model)
    assert steps(sequential(model, make_batches()[:1], order)) == list(order)
    assert len(count.calls) == n + (n - 1)
    assert sum(graph for _, graph in count.calls) == n
    assert count.of(order[-1]) == 1
    assert all(count.of(s) == 2 for s in order[:-1])


def test_graphs_are_not_kept_where_micro_batches_save_memory():
    model, n = tiny.crema(*SENSES), len(SENSES)
    count = Count(model)
    assert steps(sequential(model, [make_batches()[0]] * 2, SENSES)) == [
        s for s in SENSES for _ in range(2)
    ]
    assert len(count.calls) == 2 * ((n - 1) + n + (n - 1))


@pytest.mark.parametrize(("dropout", "live"), [(0.0, 2 + 1), (0.1, 1 + 2 + 1)])
def test_an_exited_or_skipped_sense_is_run_once(dropout, live):
    model = tiny.crema(*SENSES, dropout=dropout)
    count = Count(model)
    assert steps(sequential(model, make_batches()[:1], ["flow", "audio"])) == ["flow", "audio"]
    assert count.of("video") == count.of("point") == 1
    assert len(count.calls) == 2 + live


def test_the_last_live_sense_is_run_once_and_so_are_the_others():
    model = tiny.crema(*SENSES)
    count = Count(model)
    assert steps(sequential(model, make_batches()[:1], ["audio"])) == ["audio"]
    assert [count.of(s) for s in SENSES] == [1, 1, 1, 1]


def test_a_sense_absent_from_the_mini_batch_is_skipped():
    model = tiny.crema(*SENSES)
    batch = make_batches()[1]
    count = Count(model)
    assert steps(sequential(model, [batch], SENSES)) == ["video", "flow", "point"]
    assert count.of("audio") == 0


def test_nothing_runs_when_all_senses_have_exited():
    model = tiny.crema(*SENSES)
    count = Count(model)
    assert steps(sequential(model, make_batches()[:1], [])) == []
    assert count.calls == []


def test_nothing_to_train_gives_no_sub_step():
    model = tiny.crema("video")
    assert list(sequential(model, [tiny.batch(tiny.item(1))], ["video"])) == []


# What a sub-step leaves alone


def test_gradients_reach_the_live_sense_and_the_fusion_only():
    model = tiny.crema(*SENSES)
    for sub in sequential(model, make_batches()[:1], SENSES):
        model.zero_grad()
        sub.loss.backward()
        unit = {id(p) for p in model.unit(sub.sense)}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert id(parameter) in unit, name
        own = model.adapters[sub.sense].named_parameters()
        assert all(p.grad is not None for _, p in own)
        assert all(p.grad is not None for p in model.fusion.parameters())


@pytest.mark.parametrize("taken", [1, 2, 99])
def test_flags_are_as_before_also_when_the_iterator_is_dropped(taken):
    model = tiny.crema(*SENSES)
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    for strategy in (in_order(*SENSES), joint):
        subs = strategy(model, make_batches())
        for _, sub in zip(range(taken), subs, strict=False):
            assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
            sub.loss.backward()
        subs.close()
        assert {n: p.requires_grad for n, p in model.named_parameters()} == flags


def modes(model: Crema) -> dict[str, bool]:
    return {n: m.training for n, m in model.named_modules()}


@pytest.mark.parametrize("llm_dropout", [0.0, 0.3])
def test_only_the_live_path_is_in_training_mode(llm_dropout):
    model = tiny.crema(*SENSES, dropout=0.5, llm_dropout=llm_dropout)
    seen: list[tuple[str, dict[str, bool]]] = []
    model.backbone.register_forward_pre_hook(lambda *_: seen.append(("llm", modes(model))))
    senses = []
    for sub in sequential(model, make_batches()[:1], SENSES):
        senses.append(sub.sense)
        sub.loss.backward()
    assert senses == list(SENSES)
    for sense, (_, mode) in zip(senses, seen, strict=True):
        for name, training in mode.items():
            if name.startswith("adapters."):
                assert training == (name.split(".")[1] == sense), (sense, name)
            elif name.startswith("backbone"):
                assert training == (llm_dropout > 0), (sense, name)
            elif name.startswith(("fusion", "qformer")):
                assert training, (sense, name)


def tokens_seen(model: Crema, subs: Iterator[Any]) -> list[dict[str, torch.Tensor]]:
    """What the fusion is given in each sub-step."""
    seen: list[dict[str, torch.Tensor]] = []
    hook = model.fusion.register_forward_pre_hook(
        lambda module, args: seen.append({s: q.tokens for s, q in args[0].items()})
    )
    for _ in subs:
        pass
    hook.remove()
    return seen


def test_dropout_is_on_the_live_path_only():
    model = tiny.crema(*SENSES, dropout=0.5)
    batch = make_batches()[0]
    seen = tokens_seen(model, sequential(model, [batch], SENSES))
    model.eval()
    with torch.no_grad():
        settled = {s: model.query(s, batch.senses[s]).tokens for s in SENSES}
    for sense, tokens in zip(SENSES, seen, strict=True):
        for other in SENSES:
            assert torch.equal(tokens[other], settled[other]) == (other != sense), (sense, other)


def test_joint_training_keeps_dropout_on_every_live_path_beside_a_frozen_one():
    model = tiny.crema(*SENSES, dropout=0.5)
    seen: dict[str, bool] = {}
    names = {id(a.queries): s for s, a in model.adapters.items()}
    model.qformer.register_forward_pre_hook(
        lambda module, args: seen.update({names[id(args[0])]: module.training})
    )
    list(joint(model, make_batches()[:1], frozen=["video"]))
    assert seen == {"video": False, "audio": True, "flow": True, "point": True}


def test_a_trainable_qformer_is_refused_by_name():
    model = tiny.crema("video")
    model.qformer.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"train\.qformer"):
        next(sequential(model, make_batches()[:1], ["video"]))
    (sub,) = joint(model, make_batches()[:1])
    sub.loss.backward()
    assert model.qformer.norm.weight.grad.any()


def test_autocast_around_each_sub_step_gives_every_sense_its_gradient():
    model = tiny.crema(*SENSES)
    subs = sequential(model, make_batches()[:1], SENSES)
    trained = []
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sub = next(subs, None)
        if sub is None:
            break
        model.zero_grad()
        sub.loss.backward()
        for name, parameter in model.adapters[sub.sense].named_parameters():
            assert parameter.grad is not None, (sub.sense, name)
            assert torch.isfinite(parameter.grad).all(), (sub.sense, name)
        trained.append(sub.sense)
    assert trained == list(SENSES)


def test_an_order_that_names_a_sense_the_model_has_not_is_refused_by_name():
    with pytest.raises(ConfigError, match="audio"):
        list(sequential(tiny.crema("video"), make_batches()[:1], ["video", "audio"]))


@pytest.mark.parametrize("strategy", [joint, sequential])
def test_a_loss_of_the_trained_tokens_is_added(strategy):
    """In each micro-batch's share, and of no sense that is not trained in the sub-step."""
    model = tiny.crema("video", "audio", "flow")
    model.adapter("flow").requires_grad_(False)
    batches = [
        tiny.batch(tiny.item(1, video=2, audio=2, flow=2), tiny.item(2, video=1)),
        tiny.batch(tiny.item(3, audio=2, answer="two dogs")),
    ]
    order = [] if strategy is joint else [["video", "audio"]]
    plain = [sub.loss.item() for sub in strategy(model, batches, *order)]
    asked = []

    def also(tokens, batch):
        place = next(i for i, one in enumerate(batches) if one is batch)
        asked.append((place, sorted(tokens)))
        return sum(float(s == "audio") + 10 for s in tokens)

    found = [sub.loss.item() for sub in strategy(model, batches, *order, also=also)]
    counts = [sum(len(t) for own in model.targets(batch) for t in own) for batch in batches]
    first, second = (count / sum(counts) for count in counts)
    if strategy is joint:
        assert asked == [(0, ["audio", "video"]), (1, ["audio"])]
        added = [21 * first, 11 * second]
    else:
        assert asked == [(0, ["video"]), (1, []), (0, ["audio"]), (1, ["audio"])]
        added = [10 * first, 0, 11 * first, 11 * second]
    assert [f - p for f, p in zip(found, plain, strict=True)] == pytest.approx(added, abs=1e-5)

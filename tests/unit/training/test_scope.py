"""Scope "own": a new sense is trained, and nothing that was published moves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import EXIT, assert_same_run, items, moved, of_kind, own
from torch import Tensor

import tiny
from open_crema import config as configuration
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, save_pretrained
from open_crema.storage import read_tensors
from open_crema.training.loop import Trainer
from open_crema.training.scope import freeze_published
from open_crema.training.strategy import joint, sequential
from tiny import CutError, Questions

PRESENCE = (
    {"video": 2, "flow": 2, "audio": 2},
    {"video": 3, "audio": 3},
    {"flow": 2},
    {"flow": 1, "audio": 2},
)
DROPOUT = {"kind": "random", "rate": 0.3}
RUNS: dict[str, dict[str, Any]] = {
    "sequential": {"accumulate": 2, "weight_decay": 0.5, "clip": 0.1, "sense_dropout": DROPOUT},
    "joint": {"strategy": "joint", "weight_decay": 0.5, "clip": 0.1, "sense_dropout": DROPOUT},
    "sgd": {"optimizer": "sgd", "order": "shuffled", "lr": 0.1},
    "bf16": {"precision": "bf16", "strategy": "joint", "accumulate": 2},
    "aligned": {"alignment": {"epochs": 2, "batch_size": 2}, "epochs": 1},
}
runs = pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
strategies = pytest.mark.parametrize("strategy", ["sequential", "joint"])


def published(out: Path, *senses: str, **options: Any) -> Path:
    return save_pretrained(tiny.crema(*senses, dropout=0.1, **options), out / "published")


def grown(folder: Path, *new: str, **options: Any) -> Crema:
    model = from_pretrained(folder, backbone=tiny.backbone(**options))
    torch.manual_seed(7)
    for sense in new:
        model.add_sense(sense, tiny.WIDTHS[sense])
    return model


def trainer(
    out: Path, model: Crema, data: Questions | None = None, *, validate: Any = None, **train: Any
) -> Trainer:
    plain = {"epochs": 3, "batch_size": 2, "lr": 0.01, "warmup_steps": 0, "init": "published"}
    config = configuration.from_dict(
        {
            "seed": 3,
            "model": configuration.to_dict(model.config),
            "train": {"scope": "own", **plain, **train},
        }
    )
    data = Questions(items(8, PRESENCE)) if data is None else data
    return Trainer(model, config, data, out / "run", validate=validate)


def tensor_files(folder: Path) -> dict[Path, bytes]:
    return {
        p.relative_to(folder): p.read_bytes()
        for p in [*folder.rglob("*.safetensors"), *folder.glob("adapters/*/*")]
    }


def batch_of(presence: Sequence[dict[str, int]]) -> Batch:
    options = ("red", "two dogs", "no")
    return tiny.batch(
        *(tiny.item(i, options=options, ragged=True, **p) for i, p in enumerate(presence))
    )


def results(model: Crema, batch: Batch) -> list[Tensor]:
    """All that a model says of a batch."""
    model.eval()
    with torch.no_grad():
        out = model(batch)
    said = model.generate(batch, max_new_tokens=3, scores=True)
    return [out.loss, out.logits, model.score(batch).log_likelihood, said.ids, said.scores]


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


@runs
@pytest.mark.parametrize(
    ("base", "new"),
    [
        (("video", "flow"), ("audio",)),  # between them, so it leads where video is missing
        (("video",), ("audio", "flow")),  # until now without a fusion
    ],
    ids=["two", "one"],
)
def test_nothing_published_moves(tmp_path, base, new, options):
    folder = published(tmp_path, *base)
    before = tensor_files(folder)
    old = from_pretrained(folder, backbone=tiny.backbone())
    model = grown(folder, *new)
    start, llm = own(model), copy.deepcopy(model.backbone.llm.state_dict())
    saved = trainer(tmp_path, model, **options).run()

    after = tensor_files(saved)
    assert {p: after[p] for p in before} == before
    assert tensor_files(folder) == before
    assert all(torch.equal(t, llm[n]) for n, t in model.backbone.llm.state_dict().items())
    trained = from_pretrained(saved, backbone=tiny.backbone())
    changed = moved(start, trained)
    for sense in new:
        assert f"fusion.blocks.{sense}" in changed
        assert any(n.startswith(f"adapters.{sense}.lora") for n in changed)
    allowed = {f"fusion.blocks.{s}" for s in new}
    assert {n for n in changed if not n.startswith(tuple(f"adapters.{s}." for s in new))} == allowed
    assert trained.untrained == []
    if len(base) == 1:
        assert not read_tensors(saved / "fusion.safetensors")["bias"].any()

    without = batch_of([{s: n for s, n in p.items() if s in base} for p in PRESENCE])
    assert same(results(trained, without), results(old, without))
    assert same(results(model, without), results(old, without)), "before it is saved, too"
    everything = batch_of(PRESENCE)
    assert same(results(trained, everything.only(base)), results(old, everything.only(base)))
    assert not same(results(trained, everything)[1:2], results(old, everything)[1:2])


@strategies
def test_its_gradients_are_those_of_the_whole_model(strategy):
    """A plain pass through everything, of which only the new sense's share is kept."""
    model = tiny.crema("video", "flow")
    model.add_sense("audio", tiny.WIDTHS["audio"])
    tiny.stir(model)
    plain, batch = copy.deepcopy(model), batch_of(PRESENCE)
    plain.train()(batch).loss.backward()
    assert freeze_published(model) == ["audio"]
    subs = joint(model, [batch]) if strategy == "joint" else sequential(model, [batch], ["audio"])
    (sub,) = subs
    sub.loss.backward()
    expected = {
        n: p.grad
        for n, p in plain.named_parameters()
        if n.startswith("adapters.audio.") or n == "fusion.blocks.audio"
    }
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[n], expected[n], atol=1e-6) for n in expected)


def test_a_frozen_sense_has_no_sub_step_and_no_dropout_in_anybody_s_loop():
    model = tiny.crema("video", "flow", "audio", dropout=0.5)
    model.adapters["flow"].requires_grad_(False)
    batch = batch_of(PRESENCE)
    subs = list(sequential(model, [batch], ["flow", "video", "audio"]))
    assert [sub.sense for sub in subs] == ["video", "audio"]
    model.adapters.requires_grad_(False)
    assert list(sequential(model, [batch], ["flow", "video", "audio"])) == []
    losses = {next(joint(model, [batch])).loss.item() for _ in range(3)}
    assert len(losses) == 1
    model.adapters.requires_grad_(True)
    losses = {next(joint(model, [batch])).loss.item() for _ in range(3)}
    assert len(losses) == 3


def test_a_frozen_sense_still_trains_a_q_former_that_is_not():
    model = tiny.crema("video", "audio")
    model.adapters.requires_grad_(False)
    model.qformer.requires_grad_(True)
    next(joint(model, [batch_of(PRESENCE)])).loss.backward()
    assert all(p.grad.any() for p in model.qformer.parameters() if p.ndim == 2)


@strategies
def test_a_new_sense_that_no_question_has_stays_untrained(tmp_path, strategy):
    folder = published(tmp_path, "video", "flow")
    model = grown(folder, "audio")
    before = own(model)
    data = Questions(items(4, ({"video": 2, "flow": 2}, {"video": 1})))
    stage = {"epochs": 1, "batch_size": 2}
    saved = trainer(tmp_path, model, data, strategy=strategy, alignment=stage).run()
    assert moved(before, model) == set()
    trained = from_pretrained(saved, backbone=tiny.backbone())
    assert trained.untrained == ["audio"]
    old = from_pretrained(folder, backbone=tiny.backbone())
    assert same(results(trained, batch_of(PRESENCE)), results(old, batch_of(PRESENCE)))
    again = grown(saved)  # and may be trained later
    trainer(tmp_path / "later", again, strategy=strategy).run()
    assert again.untrained == []


def test_only_new_senses_exit_and_end_the_run(tmp_path):
    model = grown(published(tmp_path, "video", "flow"), "audio")
    run = trainer(tmp_path, model, epochs=9, exit={"enabled": True, "temperature": 1e-6})
    run.run()
    assert set(run.exits.exited) == set(run.exits.history) == {"audio"}
    assert run.step < 9 * run.steps_per_epoch
    assert {line["sense"] for line in of_kind(tmp_path / "run", "step")} == {"audio"}


def test_a_joint_step_logs_the_new_senses_gradients_alone(tmp_path):
    model = grown(published(tmp_path, "video", "flow"), "audio")
    trainer(tmp_path, model, strategy="joint").run()
    gradients = [line["gradient"] for line in of_kind(tmp_path / "run", "step")]
    assert {frozenset(g) for g in gradients} <= {frozenset({"audio"}), frozenset()}
    assert any(g.get("audio", 0) > 0 for g in gradients)


@pytest.mark.parametrize("options", [RUNS["sequential"], RUNS["joint"]], ids=["seq", "joint"])
def test_a_run_cut_off_trains_the_same_senses_on(tmp_path, options):
    folder = published(tmp_path, "video", "flow")
    options = {**options, "checkpoint_every": 1, "exit": EXIT, "order": "shuffled"}
    whole = trainer(tmp_path / "whole", grown(folder, "audio"), **options)
    whole.run()
    for cut in (2, 5):
        data = Questions(items(8, PRESENCE), cut=cut)
        with pytest.raises(CutError):
            trainer(tmp_path / str(cut), grown(folder, "audio"), data, **options).run()
        resumed = trainer(tmp_path / str(cut), grown(folder, "audio"), **options)
        resumed.run()
        assert_same_run(resumed, whole)


def test_a_run_whose_first_model_has_been_replaced_is_refused(tmp_path):
    trainer(tmp_path, grown(published(tmp_path, "video", "flow"), "audio")).run()
    other = trainer(tmp_path, grown(published(tmp_path / "other", "video"), "flow", "audio"))
    with pytest.raises(ConfigError, match=r"holds a run whose senses to train differ"):
        other.run()


@pytest.mark.parametrize("placement", ["append", "add"])
@pytest.mark.parametrize(
    ("base", "new"), [(("audio",), "video"), (("flow", "depth"), "video"), (("depth",), "flow")]
)
def test_a_new_sense_that_would_silence_one_that_led(tmp_path, base, new, placement):
    fusion = {"kind": "self-gated", "placement": placement}
    model = grown(published(tmp_path, *base, fusion=fusion), new)
    message = rf"{new} would lead where {base[0]} led until now.*use train\.scope=all"
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path, model)
    assert not (tmp_path / "run").exists()


def test_a_new_sense_may_lead_where_no_block_is_needed(tmp_path):
    folder = published(tmp_path, "flow", fusion={"kind": "concat"})
    before = tensor_files(folder)
    model = grown(folder, "video")
    after = tensor_files(trainer(tmp_path, model).run())
    assert {p: after[p] for p in before} == before
    old, batch = from_pretrained(folder, backbone=tiny.backbone()), batch_of(PRESENCE)
    assert same(results(model, batch.only(["flow"])), results(old, batch.only(["flow"])))
    assert not same(results(model, batch), results(old, batch))


def test_nothing_new_to_train(tmp_path):
    model = grown(published(tmp_path, "video", "audio"))
    with pytest.raises(ConfigError, match=r"all of video, audio have been trained"):
        trainer(tmp_path, model)
    assert all(p.requires_grad for p in model.adapters.parameters())


def test_the_q_former_is_shared(tmp_path):
    model = grown(published(tmp_path, "video"), "audio")
    for how in ("alignment", "always"):
        with pytest.raises(ConfigError, match=f"qformer={how} goes with train.scope=all"):
            trainer(tmp_path, model, qformer=how, strategy="joint")

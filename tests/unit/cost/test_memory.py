"""Memory that a training step is said to take, and room in the store."""

from dataclasses import replace

import pytest

from open_crema import config, cost
from open_crema.config import Config
from open_crema.cost import Tokens


def run(**train) -> Config:
    said = {
        "senses": ["video", "audio", "flow"],
        "qformer": {"layers": 2, "width": 64, "heads": 2, "ffn": 128, "queries": 8},
    }
    return config.from_dict({"model": said, "train": {"batch_size": 2, **train}})


def test_what_is_kept_grows_with_the_batch_and_the_prompt():
    small = cost.training_memory(run())
    assert cost.training_memory(run(batch_size=6)).saved == pytest.approx(3 * small.saved, rel=0.02)
    longer = cost.training_memory(run(), Tokens(text=400))
    assert longer.saved > 1.5 * small.saved
    assert small.training == small.saved + small.updates + small.working


def test_a_sense_at_a_time_keeps_less_than_all_at_once():
    joint = cost.training_memory(run(strategy="joint"))
    turns = cost.training_memory(run(strategy="sequential"))
    assert turns.saved < joint.saved
    assert turns.updates == joint.updates


def test_updates_are_gradients_and_the_optimizers_moments():
    adamw, sgd = (cost.training_memory(run(optimizer=name)) for name in ("adamw", "sgd"))
    trained = cost.count(run().model).trainable
    assert adamw.updates == 3 * 4 * trained
    assert sgd.updates == 4 * trained


def test_a_qformer_that_is_trained_keeps_more():
    frozen = cost.training_memory(run(strategy="joint"))
    trained = cost.training_memory(run(strategy="joint", qformer="always"))
    assert trained.saved > frozen.saved
    assert trained.updates > frozen.updates


def test_the_store_holds_what_encoders_give():
    chosen = run()
    chosen = replace(chosen, data=replace(chosen.data, store_frames=8))
    found = cost.store_bytes(chosen, Tokens(frames=4, windows=2))
    assert found["video"] == found["flow"] == 8 * 65 * 384 * 2
    assert found["audio"] == 2 * 36 * 1024 * 2

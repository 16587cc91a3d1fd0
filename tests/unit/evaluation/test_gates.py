import pytest
import torch
from named_features import ask, dataset

import tiny
from open_crema.config import EvalConfig
from open_crema.evaluation.gates import gates
from open_crema.evaluation.run import evaluate

SENSES = ("video", "audio", "thermal")


@pytest.fixture(scope="module")
def model():
    return tiny.crema(*SENSES)


@pytest.fixture(scope="module")
def samples():
    return [
        ask("all", video="1", audio="2", thermal="3"),
        ask("two", video="4", thermal="5"),
        ask("led by sound", audio="6", thermal="7"),
        ask("one", video="8"),
        ask("chosen", options=("red", "blue"), video="9", audio="10", thermal="11"),
    ]


def test_shares_are_of_assistants_and_sum_to_one_in_each_frame(model, samples):
    found = evaluate(model, dataset(*samples, senses=SENSES), config=EvalConfig(max_new_tokens=2))
    by_id = {p.id: p.gates for p in found.predictions}
    assert {i: list(g) for i, g in by_id.items()} == {
        "all": ["audio", "thermal"],
        "two": ["thermal"],
        "led by sound": ["thermal"],
        "one": [],
        "chosen": ["audio", "thermal"],
    }
    for shares in by_id.values():
        assert len({len(own) for own in shares.values()}) <= 1
        for frame in zip(*shares.values(), strict=True):
            assert sum(frame) == pytest.approx(1, abs=1e-3)
    assert found.predictions[0].to_dict()["gates"] == by_id["all"]


def test_they_are_those_of_the_model_however_samples_are_batched(model, samples):
    data = dataset(*samples, senses=SENSES)
    found = [
        [p.gates for p in evaluate(model, data, config=config).predictions]
        for config in (EvalConfig(batch_size=1), EvalConfig(batch_size=8))
    ]
    for one, other in zip(*found, strict=True):
        assert list(one) == list(other)
        for sense in one:
            assert one[sense] == pytest.approx(other[sense], abs=2e-4)


def test_over_all_frames_they_agree_with_the_fusion_s_own_shares(model, samples):
    batch = dataset(*samples, senses=SENSES).batch([0])
    with torch.no_grad():
        tokens = model.query_all(batch)
        (own,) = gates(model.fusion, tokens, 1)
        whole = {sense: float(share) for sense, share in model.fusion.shares(tokens).items()}
    for sense in ("audio", "thermal"):
        assert min(own[sense]) - 1e-3 <= whole[sense] <= max(own[sense]) + 1e-3


def test_without_a_gate_there_are_none(samples):
    model = tiny.crema(*SENSES, fusion={"kind": "concat"})
    found = evaluate(model, dataset(*samples[:1], senses=SENSES), config=EvalConfig())
    assert found.predictions[0].gates == {}

"""The order of listing never matters; an untrained sense changes no bit, nor does taking it out."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tiny
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError
from open_crema.model.crema import Crema
from open_crema.model.files import from_pretrained, save_pretrained

FOUR = ("video", "audio", "flow", "point")
OPTIONS = ("red", "two dogs", "no")
PRESENCE: Sequence[dict[str, int]] = (
    {"video": 3, "audio": 2, "flow": 3, "point": 1, "depth": 3},
    {"video": 2, "depth": 1},
    {},
    {"video": 4, "flow": 2, "audio": 3},
)
WITHOUT_VIDEO: Sequence[dict[str, int]] = ({"audio": 2, "flow": 3}, {"flow": 2, "depth": 2})


def batch_of(presence: Sequence[dict[str, int]]) -> Batch:
    questions = ("why", "how many red dogs are there", "what is it")
    return tiny.batch(
        *(
            tiny.item(i, question=questions[i % 3], options=OPTIONS, ragged=True, **own)
            for i, own in enumerate(presence)
        )
    )


def results(model: Crema, batch: Batch) -> list[Tensor]:
    """All that a model says of a batch."""
    out = model(batch)
    said = model.generate(batch, max_new_tokens=4, scores=True)
    return [out.loss, out.logits, model.score(batch).log_likelihood, said.ids, said.scores]


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def weights(model: Crema) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


FUSIONS = [
    {"kind": "self-gated", "placement": "append"},
    {"kind": "self-gated", "placement": "add"},
    {"kind": "concat"},
]
fusions = pytest.mark.parametrize("fusion", FUSIONS, ids=["append", "add", "concat"])


@fusions
@settings(max_examples=4)
@given(order=st.permutations(FOUR))
def test_the_order_of_listing_senses_changes_no_bit(fusion, order):
    batch = batch_of([*PRESENCE, *WITHOUT_VIDEO])
    listed, other = (tiny.crema(*o, stirred=False, fusion=fusion) for o in (FOUR, order))
    assert same_weights(weights(listed), weights(other))
    listed, other = tiny.stir(listed), tiny.stir(other)
    shuffled = Batch(batch.samples, {s: batch.senses[s] for s in reversed(batch.senses)})
    assert same(results(listed, batch), results(other, shuffled))


@fusions
def test_the_order_of_listing_changes_no_gradient(fusion):
    batch = batch_of(PRESENCE)
    found = []
    for order in (FOUR, FOUR[::-1]):
        model = tiny.crema(*order, fusion=fusion).train()
        model(batch).loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert same_weights(*found)


# In "concat" there is no gate to keep a new sense out, so only the gated fusion promises this.
gated = pytest.mark.parametrize("placement", ["append", "add"])


@gated
@pytest.mark.parametrize(
    ("base", "new"),
    [
        (("video",), "audio"),
        (("video",), "depth"),
        (("video", "audio"), "depth"),
        (("video", "flow", "point"), "audio"),
        (("video", "flow", "point"), "touch"),
    ],
)
def test_an_untrained_sense_changes_no_bit(placement, base, new):
    model = tiny.crema(*base, fusion={"kind": "self-gated", "placement": placement})
    with_new = [{**own, new: 2} for own in PRESENCE if "video" in own]
    for batch in (batch_of(PRESENCE), batch_of(with_new)):
        own, before, state = copy.deepcopy(model), results(model, batch), weights(model)
        own.add_sense(new, tiny.WIDTHS[new])
        assert own.senses == [s for s in tiny.WIDTHS if s in {*base, new}]
        assert not own.fusion.blocks[new].any()
        assert same(results(own, batch), before), "added"
        own.remove_sense(new)
        assert same(results(own, batch), before), "removed"
        assert own.senses == model.senses
        kept = weights(own)
        assert all(torch.equal(kept[n], state[n]) for n in state)


@gated
@pytest.mark.parametrize("sense", FOUR)
def test_a_new_sense_can_be_trained_and_then_matters(placement, sense):
    base = [s for s in FOUR if s != sense]
    model = tiny.crema(*base, fusion={"kind": "self-gated", "placement": placement})
    model.add_sense(sense, tiny.WIDTHS[sense])
    tiny.stir(model)
    batch = batch_of(PRESENCE[:1])
    model.train()
    model(batch).loss.backward()
    for name, parameter in model.adapters[sense].named_parameters():
        assert parameter.grad.any(), name
    model.eval()
    assert not torch.equal(model(batch).logits, model(batch.only(base)).logits)


@pytest.mark.parametrize(
    ("base", "new", "presence"),
    [
        (("video", "flow"), "audio", {"audio": 2, "flow": 3}),
        (("video", "flow"), "audio", {"audio": 2}),
        (("flow", "depth"), "audio", {"audio": 2, "flow": 3, "depth": 3}),
        (("audio", "flow"), "video", {"video": 2, "audio": 2, "flow": 2}),
    ],
)
def test_an_untrained_sense_changes_no_bit_where_it_would_lead(base, new, presence):
    model, batch = tiny.crema(*base), batch_of([presence])
    before = results(model, batch)
    model.add_sense(new, tiny.WIDTHS[new])
    assert same(results(model, batch), before)


def test_an_untrained_sense_changes_no_bit_of_a_concatenating_model():
    model, batch = tiny.crema("video", fusion={"kind": "concat"}), batch_of(PRESENCE)
    before = results(model, batch)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    assert same(results(model, batch), before)


@pytest.mark.parametrize("base", [("video", "audio", "flow")])
@pytest.mark.parametrize("sense", ["video", "audio", "flow"])
def test_a_model_without_a_sense_is_the_model_that_never_gets_it(base, sense):
    model, batch = tiny.crema(*base), batch_of([*PRESENCE, *WITHOUT_VIDEO])
    expected = results(model, batch.only(s for s in base if s != sense))
    model.remove_sense(sense)
    assert same(results(model, batch), expected)
    assert sense not in model.config.senses
    assert not [n for n in weights(model) if f".{sense}." in n or n.endswith(f".{sense}")]


def test_after_removal_no_parameter_is_left_over():
    model = tiny.crema("video")
    state = weights(model)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    model.remove_sense("audio")
    assert same_weights(weights(model), state)


def test_a_new_adapter_is_in_the_models_mode():
    model = tiny.crema("video", dropout=0.5).eval()
    model.add_sense("audio", tiny.WIDTHS["audio"])
    assert not any(m.training for m in model.adapters["audio"].modules())


def test_a_new_sense_has_the_models_precision():
    model = tiny.crema("video").to(torch.bfloat16)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_parameters_come_in_canonical_order_however_the_model_grew():
    # optimizers' own state dicts number parameters by this order
    grown = tiny.crema("video", "flow")
    grown.add_sense("audio", tiny.WIDTHS["audio"])
    whole = tiny.crema("video", "audio", "flow")
    assert [n for n, _ in grown.named_parameters()] == [n for n, _ in whole.named_parameters()]


def test_what_cannot_be_added_or_removed_is_named():
    model = tiny.crema("video", "audio")
    with pytest.raises(ConfigError, match="'audio' already"):
        model.add_sense("audio")
    with pytest.raises(ConfigError, match=r"unknown sense 'audoi'.*'audio'"):
        model.add_sense("audoi")
    with pytest.raises(ConfigError, match="'flow'"):
        model.remove_sense("flow")
    model.remove_sense("video")
    with pytest.raises(ConfigError, match="'audio'"):
        model.remove_sense("audio")
    assert model.senses == ["audio"]


def test_a_saved_untrained_sense_stays_out_and_a_trained_one_takes_part(tmp_path):
    model, batch = tiny.crema("video", "flow"), batch_of([*PRESENCE, *WITHOUT_VIDEO])
    before = results(model, batch)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    back = from_pretrained(save_pretrained(model, tmp_path / "m"), backbone=model.backbone)
    assert same(results(back, batch), before)
    model.train()
    model(batch).loss.backward()
    model.eval()
    expected = results(model, batch)
    assert not same(expected, before)
    back = from_pretrained(save_pretrained(model, tmp_path / "m"), backbone=model.backbone)
    assert same(results(back, batch), expected)


def test_trained_weights_loaded_into_a_grown_model_take_part():
    batch = batch_of(PRESENCE)
    trained, other = tiny.crema("video"), tiny.crema("video")
    for model in (trained, other):
        model.add_sense("audio", tiny.WIDTHS["audio"])
    tiny.stir(trained.train())(batch)
    other.load_state_dict(trained.state_dict())
    assert same(results(other.eval(), batch), results(trained.eval(), batch))


def test_a_pass_that_trains_nothing_leaves_a_sense_untrained():
    model, batch = tiny.crema("video"), batch_of(PRESENCE)
    before = results(model, batch)
    model.add_sense("audio", tiny.WIDTHS["audio"])
    with torch.no_grad():
        model.train()(batch)
    assert same(results(model.eval(), batch), before)

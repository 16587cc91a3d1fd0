"""Models with each kind of fusion: saved, grown, shrunk, and taken apart into adapters."""

from __future__ import annotations

import pytest
import torch
from copies import batch, edited, grown, retensored, said, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from open_crema.config import FusionConfig
from open_crema.errors import WeightsError
from open_crema.evaluation.gates import gates
from open_crema.model.exchange import add_adapter, export_adapter, list_adapters, remove_adapter
from open_crema.model.files import from_pretrained, save_pretrained
from open_crema.model.publish import push_to_hub
from open_crema.storage import read_tensors

SENSES = ("video", "audio", "flow")
KINDS = ["ungated", "linear", "mixture-of-experts", "cross-attention"]
kinds = pytest.mark.parametrize("kind", KINDS)
placements = pytest.mark.parametrize("placement", ["append", "add"])


@pytest.fixture(scope="module")
def llm():
    return tiny.backbone()


def weights(model) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if not n.startswith("backbone.")}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@kinds
@settings(max_examples=4)
@given(
    senses=st.lists(st.sampled_from([*SENSES, "depth"]), min_size=1, unique=True),
    placement=st.sampled_from(["append", "add"]),
    init=st.sampled_from(["fan-in", "identity"]),
)
def test_it_comes_back_bit_for_bit(llm, tmp_path_factory, kind, senses, placement, init):
    folder = tmp_path_factory.mktemp("kinds")
    fusion = {"kind": kind, "placement": placement, "init": init}
    model = tiny.crema(*senses, llm=llm, fusion=fusion)
    back = from_pretrained(save_pretrained(model, folder / "a"), backbone=llm)
    assert same(weights(back), weights(model))
    assert torch.equal(back(batch()).logits, model(batch()).logits)
    save_pretrained(back, folder / "b")
    assert snapshot(folder / "a") == snapshot(folder / "b")
    for sense in senses:
        part = from_pretrained(folder / "a", senses=[sense], backbone=llm)
        assert torch.equal(part(batch()).logits, model(batch().only([sense])).logits)


@kinds
def test_what_is_a_senses_own_is_in_its_file_and_the_rest_with_the_base(llm, tmp_path, kind):
    model = tiny.crema(*SENSES, llm=llm, fusion={"kind": kind})
    folder = save_pretrained(model, tmp_path / "model")
    assert read_tensors(folder / "fusion.safetensors").keys() == model.fusion.kind.shared.keys()
    for sense in SENSES:
        own = read_tensors(folder / "adapters" / sense / "adapter.safetensors")
        assert ("fusion.block" in own) == (sense != "video")
    alone = save_pretrained(tiny.crema("video", llm=llm, fusion={"kind": kind}), tmp_path / "one")
    assert (alone / "fusion.safetensors").exists() == (kind == "cross-attention")


@kinds
def test_a_foreign_block_or_a_foreign_base_is_an_error(llm, tmp_path, kind):
    model = tiny.crema(*SENSES, llm=llm, fusion={"kind": kind})
    folder = save_pretrained(model, tmp_path / "model")
    shared = folder / "fusion.safetensors"
    retensored(shared, lambda t: t["bias"].mul_(-1))
    with pytest.raises(WeightsError, match=r"fusion\.safetensors: not the fusion of this model"):
        from_pretrained(folder, backbone=llm)
    save_pretrained(model, folder)
    block = torch.zeros(5, 5)
    retensored(
        folder / "adapters/audio/adapter.safetensors", lambda t: t.update({"fusion.block": block})
    )
    with pytest.raises(WeightsError, match=r"fusion\.block is \(5, 5\), expected"):
        from_pretrained(folder, backbone=llm)


@kinds
@placements
@pytest.mark.parametrize(
    ("base", "new"),
    [
        (("video",), "audio"),
        (("video", "flow"), "audio"),
        (("flow",), "video"),
        (("audio", "flow"), "video"),
    ],
)
def test_an_untrained_sense_changes_no_bit_of_any_kind(llm, kind, placement, base, new):
    model = tiny.crema(*base, llm=llm, fusion={"kind": kind, "placement": placement})
    before, state = model(batch()).logits, weights(model)
    model.add_sense(new, tiny.WIDTHS[new])
    assert torch.equal(model(batch()).logits, before)
    model.remove_sense(new)
    assert torch.equal(model(batch()).logits, before)
    if new != "video":  # else the one that led has a block of zeros now
        assert same(weights(model), state)


@kinds
@pytest.mark.parametrize("sense", SENSES)
def test_a_trained_sense_matters_and_goes_without_a_trace(llm, kind, sense):
    model, others = tiny.crema(*SENSES, llm=llm, fusion={"kind": kind}), set(SENSES) - {sense}
    without, whole = model(batch().only(others)).logits, model(batch()).logits
    model.remove_sense(sense)
    assert torch.equal(model(batch()).logits, without)
    assert not torch.allclose(whole, without, atol=1e-3)


@kinds
@placements
def test_a_sample_is_the_same_alone_and_in_a_batch(llm, kind, placement):
    model = tiny.crema(*SENSES, llm=llm, fusion={"kind": kind, "placement": placement})
    items = [
        tiny.item(1, video=2, audio=3, flow=2),
        tiny.item(2, audio=1, flow=2),
        tiny.item(3, video=4),
        tiny.item(4, video=3, flow=1),
    ]
    out = model(tiny.batch(*items))
    losses = tiny.sample_losses(out.logits, out.labels)
    for item, loss in zip(items, losses, strict=True):
        alone = model(tiny.batch(item))
        torch.testing.assert_close(tiny.sample_losses(alone.logits, alone.labels)[0], loss)


@kinds
@pytest.mark.parametrize("base", [("video",), ("video", "flow")])
def test_an_adapter_made_elsewhere_fits_the_same_base(llm, tmp_path, kind, base):
    """Of one sense, too: what its fusion grows by is the same everywhere."""
    folder = save_pretrained(tiny.crema(*base, llm=llm, fusion={"kind": kind}), tmp_path / "base")
    before = snapshot(folder)
    for sense, seed in (("audio", 1), ("depth", 2)):
        made = save_pretrained(grown(folder, sense, llm, seed=seed), tmp_path / f"with-{sense}")
        export_adapter(made, sense, tmp_path / sense)
    alone = said(tmp_path / "with-audio", llm)
    live = from_pretrained(folder, backbone=llm)
    for sense in ("audio", "depth"):
        remarks = add_adapter(folder, tmp_path / sense)
        assert not any("fusion" in remark for remark in remarks)
        assert add_adapter(live, tmp_path / sense) == remarks
        if sense == "audio":
            assert torch.equal(said(folder, llm), alone)
    assert torch.equal(said(folder, llm), live(batch()).logits)
    assert [found.info.sense for found in list_adapters(folder)] == live.senses
    for sense in ("audio", "depth"):
        remove_adapter(folder, sense)
    assert snapshot(folder) == before


@kinds
def test_another_fusion_is_refused_and_another_shared_part_is_named(llm, tmp_path, kind):
    folder = save_pretrained(
        tiny.crema(*SENSES, llm=llm, fusion={"kind": kind}), tmp_path / "model"
    )
    export_adapter(folder, "audio", tmp_path / "audio")
    other = save_pretrained(tiny.crema("video", "flow", llm=llm), tmp_path / "gated")
    with pytest.raises(WeightsError, match=f"trained with model.fusion {kind}, append, the model"):
        add_adapter(other, tmp_path / "audio")
    remove_adapter(folder, "audio")
    edited(tmp_path / "audio" / "config.json", lambda d: d["base"].update(fusion="0123"))
    part = "attention" if kind == "cross-attention" else "bias"
    with pytest.raises(WeightsError, match=f"another fusion {part}.*--force"):
        add_adapter(folder, tmp_path / "audio")
    assert f"was trained with another fusion {part}" in add_adapter(
        folder, tmp_path / "audio", force=True
    )


@pytest.mark.parametrize("kind", [*KINDS, "concat"])
def test_a_model_whose_fusion_is_exchanged_comes_back(llm, tmp_path, kind):
    """What its adapters' files said of the fusion is no longer true."""
    folder = save_pretrained(tiny.crema(*SENSES, llm=llm), tmp_path / "gated")
    model = from_pretrained(folder, backbone=llm)
    model.change_fusion(FusionConfig(kind))
    back = from_pretrained(save_pretrained(model, tmp_path / "other"), backbone=llm)
    assert back.config.fusion.kind == kind
    assert torch.equal(back(batch()).logits, model(batch()).logits)


@kinds
def test_shares_of_each_frame_sum_to_one(llm, kind):
    model = tiny.crema(*SENSES, llm=llm, fusion={"kind": kind})
    with torch.no_grad():
        tokens = model.query_all(batch())
    first, second, third = gates(model.fusion, tokens, 3)
    for found, senses in ((first, ["audio", "flow"]), (second, ["flow"]), (third, [])):
        assert list(found) == senses
        for frame in zip(*found.values(), strict=True):
            assert sum(frame) == pytest.approx(1, abs=1e-3)


@kinds
def test_what_is_published_is_checked_and_complete(llm, tmp_path, kind, monkeypatch):
    sent = {}

    def upload(staged, repository, **_):
        sent.update(snapshot(staged))
        return repository

    monkeypatch.setattr("open_crema.model.hub.upload", upload)
    model = tiny.crema(*SENSES, llm=llm, fusion={"kind": kind})
    folder = save_pretrained(model, tmp_path / "model")
    push_to_hub(folder, "user/name")
    assert set(sent) == {*snapshot(folder), "README.md"}
    assert f"fusion: {kind}, append".encode() in sent["README.md"]

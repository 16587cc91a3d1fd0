"""The paper's baselines: every sense with a Q-Former of its own, all of it trained."""

import json
from dataclasses import replace

import pytest
import torch

import tiny
from open_crema import config, cost
from open_crema.config import Config, ModelConfig
from open_crema.convert import to_official
from open_crema.errors import ConfigError, WeightsError
from open_crema.experiment import build_model
from open_crema.model.exchange import add_adapter, export_adapter, remove_adapter
from open_crema.model.files import from_pretrained, save_pretrained
from tiny import one_seeded_thread  # noqa: F401

SENSES = ("video", "audio", "flow")


def perturbed():
    return tiny.stir(tiny.crema(*SENSES)).eval()


def batch(count):
    counts = dict.fromkeys(SENSES, 2)
    return tiny.batch(*(tiny.item(seed, **counts) for seed in range(count)))


def test_it_starts_as_the_shared_one_with_the_senses_updates():
    model = perturbed()
    given = batch(3)
    before = model(given)
    model.own_qformers()
    after = model(given)
    assert torch.allclose(after.logits, before.logits, atol=1e-5)
    assert not any(len(model.adapter(s).lora) for s in SENSES)
    assert model.config.qformer.own == "each"


def test_every_senses_own_is_trained_and_the_shared_one_is_not():
    model = perturbed()
    model.own_qformers()
    model.train()
    model(batch(3)).loss.backward()
    for sense in SENSES:
        own = model.adapter(sense).own
        assert all(p.grad is not None for p in own.parameters()), sense
    assert all(p.grad is None for p in model.qformer.parameters())


def test_saved_and_read_it_is_the_same(tmp_path):
    model = perturbed()
    model.own_qformers()
    save_pretrained(model, tmp_path / "model")
    again = from_pretrained(tmp_path / "model", backbone=model.backbone)
    given = batch(2)
    assert torch.equal(again(given).logits, model.eval()(given).logits)
    said = json.loads((tmp_path / "model/adapters/audio/config.json").read_text())
    assert said["shape"]["rank"] == 0


def test_a_run_may_start_from_a_model_with_a_shared_one(tmp_path, monkeypatch):
    model = perturbed()
    save_pretrained(model, tmp_path / "shared")
    monkeypatch.setattr("open_crema.backbones.load", lambda *_, **__: model.backbone)
    chosen = replace(model.config, qformer=replace(model.config.qformer, own="each"))
    run = Config(model=chosen, out=str(tmp_path / "out"))
    run = replace(run, train=replace(run.train, init=str(tmp_path / "shared")))
    built = build_model(run)
    given = batch(2)
    assert torch.allclose(built.eval()(given).logits, model(given).logits, atol=1e-5)
    # and not the other way
    save_pretrained(built, tmp_path / "each")
    back = replace(run, model=model.config)
    back = replace(back, train=replace(back.train, init=str(tmp_path / "each")))
    with pytest.raises(ConfigError, match=r"model\.qformer"):
        build_model(back)


def test_its_cost_is_a_qformer_a_sense():
    said = {"senses": ["video", "flow"], "qformer": {"own": "each"}, "fusion": {"kind": "concat"}}
    chosen = config.from_dict(said, schema=type(Config().model))
    shared = cost.count(replace(chosen, qformer=replace(chosen.qformer, own="shared")))
    each = cost.count(chosen)
    lora = sum(own.lora for own in shared.senses.values())
    assert each.trainable == shared.trainable - lora + 2 * shared.qformer
    assert each.frozen == shared.frozen - shared.qformer
    assert each.uncounted == {}


def test_what_has_its_own_is_not_given_another():
    model = tiny.crema(*SENSES, qformer={"own": "each"})
    before = model(batch(2)).logits
    model.own_qformers()
    assert torch.equal(model(batch(2)).logits, before)


def test_an_adapter_goes_with_its_qformer_to_models_of_its_kind_only(tmp_path):
    llm = tiny.backbone()
    shape = {"fusion": {"kind": "concat"}, "llm": llm, "stirred": False}
    each = save_pretrained(tiny.crema(*SENSES, qformer={"own": "each"}, **shape), tmp_path / "each")
    shared = tiny.crema("video", "flow", lora={"skip": ["audio"]}, **shape)
    save_pretrained(shared, tmp_path / "shared")
    export_adapter(each, "audio", tmp_path / "audio")
    expected = from_pretrained(each, backbone=llm)(batch(2)).logits
    remove_adapter(each, "audio")
    add_adapter(each, tmp_path / "audio")
    assert torch.equal(from_pretrained(each, backbone=llm)(batch(2)).logits, expected)
    with pytest.raises(WeightsError, match=r"own\."):
        add_adapter(tmp_path / "shared", tmp_path / "audio", force=True)


def test_the_released_code_has_no_such_model(tmp_path):
    model = tiny.crema("video", "audio", qformer={"own": "each"})
    save_pretrained(model, tmp_path / "each")
    with pytest.raises(ConfigError, match=r"a Q-Former a sense \(model\.qformer\.own=each\)"):
        to_official(tmp_path / "each", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_operations_and_memory_are_counted(tmp_path):
    llm = tiny.llama()
    llm.config.save_pretrained(tmp_path)
    said = {"senses": ["video", "flow"], "fusion": {"kind": "concat"}, "llm": str(tmp_path)}
    shared = config.from_dict({**said, "lora": {"skip": said["senses"]}}, schema=ModelConfig)
    each = config.from_dict({**said, "qformer": {"own": "each"}}, schema=ModelConfig)
    assert cost.operations(each).total == cost.operations(shared).total, "the same layers, run once"
    ones = [cost.training_memory(Config(model=model)) for model in (shared, each)]
    qformer = cost.count(shared).qformer
    assert ones[1].moments - ones[0].moments == 4 * 2 * 2 * qformer, "two moments of either sense"

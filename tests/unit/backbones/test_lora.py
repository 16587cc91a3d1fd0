"""A low-rank update merged into an LLM: as the PEFT library merges it, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from open_crema import backbones
from open_crema.backbones import lora
from open_crema.errors import WeightsError

BASE = "tiny"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """An update as PEFT saves it, not to be changed: of the second layer alone, all moved."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(4)
    config = peft.LoraConfig(
        r=3, lora_alpha=12, target_modules=["q_proj", "v_proj", "down_proj"],
        layers_to_transform=[1],
    )  # fmt: skip
    model = peft.get_peft_model(tiny.llama(), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.peft_config["default"].base_model_name_or_path = BASE
    folder = tmp_path_factory.mktemp("update")
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture
def update(written, tmp_path) -> Path:
    for name in (lora.CONFIG, lora.TENSORS):
        (tmp_path / name).write_bytes((written / name).read_bytes())
    return tmp_path


def configured(folder: Path, **changes: object) -> None:
    path = folder / lora.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_is_what_peft_makes_of_it(written):
    peft = pytest.importorskip("peft")
    expected = peft.PeftModel.from_pretrained(tiny.llama(), str(written)).merge_and_unload()
    expected = dict(expected.named_parameters())
    plain, ours = dict(tiny.llama().named_parameters()), tiny.llama()
    lora.merge(ours, written, base=BASE)
    changed = set()
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-5)
        if not torch.equal(weight, plain[name]):
            changed.add(name)
    inside = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    assert changed == {f"model.layers.1.{part}.weight" for part in inside}


def test_its_digest_is_of_the_tensors(update):
    first = lora.merge(tiny.llama(), update, base=BASE)
    assert first == lora.merge(tiny.llama(), update, base=BASE)
    tensors = load_file(update / lora.TENSORS)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, update / lora.TENSORS)
    assert lora.merge(tiny.llama(), update, base=BASE) != first


def test_an_update_of_another_llm(update):
    configured(update, base_model_name_or_path="other")
    with pytest.raises(WeightsError, match=r"an update of 'other', not of 'tiny'"):
        lora.merge(tiny.llama(), update, base=BASE)


@pytest.mark.parametrize("file", [lora.CONFIG, lora.TENSORS])
@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b"\xff\xfe"])
def test_what_cannot_be_read(update, file, content):
    if content is None:
        (update / file).unlink()
    else:
        (update / file).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{update}: no low-rank update that can be read"):
        lora.merge(tiny.llama(), update, base=BASE)


@pytest.mark.parametrize(
    "changes", [{"r": 0}, {"r": None}, {"lora_alpha": "much"}], ids=["0", "none", "text"]
)
def test_a_scale_that_is_none(update, changes):
    configured(update, **changes)
    with pytest.raises(WeightsError, match="no low-rank update that can be read"):
        lora.merge(tiny.llama(), update, base=BASE)


@pytest.mark.parametrize(
    "changes",
    [{"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"q_proj": 4}}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_sum_of_another_kind_is_not_taken_for_a_plain_one(update, changes):
    configured(update, **changes)
    with pytest.raises(WeightsError, match=f"{next(iter(changes))} is set; only a plain"):
        lora.merge(tiny.llama(), update, base=BASE)


def q_proj(folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    tensors = load_file(folder / lora.TENSORS)
    return tensors, next(n for n in tensors if n.endswith("q_proj.lora_A.weight"))


@pytest.mark.parametrize("wrong", ["name", "width", "height", "half"])
def test_tensors_that_do_not_fit_are_named(update, wrong):
    tensors, name = q_proj(update)
    b = name.replace("lora_A", "lora_B")
    said = name
    if wrong == "name":
        said = name.replace("q_proj", "x_proj")
        tensors[said] = tensors.pop(name)
    elif wrong == "width":
        tensors[name] = tensors[name][:, :-1].contiguous()
    elif wrong == "height":
        tensors[b] = tensors[b][:-1].contiguous()
    else:
        del tensors[b]
    save_file(tensors, update / lora.TENSORS)
    with pytest.raises(WeightsError, match=rf"{said} does not fit the LLM; make the update"):
        lora.merge(tiny.llama(), update, base=BASE)


@pytest.mark.parametrize("extra", ["base_model.model.lm_head.weight", "half"])
def test_no_tensor_is_left_out_in_silence(update, extra):
    tensors, name = q_proj(update)
    if extra == "half":
        del tensors[name]
        extra = name.replace("lora_A", "lora_B")
    else:
        tensors[extra] = torch.zeros(2, 2)
    save_file(tensors, update / lora.TENSORS)
    with pytest.raises(WeightsError, match=rf"{extra} is no part of a plain"):
        lora.merge(tiny.llama(), update, base=BASE)


@pytest.fixture
def stock(monkeypatch) -> None:
    """The LLM of the embedded scale, but tiny."""
    monkeypatch.setattr(backbones.smollm2, "load", lambda: (tiny.llama(), tiny.TinyTokenizer()))
    monkeypatch.setattr(backbones.weights, "fingerprint", lambda name: "of the stock")


def test_a_folder_of_an_update_is_an_llm_of_its_own(update, stock):
    configured(update, base_model_name_or_path=backbones.STOCK)
    plain = backbones.load(backbones.STOCK, dropout=0.1)
    tuned = backbones.load(str(update), dropout=0.1)
    expected = tiny.llama()
    lora.merge(expected, update, base=backbones.STOCK)
    assert all(
        torch.equal(a, b)
        for a, b in zip(tuned.llm.parameters(), expected.parameters(), strict=True)
    )
    assert not any(p.requires_grad for p in tuned.parameters())
    assert plain.fingerprint == "of the stock"
    assert tuned.fingerprint not in ("", plain.fingerprint)
    assert tuned.fingerprint == backbones.load(str(update)).fingerprint
    layer = tuned.llm.model.layers[0].self_attn
    assert (tuned.llm.config.attention_dropout, layer.attention_dropout) == (0.1, 0.1)


def test_another_update_has_another_fingerprint(update, stock):
    configured(update, base_model_name_or_path=backbones.STOCK)
    first = backbones.load(str(update)).fingerprint
    tensors, name = q_proj(update)
    tensors[name] = tensors[name] + 0.1
    save_file(tensors, update / lora.TENSORS)
    assert backbones.load(str(update)).fingerprint != first


def test_a_folder_of_an_update_that_does_not_fit(update, stock):
    with pytest.raises(WeightsError, match=rf"{update}: an update of 'tiny', not of 'smollm2-135m"):
        backbones.load(str(update))

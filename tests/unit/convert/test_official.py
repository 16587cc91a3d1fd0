"""The released layout in and out, on random tensors under its names."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

import faults
from open_crema import backbones, convert
from open_crema.convert.official import Layout
from open_crema.encoders.beats import Beats
from open_crema.errors import ConfigError, WeightsError
from open_crema.media import Audio
from open_crema.model.files import read_model
from reference.weights import random_beats, random_vit, random_weights

SIZE = {
    "num_query": 6,
    "rank": 3,
    "width": 40,
    "qf": {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 9,
    },
    "t5": {
        "vocab_size": 50,
        "d_model": 20,
        "d_kv": 5,
        "d_ff": 28,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
    },
    "beats": {"encoder_embed_dim": 12},
}
ORDER = ("rgb", "pc", "depth", "norm")
LAYOUT = Layout(heads=2, vision_heads=2)
DEAD = {
    "rgb_gradsel_embed": torch.zeros(1, 5),
    "pc_gradsel_embed": torch.zeros(1, 5),
    "ln_pc.weight": torch.ones(40),
    "ln_pc.bias": torch.zeros(40),
}


def tensors(order=ORDER, task="espresso-concat", seed=0, **more):
    found = random_weights(SIZE, order, task, torch.Generator().manual_seed(seed))
    if "pc" in order:
        found |= DEAD
    return {**found, **more}


@pytest.fixture
def saved(tmp_path):
    def save(found, name="in.pth", **around):
        torch.save({"model": found, "epoch": 3, **around}, tmp_path / name)
        return tmp_path / name

    return save


def live(found):
    return {
        n: t
        for n, t in found.items()
        if n not in DEAD and n != "Qformer.bert.embeddings.position_ids"
    }


def back(model, tmp_path):
    convert.to_official(model, tmp_path / "out.pth")
    return torch.load(tmp_path / "out.pth", weights_only=True)["model"]


def assert_same(found, expected):
    assert set(found) == set(expected), set(found) ^ set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


CASES = {
    "all": (ORDER, "espresso-concat"),
    "another order": (("rgb", "norm", "pc", "depth"), "espresso-concat"),
    "video second": (("depth", "rgb", "flow"), "espresso-concat"),
    "audio": (("rgb", "audio"), "concat"),
    "audio fused": (("rgb", "audio", "flow"), "espresso-concat"),
    "video alone": (("rgb",), "concat"),
    "audio alone": (("audio",), "concat"),
    "points alone": (("pc",), "concat"),
}


@pytest.mark.parametrize(("order", "task"), CASES.values(), ids=CASES)
def test_there_and_back_is_bit_exact_on_every_live_tensor(order, task, saved, tmp_path):
    found = {**tensors(order, task), **random_vit(width=40)}
    report = convert.from_official(saved(found), tmp_path / "model", order, layout=LAYOUT)
    assert set(report.dropped) == set(found) - set(live(found))
    assert report.converted == len(live(found))
    assert_same(back(tmp_path / "model", tmp_path), live(found))


def test_a_modality_without_lora_keeps_none(saved, tmp_path):
    found = tensors(("rgb", "depth", "flow"))
    order = ("rgb-skip", "depth", "flow")
    report = convert.from_official(saved(found), tmp_path / "model", order, layout=LAYOUT)
    skipped = {n for n in found if n.endswith(("_a_rgb.weight", "_b_rgb.weight"))}
    assert len(skipped) == 2 * 2 * SIZE["qf"]["num_hidden_layers"]
    assert skipped <= set(report.dropped)
    kept = {n: t for n, t in live(found).items() if n not in skipped}
    assert_same(back(tmp_path / "model", tmp_path), kept)


def test_other_precisions_come_back(saved, tmp_path):
    found = {
        n: t.half() if n.startswith("Qformer") and t.is_floating_point() else t
        for n, t in tensors().items()
    }
    found |= {n: t.bfloat16() for n, t in found.items() if n.startswith("t5_model")}
    convert.from_official(saved(found), tmp_path / "model", ORDER, layout=LAYOUT)
    assert_same(back(tmp_path / "model", tmp_path), live(found))


def test_sizes_are_read_off_the_tensors(saved, tmp_path):
    convert.from_official(saved(tensors()), tmp_path / "model", ORDER, layout=LAYOUT)
    said = read_model(tmp_path / "model").config
    q = said.qformer
    assert (q.layers, q.width, q.heads, q.ffn, q.queries) == (3, 24, 2, 32, 6)
    assert (q.encoder_width, q.cross_every, said.lora.rank) == (40, 2, 3)
    assert (said.fusion.kind, said.fusion.placement) == ("self-gated", "append")
    assert said.prompt.layout == "reference"
    assert said.senses == ("video", "point", "depth", "normal")


def test_the_llm_is_a_folder_that_transformers_reads(saved, tmp_path):
    found = tensors()
    convert.from_official(saved(found), tmp_path / "model", ORDER, layout=LAYOUT)
    folder = tmp_path / "model/llm"
    llm, info = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert (llm.config.d_kv, llm.config.num_decoder_layers) == (5, 1)
    for name, tensor in llm.state_dict().items():
        assert torch.equal(tensor, found[f"t5_model.{name}"]), name
    assert read_model(tmp_path / "model").base.llm == backbones.fingerprint_of(folder)


def test_what_does_not_fit_is_all_listed_and_may_be_allowed(saved, tmp_path):
    found = tensors()
    del found["ln_depth.bias"]
    found["query_tokens_touch"] = torch.zeros(1, 6, 24)
    found["t5_proj_norm.bias"] = torch.zeros(7)
    path = saved(found)
    with pytest.raises(WeightsError) as error:
        convert.from_official(path, tmp_path / "model", ORDER, layout=LAYOUT)
    for part in (
        "missing ln_depth.bias",
        "unexpected query_tokens_touch",
        "t5_proj_norm.bias is [7], expected [20]",
        "in.pth: 3 keys",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "model").exists()
    allow = ("ln_depth.bias", "query_tokens_*", "t5_proj_norm.bias")
    layout = Layout(heads=2, vision_heads=2, allow=allow)
    report = convert.from_official(path, tmp_path / "model", ORDER, layout=layout)
    assert report.missing == ("ln_depth.bias", "t5_proj_norm.bias")
    assert report.unexpected == ("query_tokens_touch",)


def test_frozen_parts_are_checked_as_well(saved, tmp_path):
    found = {**tensors(), **random_vit(width=40)}
    for gone in ("t5_model.encoder.final_layer_norm.weight", "visual_encoder.blocks.1.norm2.bias"):
        del found[gone]
    found["t5_model.decoder.final_layer_norm.weight"] = torch.zeros(3)
    found["visual_encoder.pos_embed"] = torch.zeros(1, 18, 40)
    found["visual_encoder.head.weight"] = torch.zeros(2)
    found["audio_encoder.scale"] = torch.zeros(1)
    del found["ln_depth.bias"]
    path = saved(found)
    with pytest.raises(WeightsError) as error:
        convert.from_official(path, tmp_path / "model", ORDER, layout=LAYOUT)
    for part in (
        "7 keys",
        "missing ln_depth.bias",
        "missing t5_model.encoder.final_layer_norm.weight",
        "missing visual_encoder.blocks.1.norm2.bias",
        "t5_model.decoder.final_layer_norm.weight is [3], expected [20]",
        "visual_encoder.pos_embed is [1, 18, 40], expected [1, 17, 40]",
        "unexpected visual_encoder.head.weight",
        "unexpected audio_encoder.scale",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "model").exists()


def test_what_the_frozen_parts_do_not_know_may_be_allowed(saved, tmp_path):
    extra = ("visual_encoder.head.weight", "t5_model.extra")
    found = {**tensors(), **random_vit(width=40)}
    path = saved({**found, **dict.fromkeys(extra, torch.zeros(2))})
    layout = Layout(heads=2, vision_heads=2, allow=extra)
    report = convert.from_official(path, tmp_path / "model", ORDER, layout=layout)
    assert set(report.unexpected) == set(extra)
    assert report.converted == len(live(found))
    assert_same(back(tmp_path / "model", tmp_path), live(found))


def test_without_what_measures_the_frozen_parts_they_are_named_too(saved, tmp_path):
    found = {**tensors(), **random_vit(width=40)}
    del found["t5_model.shared.weight"]
    del found["visual_encoder.patch_embed.proj.weight"]
    with pytest.raises(WeightsError) as error:
        convert.from_official(saved(found), tmp_path / "model", ORDER, layout=LAYOUT)
    assert "missing t5_model.shared.weight" in str(error.value)
    assert "missing visual_encoder.patch_embed.proj.weight" in str(error.value)
    layout = Layout(heads=2, vision_heads=3)
    with pytest.raises(WeightsError, match="--vision-heads is wrong"):
        convert.from_official(
            saved({**tensors(), **random_vit(width=40)}), tmp_path / "model", ORDER, layout=layout
        )


def test_beats_is_checked_and_comes_back(saved, tmp_path):
    order = ("rgb", "audio")
    sound = {f"audio_encoder.model.{n}": t for n, t in random_beats(width=12).items()}
    found = {**tensors(order, "concat"), **sound}
    convert.from_official(saved(found), tmp_path / "model", order, layout=LAYOUT)
    assert_same(back(tmp_path / "model", tmp_path), live(found))
    folder = tmp_path / "model/encoders/beats-iter3"
    assert read_model(tmp_path / "model").config.encoders.audio == str(folder)
    track = Audio(np.zeros(16_000, np.float32), 16_000)
    assert Beats(folder)(track).tokens.shape[2] == 12
    gone = "audio_encoder.model.encoder.layers.1.fc2.bias"
    path = saved({n: t for n, t in found.items() if n != gone} | {f"{gone}es": torch.zeros(1)})
    with pytest.raises(WeightsError) as error:
        convert.from_official(path, tmp_path / "other", order, layout=LAYOUT)
    assert f"missing {gone}" in str(error.value)
    assert f"unexpected {gone}es" in str(error.value)


def test_a_full_disk_leaves_nothing_and_says_so(saved, tmp_path):
    """At the first, second, fourth, ... of the things that it does to files."""
    path = saved({**tensors(("rgb",), "concat"), **random_vit(width=40)})
    convert.from_official(path, tmp_path / "whole", ("rgb",), layout=LAYOUT)

    def there():
        convert.from_official(path, tmp_path / "out/model", ("rgb",), layout=LAYOUT)

    def back():
        convert.to_official(tmp_path / "whole", tmp_path / "out/back.pth")

    for work in (there, back):
        code, at = 2, 0
        while code == 2:
            (tmp_path / "out").mkdir()
            at += 1 + at  # not each of them: a conversion does many
            code = faults.full_disk(work, at=at)
            assert code in (0, 2), at
            left = list((tmp_path / "out").iterdir())
            assert code == 0 or not left, (at, left)
            shutil.rmtree(tmp_path / "out")
        assert at > 2


def test_trained_tensors_alone_need_the_others(saved, tmp_path):
    """The released training saves nothing frozen."""
    whole = tensors()
    trained = {
        n: t + 1
        for n, t in whole.items()
        if n.startswith(("query_tokens", "t5_proj", "ln_", "fusion")) or ".w_" in n
    }
    path = saved(trained, "trained.pth")
    with pytest.raises(WeightsError, match="--base"):
        convert.from_official(path, tmp_path / "model", ORDER, layout=LAYOUT)
    first = saved(whole, "whole.pth")
    convert.from_official(path, tmp_path / "one", ORDER, base=first, layout=LAYOUT)
    assert_same(back(tmp_path / "one", tmp_path), live({**whole, **trained}))
    convert.from_official(first, tmp_path / "base", ORDER, layout=LAYOUT)
    convert.from_official(path, tmp_path / "two", ORDER, base=tmp_path / "base", layout=LAYOUT)
    assert_same(back(tmp_path / "two", tmp_path), live({**whole, **trained}))


def test_bad_files_and_orders_say_what_is_wrong(saved, tmp_path):
    path = saved(tensors())
    with pytest.raises(ConfigError, match="no modality 'dept': did you mean 'depth'"):
        convert.from_official(path, tmp_path / "m", ("rgb", "dept"))
    with pytest.raises(ConfigError, match="once"):
        convert.from_official(path, tmp_path / "m", ("rgb", "rgb"))
    with pytest.raises(WeightsError, match="unexpected query_tokens_norm"):
        convert.from_official(path, tmp_path / "m", ("rgb", "pc", "depth"), layout=LAYOUT)
    with pytest.raises(WeightsError, match="no such file"):
        convert.from_official(tmp_path / "none.pth", tmp_path / "m", ORDER)
    (tmp_path / "bad.pth").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(WeightsError, match=r"bad\.pth: damaged"):
        convert.from_official(tmp_path / "bad.pth", tmp_path / "m", ORDER)
    torch.save({"model": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        convert.from_official(tmp_path / "list.pth", tmp_path / "m", ORDER)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="choose another folder"):
        convert.from_official(path, tmp_path / "full", ORDER, layout=LAYOUT)


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_would_run_code_is_not_read(tmp_path, capsys):
    torch.save({"model": {"a": torch.zeros(1)}, "config": Code()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="could run code"):
        convert.from_official(tmp_path / "evil.pth", tmp_path / "m", ORDER)
    assert "run" not in capsys.readouterr().out


def test_large_models_are_written_in_shards(saved, tmp_path, monkeypatch):
    from open_crema.convert import frozen

    monkeypatch.setattr(frozen, "_SHARD", 6000)
    found = tensors()
    convert.from_official(saved(found), tmp_path / "model", ORDER, layout=LAYOUT)
    index = json.loads((tmp_path / "model/llm/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    sizes = [
        sum(t.nbytes for t in load_file(f).values())
        for f in (tmp_path / "model/llm").glob("*.safetensors")
    ]
    assert max(sizes) <= 6000
    T5ForConditionalGeneration.from_pretrained(tmp_path / "model/llm")
    assert_same(back(tmp_path / "model", tmp_path), live(found))

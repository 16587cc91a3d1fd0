"""A lone BEATs in the published layout, on random tensors under its names."""

import json
import shutil

import numpy as np
import pytest
import torch

import faults
from open_crema import cli, convert
from open_crema.config import EncodersConfig
from open_crema.encoders import registry
from open_crema.encoders.beats import BeatsModel, spectrogram
from open_crema.errors import ConfigError, WeightsError
from open_crema.media import Audio
from reference.weights import random_beats

# As that of BEATs_iter3_plus_AS2M.pt, but for the sizes, which are those of random_beats.
CFG = {
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 40,
    "encoder_attention_heads": 3,
    "activation_fn": "gelu",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "layer_norm_first": False,
    "conv_bias": False,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 800,
    "gru_rel_pos": True,
    "deep_norm": True,
    "input_patch_size": 16,
    "layer_wise_gradient_decay_ratio": 0.6,
    "embed_dim": 16,
    "finetuned_model": False,
}
HEAD = {"predictor.weight": torch.ones(5, 24), "predictor.bias": torch.zeros(5)}
PLACES = "encoder.layers.1.self_attn.relative_attention_bias.weight"


@pytest.fixture
def saved(tmp_path):
    def save(model=None, cfg=CFG, **around):
        content = {"cfg": cfg, "model": random_beats() if model is None else model, **around}
        torch.save(content, tmp_path / "in.pt")
        return tmp_path / "in.pt"

    return save


def track(seconds=1.5):
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000))
    return Audio(samples.astype(np.float32), 16_000)


def heard(folder):
    """What the folder's encoder makes of two windows of 0.64 s from the start."""
    config = EncodersConfig(
        audio=str(folder), audio_window=0.64, audio_max_windows=2, audio_windows="start"
    )
    return registry.build(str(folder), config)(track())


def test_the_folders_features_are_the_checkpoints_to_the_last_bit(saved, tmp_path):
    tensors = random_beats()
    report = convert.from_beats(saved(tensors), tmp_path / "out")
    assert (report.converted, report.dropped, report.unexpected) == (len(tensors), (), ())
    model = BeatsModel(tensors).eval()
    model.load_state_dict(tensors)
    windows = spectrogram(track().samples)[:128].view(2, 64, 128)
    with torch.inference_mode():
        expected = torch.cat([model(window[None]) for window in windows])
    found = heard(tmp_path / "out")
    assert found.mask.all()
    assert torch.equal(found.tokens, expected)


def test_the_folder_says_what_it_is(saved, tmp_path):
    convert.from_beats(saved(), tmp_path / "out")
    said = json.loads((tmp_path / "out/config.json").read_text())
    assert said["model_type"] == "beats"
    assert {name: said[name] for name in said if name != "model_type"}.items() <= CFG.items()
    assert (said["encoder_layers"], said["max_distance"]) == (2, 800)
    spec = registry.spec(str(tmp_path / "out"))
    assert (spec.kind, spec.width) == ("audio", 24)


def test_half_precision_stays_half(saved, tmp_path):
    half = {name: tensor.half() for name, tensor in random_beats().items()}
    convert.from_beats(saved(half), tmp_path / "out")
    model = BeatsModel(half)
    model.load_state_dict(half)  # into full precision
    with torch.inference_mode():
        expected = model.eval()(spectrogram(track().samples)[None, :64])
    assert torch.equal(heard(tmp_path / "out").tokens[:1], expected)
    size = (tmp_path / "out/model.safetensors").stat().st_size
    assert size < 3 * sum(t.numel() for t in half.values())


def test_a_fine_tuned_one_loses_its_head_and_says_so(saved, tmp_path, capsys):
    cfg = {**CFG, "finetuned_model": True, "predictor_class": 5, "predictor_dropout": 0.0}
    path = saved({**random_beats(), **HEAD}, cfg, label_dict={0: "/m/09x0r"})
    assert cli.main(["convert", "beats", str(path), str(tmp_path / "tuned")]) == 0
    said = capsys.readouterr().out
    assert "2 dropped, not used by the method: predictor.bias, predictor.weight" in said
    assert f"model.encoders.audio={tmp_path / 'tuned'}" in said
    convert.from_beats(saved(), tmp_path / "plain")
    assert torch.equal(heard(tmp_path / "tuned").tokens, heard(tmp_path / "plain").tokens)


def test_what_does_not_fit_is_all_listed_and_nothing_is_written(saved, tmp_path):
    tensors = random_beats()
    del tensors["encoder.layers.1.fc2.bias"]
    tensors["encoder.layers.0.fc1.weight"] = torch.zeros(40, 23)
    tensors["quantize.embedding"] = torch.zeros(2)
    path = saved(tensors, {**CFG, "max_distance": 1280})
    with pytest.raises(WeightsError) as error:
        convert.from_beats(path, tmp_path / "out")
    for part in (
        "in 4 places",
        "cfg.max_distance is 1280, expected 800",
        "missing encoder.layers.1.fc2.bias",
        "encoder.layers.0.fc1.weight is [40, 23], expected [40, 24]",
        "unexpected quantize.embedding",
    ):
        assert part in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pt"]


def test_the_configuration_tells_what_a_part_of_it_lacks(saved, tmp_path):
    """Of its own tensors alone, a BEATs without its last layers looks whole."""
    first = {n: t for n, t in random_beats().items() if not n.startswith("encoder.layers.1.")}
    with pytest.raises(WeightsError, match=r"missing encoder\.layers\.1\.fc1\.bias"):
        convert.from_beats(saved(first), tmp_path / "out")
    convert.from_beats(saved(first, {**CFG, "encoder_layers": 1}), tmp_path / "out")


def test_unexpected_keys_alone_may_be_allowed(saved, tmp_path, capsys):
    extra = {"mask_emb": torch.zeros(3), "quantize.a": torch.zeros(2)}
    path = saved({**random_beats(), **extra})
    given = ["convert", "beats", str(path), str(tmp_path / "out")]
    assert cli.main([*given, "--allow", "mask_emb", "--allow", "quantize.*"]) == 0
    assert "2 unexpected, left out: mask_emb, quantize.a" in capsys.readouterr().out
    short = random_beats()
    del short["layer_norm.bias"]
    with pytest.raises(WeightsError, match=r"missing layer_norm\.bias"):
        convert.from_beats(saved(short), tmp_path / "other", allow=["*"])


WRONG = {
    "a size that is none": ({"conv_pos": "8"}, r"cfg\.conv_pos is '8', expected a number from 1"),
    "heads that do not divide": (
        {"encoder_attention_heads": 5},
        r"no multiple of cfg\.encoder_att",
    ),
    "groups that do not divide": ({"conv_pos_groups": 7}, r"no multiple of cfg\.conv_pos_groups"),
    "another network": ({"activation_fn": "glu"}, r"cfg\.activation_fn is 'glu'"),
}


@pytest.mark.parametrize(("changed", "message"), WRONG.values(), ids=WRONG)
def test_a_configuration_of_another_network_is_refused(changed, message, saved, tmp_path):
    with pytest.raises(WeightsError, match=message):
        convert.from_beats(saved(cfg={**CFG, **changed}), tmp_path / "out")


def test_what_a_configuration_leaves_out_is_as_the_published_class_has_it(saved, tmp_path):
    """Which does without DeepNet's sum, and reaches 1280."""
    short = {n: v for n, v in CFG.items() if n not in ("deep_norm", "max_distance", "conv_bias")}
    with pytest.raises(WeightsError) as error:
        convert.from_beats(saved(cfg=short), tmp_path / "out")
    assert "in 2 places" in str(error.value)
    assert "cfg.deep_norm is False, expected True" in str(error.value)
    assert "cfg.max_distance is 1280, expected 800" in str(error.value)


def test_layers_that_do_not_share_their_places_are_refused(saved, tmp_path):
    apart = {**random_beats(), PLACES: torch.ones(32, 3)}
    with pytest.raises(WeightsError, match="not a BEATs"):
        convert.from_beats(saved(apart), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pt"]


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_bad_files_and_places_say_what_is_wrong(saved, tmp_path, capsys):
    path = saved()
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(WeightsError, match=r"half\.pt: damaged"):
        convert.from_beats(tmp_path / "half.pt", tmp_path / "out")
    with pytest.raises(WeightsError, match="no such file"):
        convert.from_beats(tmp_path / "none.pt", tmp_path / "out")
    with pytest.raises(WeightsError, match="could run code"):
        convert.from_beats(saved(label_dict=Code()), tmp_path / "out")
    assert "run\n" not in capsys.readouterr().out
    torch.save({"model": random_beats()}, tmp_path / "bare.pt")
    with pytest.raises(WeightsError, match="no configuration under 'cfg'"):
        convert.from_beats(tmp_path / "bare.pt", tmp_path / "out")
    with pytest.raises(WeightsError, match="no state dict"):
        convert.from_beats(saved(model=[1]), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="choose another folder"):
        convert.from_beats(saved(), tmp_path / "full")


def test_a_full_disk_leaves_nothing_and_says_so(saved, tmp_path):
    path = saved()
    code, at, ends = 2, 0, []
    while code == 2:
        (tmp_path / "out").mkdir()
        at += 1
        code = faults.full_disk(lambda: convert.from_beats(path, tmp_path / "out/beats"), at=at)
        assert code in (0, 2), at
        left = [place.name for place in (tmp_path / "out").iterdir()]
        if left and code == 2:  # it was in its place, and could not wait for that to be on the disk
            assert left == ["beats"], (at, left)
            assert heard(tmp_path / "out/beats").tokens.isfinite().all()
            shutil.rmtree(tmp_path / "out/beats")
            ends.append(at)
        shutil.rmtree(tmp_path / "out")
    assert at > 5
    assert ends == [at - 1]


def test_killed_at_any_moment_there_is_no_half_of_a_folder(saved, tmp_path):
    path, place = saved(), tmp_path / "out/beats"
    at = 1
    while faults.killed(lambda: convert.from_beats(path, place), at=at):
        if place.exists():  # it had been complete
            assert heard(place).tokens.isfinite().all()
            shutil.rmtree(tmp_path / "out")
        else:
            convert.from_beats(path, place)  # sweeps what the dead one left
            assert [p.name for p in (tmp_path / "out").iterdir()] == ["beats"]
            shutil.rmtree(tmp_path / "out")
        at += 1
    assert at > 5

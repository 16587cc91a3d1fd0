"""BEATs from a folder: windows, masks, sizes; the network itself is in tests/golden."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from open_crema import modality
from open_crema.config import EncodersConfig
from open_crema.encoders import registry
from open_crema.encoders.beats import BeatsModel, spectrogram
from open_crema.errors import ConfigError, MediaError
from open_crema.media import Audio
from open_crema.storage import write_json


def weights(width=24, patches=16, heads=3, layers=2):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator) * 0.2

    found = {
        "patch_embedding.weight": normal(patches, 1, 16, 16),
        "layer_norm.weight": torch.ones(patches),
        "layer_norm.bias": normal(patches),
        "post_extract_proj.weight": normal(width, patches),
        "post_extract_proj.bias": normal(width),
        "encoder.pos_conv.0.bias": normal(width),
        "encoder.pos_conv.0.weight_g": torch.ones(1, 1, 8),
        "encoder.pos_conv.0.weight_v": normal(width, width // 4, 8),
        "encoder.layer_norm.weight": torch.ones(width),
        "encoder.layer_norm.bias": normal(width),
    }
    places = normal(32, heads)
    for i in range(layers):
        at = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found[f"{at}.self_attn.{name}.weight"] = normal(width, width)
            found[f"{at}.self_attn.{name}.bias"] = normal(width)
        found[f"{at}.self_attn.relative_attention_bias.weight"] = places.clone()
        found[f"{at}.self_attn.grep_linear.weight"] = normal(8, width // heads)
        found[f"{at}.self_attn.grep_linear.bias"] = normal(8)
        found[f"{at}.self_attn.grep_a"] = torch.ones(1, heads, 1, 1)
        for name, shape in (("fc1", (40, width)), ("fc2", (width, 40))):
            found[f"{at}.{name}.weight"] = normal(*shape)
            found[f"{at}.{name}.bias"] = normal(shape[0])
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            found[f"{at}.{name}.weight"] = torch.ones(width)
            found[f"{at}.{name}.bias"] = normal(width)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("beats")
    save_file(weights(), place / "model.safetensors")
    write_json(place / "config.json", {"model_type": "beats"})
    return place


def encoder(folder, **given):
    config = EncodersConfig(audio=str(folder), audio_window=0.64, **given)
    return registry.build(str(folder), config)


def track(seconds, start=0.0):
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * 16_000))
    return Audio(samples.astype(np.float32), 16_000, start)


def test_a_folder_is_an_audio_encoder_of_its_size(folder):
    spec = registry.spec(str(folder))
    repeated = weights()["encoder.layers.1.self_attn.relative_attention_bias.weight"].numel()
    count = sum(t.numel() for t in weights().values()) - repeated
    assert (spec.kind, spec.width, spec.parameters) == ("audio", 24, count)
    with pytest.raises(ConfigError, match="of the kind 'audio'"):
        registry.width_for(modality.get("video"), EncodersConfig(vision=str(folder)))


def test_the_whole_track_is_heard_and_its_rest_masked(folder):
    found = encoder(folder)(track(1.77, start=3.0))
    assert found.tokens.shape == (3, 4 * 8, 24)
    assert found.mask[:2].all()
    assert found.mask[2].view(4, 8).all(dim=1).tolist() == [True, True, True, False]
    expected = torch.tensor([[3.0, 3.64], [3.64, 4.28], [4.28, 4.77]], dtype=torch.float64)
    assert torch.allclose(found.times, expected)
    assert found.tokens.isfinite().all()


def test_a_long_track_has_evenly_spaced_windows(folder):
    found = encoder(folder, audio_max_windows=3)(track(6.0))
    assert found.times[:, 0].tolist() == pytest.approx([0.68, 2.68, 4.68])
    assert found.mask.all()


def test_the_released_codes_windows_are_of_the_start_and_never_masked(folder):
    given = {"audio_windows": "start", "audio_max_windows": 2}
    long, short = (encoder(folder, **given)(track(s)) for s in (6.0, 0.7))
    assert long.tokens.shape == short.tokens.shape == (2, 32, 24)
    assert short.mask.all()
    assert long.times[:, 0].tolist() == [0.0, 0.64]
    same = encoder(folder, **given)(track(6.0))
    assert torch.equal(long.tokens, same.tokens)
    assert not torch.equal(short.tokens[1], long.tokens[1])


def test_a_window_does_not_depend_on_the_others(folder):
    whole = encoder(folder)(track(1.28))
    first = encoder(folder)(Audio(track(1.28).samples[: 16_000 * 66 // 100], 16_000, 0.0))
    assert whole.tokens.shape[0] == 2
    assert torch.allclose(whole.tokens[0], first.tokens[0], atol=1e-5)


def test_spectrogram_has_a_frame_every_ten_milliseconds_and_its_scale():
    found = spectrogram(track(1.0).samples)
    assert found.shape == (98, 128)
    silent = spectrogram(np.zeros(16_000, np.float32))
    floor = np.log(np.finfo(np.float32).eps)
    assert torch.allclose(silent, torch.full_like(silent, (floor - 15.41663) / 13.11164), atol=1e-4)
    assert spectrogram(np.zeros(10, np.float32)).shape == (1, 128)
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    assert (
        40 <= int(spectrogram(tone).mean(dim=0).argmax()) <= 52
    )  # 1 kHz of 20 Hz to 8 kHz, in mel


def test_spectrogram_is_kaldis_in_plain_words():
    sound = track(0.1).samples.astype(np.float64) * 2**15
    found = spectrogram(track(0.1).samples) * 13.11164 + 15.41663
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(20.0), mel(8000.0), 130)
    for frame in (0, 3, 7):
        own = sound[frame * 160 : frame * 160 + 400]
        own = own - own.mean()
        own = own - 0.97 * np.concatenate([own[:1], own[:-1]])
        power = np.abs(np.fft.rfft(own * window, 512)) ** 2
        for band in (10, 60, 127):
            left, middle, right = edges[band : band + 3]
            place = mel(np.arange(257) * 31.25)
            up, down = (place - left) / (middle - left), (right - place) / (right - middle)
            energy = power @ np.clip(np.minimum(up, down), 0, None)
            expected = np.log(max(energy, np.finfo(np.float32).eps))
            assert float(found[frame, band]) == pytest.approx(expected, abs=1e-3)


def test_bad_sound_and_bad_folders_are_refused(folder, tmp_path):
    with pytest.raises(MediaError, match="0 samples"):
        encoder(folder)(Audio(np.zeros(0, np.float32), 16_000, 0.0))
    with pytest.raises(MediaError, match="not finite"):
        encoder(folder)(Audio(np.full(16_000, np.nan, np.float32), 16_000, 0.0))
    write_json(tmp_path / "config.json", {"model_type": "beats"})
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="not a BEATs"):
        registry.spec(str(tmp_path))


def test_bf16_weights_are_used_in_full_precision(folder, tmp_path):
    half = {n: t.bfloat16() for n, t in weights().items()}
    save_file(half, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"model_type": "beats"})
    found = encoder(tmp_path)(track(0.64)).tokens
    model = BeatsModel(half)
    model.load_state_dict(half)
    expected = encoder(folder)(track(0.64)).tokens
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.2

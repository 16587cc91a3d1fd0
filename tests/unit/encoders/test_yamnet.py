"""YAMNet: the front end is the published one, windows cover the track, known sounds are named."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_crema import weights
from open_crema.encoders import yamnet
from open_crema.encoders.yamnet import Yamnet, log_mel
from open_crema.errors import MediaError
from open_crema.media import Audio, read_audio

ESC10 = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "media" / "esc10_16k"
needs_weights = pytest.mark.skipif(
    weights.state(yamnet.NAME) != "ready",
    reason=f"{yamnet.NAME} is not in the cache; run `{weights.FETCH_COMMAND}`",
)


def sound(seconds, seed=0, start=0.0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * 16000)) * 0.1
    return Audio(samples.astype(np.float32), 16000, start)


def tone(hertz, seconds=2.0):
    at = np.arange(round(seconds * 16000)) / 16000
    return Audio((0.3 * np.sin(2 * np.pi * hertz * at)).astype(np.float32), 16000)


class LoudnessSession:
    """Stands for the network: every feature of a token is the mean log mel of its 0.32 s."""

    def run(self, _outputs, feed):
        mel = feed["audio"]
        assert mel.shape[1:] == (1, 96, 64)
        assert mel.dtype == np.float32
        steps = mel.reshape(len(mel), 1, 3, 32, 2, 32).mean(axis=(3, 5))
        return [np.broadcast_to(steps, (len(mel), 1024, 3, 2)).copy()]


@pytest.fixture
def loudness():
    """The encoder over the stand-in, which needs no download."""
    return with_stand_in()


def with_stand_in(**options):
    encoder = Yamnet(**options)
    encoder._session = LoudnessSession()
    return encoder


def test_log_mel_is_the_definition_written_out():
    samples = np.random.default_rng(0).standard_normal(1000)
    found = log_mel(torch.tensor(samples, dtype=torch.float32)[None])[0]
    assert found.shape == (1 + (1000 - 400) // 160, 64)

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    corners = [mel(125) + i * (mel(7500) - mel(125)) / 65 for i in range(66)]
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    for frame, band in [(0, 0), (1, 10), (2, 40), (3, 63)]:
        piece = np.array(window) * samples[160 * frame : 160 * frame + 400]
        total = 0.0
        for k in range(257):
            at = mel(k * 8000 / 256)
            low, middle, high = corners[band : band + 3]
            weight = max(0.0, min((at - low) / (middle - low), (high - at) / (high - middle)))
            if weight:
                wave = np.exp(-2j * np.pi * k * np.arange(400) / 512)
                total += weight * abs((piece * wave).sum())
        assert found[frame, band].item() == pytest.approx(math.log(total + 0.001), abs=1e-4)


def test_log_mel_of_silence_is_the_offset():
    assert log_mel(torch.zeros(2, 400)) == pytest.approx(math.log(0.001), abs=1e-6)


@settings(max_examples=40)
@given(
    samples=st.integers(1, 16000 * 90),
    window=st.sampled_from([0.96, 1.0, 2.5, 5.0, 10.0]),
    most=st.integers(1, 12),
)
def test_windows_cover_the_track(samples, window, most):
    encoder = with_stand_in(window=window, max_windows=most)
    duration = samples / 16000
    found = encoder(Audio(np.zeros(samples, dtype=np.float32), 16000, 2.0))
    starts, ends = (found.times - 2.0).T
    patches = math.ceil(round(window / 0.96, 6))
    assert found.tokens.shape == (len(starts), patches * 6, 1024)
    assert len(starts) <= most
    assert starts.min() >= 0
    assert (ends > starts).all()
    assert (ends - starts <= window + 1e-9).all()
    holes = torch.cat([starts, ends.new_tensor([duration])]) - torch.cat([ends.new_zeros(1), ends])
    if duration <= window * most + 0.48:
        assert holes[:-1].abs().max() < 1e-9
        assert -1e-9 <= holes[-1] < 0.48 + 1e-9
    else:
        assert holes[0] == pytest.approx(holes[-1].item(), abs=1e-6)
        torch.testing.assert_close(holes[1:-1], (2 * holes[0]).expand(most - 1))
    full = (ends - starts) >= window - 1e-9
    assert found.mask[full].all()
    assert found.mask[:, 0].all()


def test_a_short_last_window_is_masked_past_the_end(loudness):
    found = loudness(sound(7.0))
    assert found.times.tolist() == [[0.0, 5.0], [5.0, 7.0]]
    assert found.mask[0].all()
    real = found.mask[1].reshape(6, 3, 2)
    starts = torch.linspace(0, 4.04, 6)[:, None] + 0.32 * torch.arange(3)
    assert torch.equal(real[..., 0], starts < 2.0)
    assert torch.equal(real[..., 0], real[..., 1])
    assert 0 < real.sum() < 36


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 15599, 15600])
def test_a_very_short_sound_is_one_segment(loudness, samples):
    found = loudness(Audio(np.full(samples, 0.1, dtype=np.float32), 16000, 3.0))
    assert found.tokens.shape == (1, 36, 1024)
    assert found.tokens.isfinite().all()
    assert found.times.tolist() == [[3.0, 3.0 + samples / 16000]]
    assert found.mask.any()


def test_a_remainder_below_half_a_patch_gets_no_window(loudness):
    assert len(loudness(sound(5.001)).times) == 1
    assert len(loudness(sound(5.49)).times) == 2


def test_a_token_hears_its_own_time(loudness):
    samples = np.zeros(16000 * 10, dtype=np.float32)
    samples[int(6.5 * 16000) : int(6.9 * 16000)] = 0.5 * np.sin(np.arange(6400) * 0.3)
    tokens, _, _ = loudness._run(Audio(samples, 16000))
    loud = (tokens[..., 0] > tokens.min() + 0.5).reshape(2, 18, 2).any(axis=-1)
    times = 5.0 * np.arange(2)[:, None] + loudness._token_starts[::2]
    assert loud.any()
    assert times[loud].min() > 6.5 - 0.36
    assert times[loud].max() < 6.9


def test_the_code_tells_the_order_and_stays_small(loudness):
    silence = Audio(np.zeros(80000, dtype=np.float32), 16000)
    tokens = loudness(silence).tokens[0]
    raw = torch.from_numpy(loudness._run(silence)[0][0])
    code = tokens - raw
    assert code.square().mean().sqrt() == pytest.approx(0.1 * 0.5**0.5, rel=0.02)
    apart = torch.cdist(code, code).fill_diagonal_(1)
    assert apart.min() > 0.03
    # Near in time is near in code: the first step is closer to the second than to the last.
    assert apart[0, 2] < apart[0, 34]


def test_the_same_sound_later_gives_the_same_features(loudness):
    first = loudness(sound(3.0))
    later = loudness(sound(3.0, start=12.5))
    assert torch.equal(first.tokens, later.tokens)
    torch.testing.assert_close(later.times, first.times + 12.5)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (Audio(np.zeros(0, dtype=np.float32), 16000), "0 samples"),
        (Audio(np.zeros(44100, dtype=np.float32), 44100), "44100 Hz"),
        (Audio(np.array([0.0, np.nan] * 9000, dtype=np.float32), 16000), "finite"),
        (Audio(np.array([0.0, np.inf] * 9000, dtype=np.float32), 16000), "finite"),
    ],
)
def test_sounds_that_cannot_be_used_are_named(loudness, audio, message):
    with pytest.raises(MediaError, match=message):
        loudness(audio)


@pytest.mark.parametrize("arguments", [{"window": 0.5}, {"window": -1.0}, {"max_windows": 0}])
def test_parameters_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match="at least"):
        Yamnet(**arguments)


def test_the_fingerprint_follows_what_changes_the_features():
    plain = Yamnet().fingerprint
    assert weights.fingerprint(yamnet.NAME) in plain
    assert Yamnet(window=2.0).fingerprint != plain
    assert Yamnet(max_windows=3).fingerprint != plain
    assert Yamnet(threads=2).fingerprint == plain


def test_the_graph_is_cut_in_float_with_the_ranges_of_its_8_bits():
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = np.round(rng.uniform(-127, 127, (1024, 1, 32, 32))).astype(np.float32) * 0.001
    constants = {
        "scale": np.float32(0.05),
        "zero": np.uint8(140),
        "weight": weight,
        "weight_scale": np.float32(0.001),
        "weight_zero": np.int8(0),
        "out_scale": np.float32(0.02),
        "out_zero": np.uint8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["weight", "weight_scale", "weight_zero"], ["wq"]),
        helper.make_node("DequantizeLinear", ["wq", "weight_scale", "weight_zero"], ["w"]),
        helper.make_node("DequantizeLinear", ["audio", "scale", "zero"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[32, 32]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "out_scale", "out_zero"], [yamnet.LAST]),
        helper.make_node("DequantizeLinear", [yamnet.LAST, "out_scale", "out_zero"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["pooled"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("audio", TensorProto.UINT8, [1, 1, 96, 64])],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1, 1024, 1, 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    yamnet._cut(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    sounds = rng.standard_normal((5, 1, 96, 64)).astype(np.float32)
    (found,) = session.run(None, {"audio": sounds})
    with torch.no_grad():
        plain = torch.conv2d(torch.from_numpy(sounds), torch.from_numpy(weight), stride=32)
    expected = plain.clamp(0, 255 * 0.02).numpy()
    assert (expected == 0).any()
    assert (expected == expected.max()).sum() > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@needs_weights
@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        (Audio(np.zeros(80000, dtype=np.float32), 16000), {"Silence"}),
        (sound(5.0), {"White noise", "Static", "Noise"}),
        (tone(1000.0), {"Beep, bleep", "Sine wave"}),
        (tone(440.0, 0.6), {"Beep, bleep", "Sine wave", "Telephone", "Dial tone", "Busy signal"}),
    ],
)
def test_made_sounds_are_named(audio, expected):
    found = Yamnet().classify(audio)
    assert len(found) == 521
    assert found[0][0] in expected
    assert found[0][1] > 0.3
    assert all(0 <= score <= 1 for _, score in found)


@needs_weights
def test_real_features_are_sparse_bounded_and_vary_with_time():
    encoder = Yamnet()
    samples = sound(5.0).samples.copy()
    samples[40000:] = tone(1000.0, 5.0).samples[40000:]
    tokens, _, _ = encoder._run(Audio(samples, 16000))
    assert (tokens >= 0).all()
    assert tokens.max() < 13
    assert (tokens == 0).mean() > 0.5
    first, last = tokens[0, :6].mean(axis=0), tokens[0, -6:].mean(axis=0)
    assert first @ last / np.linalg.norm(first) / np.linalg.norm(last) < 0.7


@needs_weights
def test_a_window_does_not_depend_on_the_others():
    encoder = Yamnet()
    long = sound(15.0)
    together = encoder(long).tokens
    alone = encoder(Audio(long.samples[80000:160000], 16000)).tokens
    torch.testing.assert_close(together[1, :30], alone[0, :30], rtol=1e-3, atol=1e-3)


# AudioSet's names for the ten classes of ESC-10.
NAMES = {
    "Dog bark": ("Dog", "Bark"),
    "Rain": ("Rain", "Rain on surface"),
    "Sea waves": ("Ocean", "Waves, surf"),
    "Baby cry": ("Baby cry, infant cry", "Crying, sobbing"),
    "Clock tick": ("Clock", "Tick"),
    "Person sneeze": ("Sneeze", "Cough"),
    "Helicopter": ("Helicopter", "Aircraft"),
    "Chainsaw": ("Chainsaw", "Power tool"),
    "Rooster": ("Chicken, rooster", "Crowing, cock-a-doodle-doo"),
    "Fire crackling": ("Fire", "Crackle"),
}


@needs_weights
@pytest.mark.skipif(not ESC10.is_dir(), reason="the ESC-10 clips are not here")
def test_recorded_sounds_are_told_apart():
    encoder = Yamnet()
    right = []
    for folder in sorted(ESC10.glob("*/")):
        truth = folder.name.split(" - ")[1]
        for path in sorted(folder.glob("*.ogg"))[::10]:
            scores = dict(encoder.classify(read_audio(path)))
            best = max(NAMES, key=lambda label: max(scores[name] for name in NAMES[label]))
            right.append(best == truth)
    assert len(right) == 40
    assert np.mean(right) >= 0.85  # 0.94 over all 400 clips

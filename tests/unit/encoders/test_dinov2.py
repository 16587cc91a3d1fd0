"""DINOv2: the mapping agrees with the ONNX it came from; frames keep their order and times."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from open_crema import weights
from open_crema.encoders import dinov2
from open_crema.encoders.dinov2 import DinoV2, prepare
from open_crema.errors import MediaError
from open_crema.media import Frames

needs_weights = pytest.mark.skipif(
    weights.state(dinov2.NAME) != "ready",
    reason=f"{dinov2.NAME} is not in the cache; run `{weights.FETCH_COMMAND}`",
)


def clip(count, height=40, width=60, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    starts = np.arange(count) * 0.5
    return Frames(images, np.stack([starts, starts + 0.5], axis=1))


@pytest.fixture
def tiny():
    """The encoder over a small random model, which needs no download."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, image_size=518, mlp_ratio=1
    )
    encoder = DinoV2(28, batch=4)
    encoder.model = Dinov2Model(config).eval().requires_grad_(False)
    return encoder


@needs_weights
@pytest.mark.parametrize("size", [112, 224])
def test_the_weights_agree_with_the_onnx(size):
    from safetensors.torch import load_file

    taps = load_file(dinov2.fetch() / "onnx_taps.safetensors")
    with torch.no_grad():
        found = DinoV2().model(taps[f"pixels_{size}"]).last_hidden_state
    expected = taps[f"tokens_{size}"]
    assert expected.abs().mean() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


@needs_weights
def test_real_weights_give_the_promised_shape_and_count():
    encoder = DinoV2()
    found = encoder(clip(3))
    assert found.tokens.shape == (3, 65, 384)
    assert found.tokens.isfinite().all()
    parameters = sum(parameter.numel() for parameter in encoder.model.parameters())
    assert parameters == weights.lookup(dinov2.NAME).parameters


@needs_weights
def test_a_patch_token_says_more_of_its_own_place_than_of_others():
    grey = np.full((2, 112, 112, 3), 128, dtype=np.uint8)
    grey[1, 14:28, 84:98] = (255, 0, 0)  # row 1, column 6 of the 8 x 8 patches
    found = DinoV2()(Frames(grey, np.zeros((2, 2))))
    change = (found.tokens[1, 1:] - found.tokens[0, 1:]).norm(dim=1)
    assert change.argmax() == 1 * 8 + 6


def test_tensors_of_the_onnx_get_their_names_in_transformers():
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    constants = {
        "backbone.layernorm.bias": rng.random(4),
        "decoder.bias": rng.random(2),
        "onnx::Concat_1": rng.random((1, 1, 4)),
        "onnx::Reshape_2": rng.random((1, 9, 4)),
        "onnx::MatMul_3": rng.random((4, 8)),
    }
    nodes = [
        helper.make_node("Reshape", ["onnx::Reshape_2", "shape"], ["grid"], "/backbone/e/Reshape"),
        helper.make_node("Concat", ["onnx::Concat_1", "grid"], ["p"], "/backbone/e/Concat", axis=1),
        helper.make_node("Unsqueeze", ["x", "onnx::Unsqueeze_9"], ["u"], "/backbone/Unsqueeze"),
        helper.make_node("MatMul", ["x", "onnx::MatMul_3"], ["y"], "/backbone/layer.0/fc1/MatMul"),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    found = dinov2._tensors(helper.make_graph(nodes, "g", [], [], initializers))
    assert set(found) == {
        "layernorm.bias",
        "layer.0.fc1.weight",
        "embeddings.position_embeddings",
    }
    np.testing.assert_array_equal(found["layer.0.fc1.weight"], constants["onnx::MatMul_3"].T)
    rows = np.concatenate([constants["onnx::Concat_1"], constants["onnx::Reshape_2"]], axis=1)
    np.testing.assert_array_equal(found["embeddings.position_embeddings"], rows)


def test_frames_do_not_depend_on_the_batch_they_are_in(tiny):
    frames = clip(9)
    together = tiny(frames)
    assert together.tokens.shape == (9, 5, 16)
    for index in range(9):
        one = tiny(Frames(frames.images[index : index + 1], frames.times[index : index + 1]))
        torch.testing.assert_close(one.tokens[0], together.tokens[index], rtol=1e-5, atol=1e-5)
        assert torch.equal(one.times[0], together.times[index])
    assert together.mask.all()
    assert together.times.dtype == torch.float64


def test_features_may_take_part_in_training(tiny):
    tokens = tiny(clip(1)).tokens
    assert not tokens.requires_grad
    layer = torch.nn.Linear(16, 1)
    layer(tokens).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_bfloat16_is_close_and_comes_out_in_float(tiny):
    exact = tiny(clip(2)).tokens
    tiny.dtype = torch.bfloat16
    tiny.model.bfloat16()
    found = tiny(clip(2)).tokens
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.05


def test_no_frame_is_a_media_error(tiny):
    with pytest.raises(MediaError, match="no frame"):
        tiny(clip(0))


@pytest.mark.parametrize("arguments", [{"resolution": 0}, {"resolution": 100}, {"batch": 0}])
def test_parameters_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=r"multiple of 14|at least 1"):
        DinoV2(**arguments)


def test_the_fingerprint_follows_what_changes_the_features():
    plain = DinoV2().fingerprint
    assert weights.fingerprint(dinov2.NAME) in plain
    assert DinoV2(224).fingerprint != plain
    assert DinoV2(dtype=torch.bfloat16).fingerprint != plain
    assert DinoV2(batch=1).fingerprint == plain


def test_pixels_are_scaled_as_imagenet():
    white = np.full((1, 30, 50, 3), 255, dtype=np.uint8)
    pixels = prepare(white, 14)
    assert pixels.shape == (1, 3, 14, 14)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(pixels[0, :, 5, 5], torch.tensor(expected))


def test_resizing_is_antialiased_keeps_the_borders_and_never_overshoots():
    stripes = np.zeros((1, 280, 280, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255  # finer than the target can show: must come out grey
    grey = prepare(stripes, 28) * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    grey = grey + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert (grey - 0.5).abs().max() < 0.02

    edges = np.zeros((1, 100, 300, 3), dtype=np.uint8)
    edges[:, :, 150:] = 255
    pixels = prepare(edges, 56)
    assert pixels[0, 0, 0, 0] == pixels.min() == pytest.approx(-0.485 / 0.229, abs=1e-4)
    assert pixels[0, 2, 0, -1] == pixels.max() == pytest.approx((1 - 0.406) / 0.225, abs=1e-4)


def test_a_tiny_or_a_flipped_image_is_fine():
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    mirrored = prepare(image[:, :, ::-1], 14)  # a view with negative strides
    torch.testing.assert_close(mirrored, prepare(image, 14).flip(-1), rtol=1e-4, atol=1e-5)
    assert prepare(image[:, :1, :1], 14).isfinite().all()

"""The position code is the published one, and a cloud keeps its order and its points."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_crema.encoders.points import PointFeatures, position_code
from open_crema.errors import MediaError
from open_crema.features import Points

GOLDEN = Path(__file__).resolve().parents[3].parent / "shared" / "golden"


def cloud(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Points(
        torch.randn(count, width, generator=generator),
        torch.randint(0, 256, (count, 3), generator=generator),
    )


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not here")
@pytest.mark.parametrize("case", ["espresso", "espresso-concat"])
def test_it_meets_the_golden_files(case):
    from safetensors.torch import load_file

    golden = load_file(GOLDEN / f"rgb_pc_depth_norm__{case}.safetensors")
    features, voxels, expected = golden["in/pc_feat"], golden["in/pc"].long(), golden["enc/pc"]
    encode = PointFeatures(features.shape[-1])
    for row in range(len(features)):
        found = encode(Points(features[row], voxels[row]))
        torch.testing.assert_close(found.tokens[0], expected[row], rtol=0, atol=1e-6)


def test_the_code_is_the_formula():
    # W = 64: 21 channels a coordinate, cut from a table of 22; the 64th channel stays zero.
    code = position_code(torch.tensor([[3, 0, 200]]), 64)[0]
    for axis, coordinate in enumerate((3, 0, 200)):
        for channel in range(21):
            angle = coordinate / 10000 ** ((channel - channel % 2) / 22)
            wave = math.cos(angle) if channel % 2 else math.sin(angle)
            assert code[axis * 21 + channel].item() == pytest.approx(wave, abs=2e-5)
    assert code[63] == 0


def test_the_published_width_has_469_channels_a_coordinate():
    code = position_code(torch.tensor([[0, 0, 0]]), 1408)[0]
    assert code[:1407].sum().item() == 3 * 234  # cosines of zero: 234 of 469, the rest are sines
    assert code[468] == 0
    assert code[469 + 1] == 1
    assert code[1407] == 0


@settings(max_examples=30)
@given(axes=st.integers(1, 4), width=st.integers(8, 200), count=st.integers(0, 5))
def test_the_code_is_bounded_and_of_the_width_asked_for(axes, width, count):
    code = position_code(torch.arange(count * axes).reshape(count, axes), width)
    assert code.shape == (count, width)
    assert code.dtype == torch.float32
    assert (code.abs() <= 1).all()
    assert (code[:, width // axes * axes :] == 0).all()


def test_voxels_have_different_codes():
    code = position_code(torch.cartesian_prod(*[torch.arange(8)] * 3), 48)
    assert torch.cdist(code, code).fill_diagonal_(1).min() > 0.01


def test_small_clouds_are_kept_whole_and_in_order():
    points = cloud(7, 12)
    found = PointFeatures(12)(points)
    expected = points.features + 0.01 * position_code(points.voxels, 12)
    torch.testing.assert_close(found.tokens[0], expected)
    assert found.mask.shape == (1, 7)
    assert found.mask.all()
    assert found.times.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("count", [10, 11, 19, 20, 21, 1003])
def test_large_clouds_are_thinned_evenly_and_always_alike(count):
    points = Points(torch.arange(count).float()[:, None].repeat(1, 6), torch.zeros(count, 3).long())
    encode = PointFeatures(6, max_points=10)
    found = encode(points)
    rows = found.tokens[0, :, 0].round().long()
    assert len(rows) == 10
    assert rows[0] == 0
    gaps = rows.diff()
    assert gaps.min() >= count // 10
    assert gaps.max() <= -(-count // 10)
    assert torch.equal(encode(points).tokens, found.tokens)


def test_the_released_code_fills_small_clouds_with_zeros_that_are_attended():
    points = cloud(4, 12)
    encode = PointFeatures(12, max_points=9, filled=6)
    found = encode(points)
    assert found.mask.tolist() == [[True] * 6]
    assert torch.equal(found.tokens[0, :4], PointFeatures(12)(points).tokens[0])
    nowhere = 0.01 * position_code(torch.zeros(1, 3).long(), 12)
    assert torch.equal(found.tokens[0, 4:], nowhere.expand(2, -1))
    assert encode(cloud(8, 12)).tokens.shape == (1, 8, 12)


def test_half_precision_features_come_out_in_float():
    points = cloud(3, 8)
    found = PointFeatures(8)(Points(points.features.bfloat16(), points.voxels.int(), (1.0, 2.5)))
    assert found.tokens.dtype == torch.float32
    assert found.times.tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (Points(torch.zeros(0, 8), torch.zeros(0, 3).long()), "no point"),
        (Points(torch.zeros(4, 9), torch.zeros(4, 3).long()), r"\[N, 8\]"),
        (Points(torch.zeros(4, 8), torch.zeros(5, 3).long()), r"\(5, 3\)"),
        (Points(torch.zeros(4, 8), torch.zeros(4, 2).long()), r"\(4, 2\)"),
        (Points(torch.zeros(4, 8), torch.zeros(4, 3)), "integer"),
    ],
)
def test_clouds_that_do_not_fit_are_named(points, message):
    with pytest.raises(MediaError, match=message):
        PointFeatures(8)(points)


def test_what_is_not_ready_is_refused():
    with pytest.raises(MediaError, match=r"made before.*'features' and 'voxels'.*point: points"):
        PointFeatures(8)(object())


@pytest.mark.parametrize(
    "arguments",
    [{"width": 5}, {"width": 8, "max_points": 0}, {"width": 8, "max_points": 3, "filled": 4}],
)
def test_parameters_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        PointFeatures(**arguments)


def test_the_fingerprint_follows_the_parameters():
    prints = {PointFeatures(8).fingerprint, PointFeatures(16).fingerprint}
    prints.add(PointFeatures(8, max_points=10).fingerprint)
    assert len(prints | {PointFeatures(8, max_points=10, filled=10).fingerprint}) == 4

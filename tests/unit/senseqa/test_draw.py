"""Draws must be the same on every machine and with every NumPy: their values are recorded here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_crema.senseqa.draw import Draw

RECORDED_1, RECORDED_2 = 0.4952361637021835, 0.017287615379853016
RECORDED_INTEGER, RECORDED_ORDER = 413, "acfdeb"
RECORDED_NORMAL = 1.3563184809475763


def test_a_name_means_these_numbers_for_ever() -> None:
    draw = Draw("senseqa", 1)
    assert draw.uniforms(2).tolist() == [RECORDED_1, RECORDED_2]
    assert draw.integer(1000) == RECORDED_INTEGER
    assert draw.shuffled("abcdef") == list(RECORDED_ORDER)
    assert draw.normals(1)[0] == pytest.approx(RECORDED_NORMAL, abs=1e-12)


def test_streams_of_different_names_have_nothing_in_common() -> None:
    names = [("a", 1), ("a", 2), ("a1",), ("a", "1", ""), ("b",)]
    firsts = {Draw(*name).uniform() for name in names}
    assert len(firsts) == len(names)
    assert Draw("a").sub("b", 3).uniform() == Draw("a", "b", 3).uniform()


def test_what_one_stream_draws_moves_no_other() -> None:
    draw = Draw("scene")
    before = draw.sub("part").uniforms(3)
    draw.uniforms(1000)
    assert np.array_equal(draw.sub("part").uniforms(3), before)


@given(st.text(max_size=20), st.integers(1, 50))
def test_ranges(name: str, count: int) -> None:
    draw = Draw(name)
    assert 0 <= draw.uniform() < 1
    assert -3 <= draw.uniform(-3, 5) < 5
    assert 0 <= draw.integer(count) < count
    assert sorted(draw.shuffled(range(count))) == list(range(count))
    assert len(set(draw.sample(range(count), count // 2))) == count // 2


def test_normals_are_normal() -> None:
    found = Draw("many").normals(100, 1001)
    assert found.shape == (100, 1001)
    assert abs(found.mean()) < 0.01
    assert abs(found.std() - 1) < 0.01
    assert abs((np.abs(found) < 1).mean() - 0.6827) < 0.005


def test_uniforms_are_even() -> None:
    counts = np.histogram(Draw("many").uniforms(100_000), bins=10, range=(0, 1))[0]
    assert np.abs(counts / 10_000 - 1).max() < 0.05


def test_more_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="cannot draw 3 of 2"):
        Draw("few").sample("ab", 3)

"""Which senses training is given: frequencies, promises, and what the draws depend on."""

from __future__ import annotations

from collections import Counter
from itertools import chain, combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from open_crema.config import SenseDropoutConfig, from_dict
from open_crema.data.sample import Batch
from open_crema.data.sense_dropout import withhold

FOUR = ("video", "audio", "flow", "point")
SEGMENTS = {"video": 3, "audio": 2, "flow": 3, "point": 1}
Senses = tuple[str, ...]


def dropout(kind: str, rate: float = 0.5, keep: Senses = ()) -> SenseDropoutConfig:
    data = {"kind": kind, "rate": rate, "keep": list(keep)}
    made: SenseDropoutConfig = from_dict(data, schema=SenseDropoutConfig)
    return made


def batch_of(*samples: Senses, first: int = 0) -> Batch:
    return tiny.batch(
        *(tiny.item(first + i, **{s: SEGMENTS[s] for s in own}) for i, own in enumerate(samples))
    )


def held(batch: Batch) -> list[Senses]:
    """What each sample has."""
    return [
        tuple(s for s in FOUR if s in batch.senses and bool(batch.senses[s].present[i]))
        for i in range(len(batch))
    ]


def draw(
    batches: list[Batch], config: SenseDropoutConfig, senses: Any = FOUR, **at: int
) -> list[list[Senses]]:
    where = {"seed": 0, "epoch": 0, "step": 0, **at}
    return [held(b) for b in withhold(batches, config, senses, **where)]


def one(config: SenseDropoutConfig, own: Senses, senses: Any = FOUR, **at: int) -> Senses:
    return draw([batch_of(own)], config, senses, **at)[0][0]


def subsets(senses: Senses) -> list[Senses]:
    return list(chain.from_iterable(combinations(senses, n) for n in range(len(senses) + 1)))


def even(counts: Counter[Any], places: int) -> bool:
    """Whether so many places are drawn equally often: chi-square, 5 standard deviations."""
    mean = sum(counts.values()) / places
    chi = sum((counts[k] - mean) ** 2 / mean for k in counts) + mean * (places - len(counts))
    return chi < places - 1 + 5 * (2 * max(places - 1, 1)) ** 0.5


def test_none_changes_nothing():
    batch = batch_of(FOUR, ("audio",))
    assert withhold([batch], dropout("none"), FOUR, seed=0, epoch=0, step=0) == [batch]


@pytest.mark.parametrize("kind", ["random", "structured"])
def test_a_rate_of_zero_changes_nothing(kind):
    batch = batch_of(FOUR, ("audio",))
    for step in range(30):
        assert draw([batch], dropout(kind, 0.0), step=step) == [held(batch)]


@settings(max_examples=60)
@given(
    st.sampled_from(["random", "structured"]),
    st.lists(st.sets(st.sampled_from(FOUR)), min_size=1, max_size=4),
    st.sets(st.sampled_from(FOUR)),
    st.floats(0, 0.999),
    st.integers(0, 99),
)
def test_no_sample_loses_all_nor_what_is_kept_nor_gains(kind, samples, keep, rate, step):
    samples = [tuple(s for s in FOUR if s in own) for own in samples]
    config = dropout(kind, rate, tuple(keep))
    (after,) = draw([batch_of(*samples)], config, epoch=step, step=step)
    for own, left in zip(samples, after, strict=True):
        assert set(left) <= set(own)
        assert bool(left) == bool(own)
        assert set(own) & keep <= set(left)


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_random_withholds_each_sense_at_its_rate_on_its_own(rate):
    found = Counter(one(dropout("random", rate), FOUR, epoch=e) for e in range(3000))
    for subset in subsets(FOUR)[1:]:
        k = len(subset)
        expected = (1 - rate) ** k * rate ** (4 - k) + (rate**4 / 4 if k == 1 else 0)
        assert found[subset] / 3000 == pytest.approx(expected, abs=5 * (expected / 3000) ** 0.5)


def test_the_one_that_stays_is_each_equally_often():
    assert even(Counter(one(dropout("random", 0.999), FOUR, epoch=e) for e in range(1000)), 4)


def test_random_draws_by_seed_epoch_sample_and_sense_alone():
    config = dropout("random")
    base = draw([batch_of(*[FOUR] * 8)], config)[0]
    assert len(set(base)) > 3
    for change in ({"seed": 1}, {"epoch": 1}):
        assert draw([batch_of(*[FOUR] * 8)], config, **change)[0] != base
    assert draw([batch_of(*[FOUR] * 8)], config, step=1)[0] == base
    batches = [batch_of(FOUR, first=0), batch_of(*[FOUR] * 7, first=1)]  # batched differently
    assert [own for batch in draw(batches, config) for own in batch] == base
    without = draw([batch_of(*[FOUR[:3]] * 8)], config)[0]  # of samples that have no points
    for own, left in zip(base, without, strict=True):
        assert set(own) <= {"point"} or left == tuple(s for s in own if s != "point")


@pytest.mark.parametrize(
    ("keep", "possible"),
    [
        ((), subsets(FOUR)[1:-1]),
        (("audio",), [s for s in subsets(FOUR)[:-1] if "audio" in s]),
        (FOUR[1:], [FOUR[1:]]),
        (FOUR, [FOUR]),
    ],
)
def test_structured_gives_each_proper_subset_equally_often(keep, possible):
    drawn = [one(dropout("structured", 0.75, keep), FOUR, step=i) for i in range(3000)]
    proper = Counter(own for own in drawn if own != FOUR or possible == [FOUR])
    assert set(proper) == set(possible)
    assert even(proper, len(possible))
    if possible != [FOUR]:
        assert drawn.count(FOUR) / 3000 == pytest.approx(0.25, abs=0.04)


def test_structured_gives_a_whole_step_one_subset_that_each_sample_uses_as_it_can():
    batches = [batch_of(FOUR, ("audio", "flow")), batch_of(FOUR, ("point",), ("video", "point"))]
    own = [held(b) for b in batches]
    alone: Counter[Senses] = Counter()
    for step in range(300):
        after = draw(batches, dropout("structured", 0.9), epoch=step, step=step)
        subset = after[0][0]
        assert after[1][0] == subset
        assert after[1][1] == ("point",)
        for before, left in zip(own[0] + own[1], after[0] + after[1], strict=True):
            common = tuple(s for s in before if s in subset)
            assert left == common or (not common and len(left) == 1)
            if not common and len(before) == 2:
                alone[left] += 1
    assert set(alone) == {("audio",), ("flow",), ("video",), ("point",)}


def test_structured_draws_by_seed_epoch_and_step_alone():
    config = dropout("structured", 0.9)

    def drawn(**at: int) -> list[Senses]:
        return [one(config, FOUR, step=step, **at) for step in range(20)]

    assert drawn() == drawn()
    assert drawn() != drawn(seed=1)
    assert drawn() != drawn(epoch=1)
    listed = [one(config, FOUR, FOUR[::-1], step=step) for step in range(20)]
    assert listed == drawn()  # whatever the order of listing


@pytest.mark.parametrize("kind", ["random", "structured"])
def test_a_model_s_only_sense_is_never_withheld(kind):
    for step in range(50):
        assert one(dropout(kind, 0.99), ("video", "audio"), ["audio"], epoch=step, step=step) == (
            "audio",
        )


def test_the_same_draws_in_every_process_and_ever_after():
    """Written down, so that a change of the drawing is a decision and not an accident."""
    random = [one(dropout("random"), FOUR, seed=3, epoch=e) for e in range(4)]
    structured = [one(dropout("structured"), FOUR, seed=3, step=s) for s in range(6)]
    assert random == [("video", "flow"), ("audio", "point"), ("flow",), ("video", "flow")]
    assert structured == [
        ("point",),
        ("video", "audio", "flow"),
        ("flow", "point"),
        FOUR,
        ("audio", "flow"),
        ("video", "audio", "flow"),
    ]


def test_what_is_withheld_is_masked_and_what_nobody_has_left_is_not_there():
    batch = batch_of(("video", "audio"), ("video",))
    left = batch.where([{"video"}, {"video", "audio"}])
    assert left.samples == batch.samples
    assert list(left.senses) == ["video"]
    left = batch.where([{"audio"}, {"video"}])
    assert left.senses["video"].present.tolist() == [False, True]
    assert left.senses["audio"].present.tolist() == [True, False]
    assert batch.senses["video"].present.all(), "the batch that was given is as it was"


@pytest.mark.parametrize("fusion", ["self-gated", "concat"])
def test_to_the_model_a_withheld_sense_is_one_that_the_sample_never_had(fusion):
    model = tiny.crema(*FOUR, fusion={"kind": fusion})
    full = [tiny.item(i, **SEGMENTS) for i in range(4)]
    kept: list[Senses] = [("audio", "flow"), FOUR, ("point",), ("flow",)]
    never = [
        (sample, {s: x for s, x in own.items() if s in left})
        for (sample, own), left in zip(full, kept, strict=True)
    ]
    masked, plain = model(tiny.batch(*full).where(kept)), model(tiny.batch(*never))
    assert torch.equal(masked.labels, plain.labels)
    assert torch.allclose(masked.logits, plain.logits, atol=1e-5)

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from open_crema.data.sampler import choose_frames, choose_points, order, select, shuffled
from open_crema.features import Features

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**40)
ids = st.text(max_size=8)


def choose(stored, count, training=True, seed=0, epoch=0, sample_id="q"):
    return choose_frames(
        stored, count, training=training, seed=seed, epoch=epoch, sample_id=sample_id
    )


@given(seeds, st.integers(0, 100), st.integers(0, 200))
def test_order_is_a_permutation(seed, epoch, n):
    assert sorted(order(seed, epoch, n)) == list(range(n))


def test_order_depends_on_seed_and_epoch_alone():
    orders = [order(seed, epoch, 50) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    assert order(1, 1, 50) == orders[3]
    assert orders[0] != list(range(50))


def test_order_is_even():
    first = [order(seed, 0, 4)[0] for seed in range(2000)]
    assert all(430 < first.count(i) < 570 for i in range(4))


@given(st.integers(1, 60), sizes, seeds, st.integers(0, 9), ids)
def test_points_are_chosen_once_each_and_in_order(count, most, seed, epoch, sample_id):
    chosen = choose_points(count, most, seed, epoch, sample_id).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, most)
    assert set(chosen) <= set(range(count))
    assert chosen == choose_points(count, most, seed, epoch, sample_id).tolist()


def test_points_are_chosen_evenly_and_by_all_that_they_depend_on():
    counts = torch.stack(
        [torch.bincount(choose_points(6, 2, 0, e, "q"), minlength=6) for e in range(1500)]
    ).sum(dim=0)
    assert (abs(counts - 500) < 80).all()
    draws = [(0, 0, "q"), (1, 0, "q"), (0, 1, "q"), (0, 0, "r")]
    assert len({tuple(choose_points(1000, 10, *d).tolist()) for d in draws}) == 4
    assert choose_points(20, 5, 3, 2, "ü").tolist() == [2, 5, 13, 14, 19]


def test_the_same_draws_in_every_process_and_ever_after():
    """Written down, so that a change of the drawing is a decision and not an accident."""
    assert order(3, 2, 9) == [1, 8, 7, 5, 2, 0, 3, 6, 4]
    assert choose(24, 4, seed=3, epoch=2, sample_id="ü") == [2, 7, 12, 22]
    assert [shuffled(("video", "audio", "flow"), 3, step) for step in range(3)] == [
        ["video", "audio", "flow"],
        ["video", "audio", "flow"],
        ["flow", "audio", "video"],
    ]


@given(st.permutations(["video", "audio", "flow", "imu"]), seeds, st.integers(0, 2**40))
def test_senses_are_shuffled_by_seed_and_step_however_they_are_listed(listed, seed, step):
    drawn = shuffled(listed, seed, step)
    assert sorted(drawn) == sorted(listed)
    assert drawn == shuffled(sorted(listed), seed, step)
    assert shuffled(listed[1:], seed, step) == [s for s in drawn if s != listed[0]]


def test_each_order_of_senses_is_drawn_as_often():
    drawn = [tuple(shuffled(("video", "audio", "flow"), 0, step)) for step in range(3000)]
    assert len(set(drawn)) == 6
    assert all(400 < drawn.count(one) < 600 for one in set(drawn))
    other = [tuple(shuffled(("video", "audio", "flow"), 1, step)) for step in range(3000)]
    assert 400 < sum(a == b for a, b in zip(drawn, other, strict=True)) < 600


@given(sizes, sizes, st.booleans(), seeds, st.integers(0, 9), ids)
def test_one_frame_in_each_interval(stored, count, training, seed, epoch, sample_id):
    chosen = choose(stored, count, training, seed, epoch, sample_id)
    parts = min(stored, count)
    assert len(chosen) == parts
    for t, index in enumerate(chosen):
        assert t * stored // parts <= index < (t + 1) * stored // parts


@given(sizes, sizes, seeds, ids)
def test_evaluation_draws_nothing(stored, count, seed, sample_id):
    assert choose(stored, count, False, seed, 3, sample_id) == choose(stored, count, False)


def test_evaluation_takes_midpoints():
    assert choose(8, 4, training=False) == [1, 3, 5, 7]
    assert choose(12, 4, training=False) == [1, 4, 7, 10]
    assert choose(9, 1, training=False) == [4]


@pytest.mark.parametrize("training", [True, False])
def test_no_more_than_there_is(training):
    assert choose(3, 8, training) == [0, 1, 2]
    assert choose(4, 4, training) == [0, 1, 2, 3]
    assert choose(1, 4, training) == [0]


def test_training_reaches_every_frame_evenly_and_independently():
    drawn = [choose(8, 4, epoch=epoch) for epoch in range(1000)]
    for t in range(4):
        assert 420 < sum(row[t] == 2 * t for row in drawn) < 580
    assert len({tuple(row) for row in drawn}) == 16


def test_the_draw_depends_on_seed_epoch_and_sample():
    base = choose(1000, 4)
    assert choose(1000, 4) == base
    assert choose(1000, 4, seed=1) != base
    assert choose(1000, 4, epoch=1) != base
    assert choose(1000, 4, sample_id="r") != base
    assert choose(1000, 4, seed=1, epoch=0) != choose(1000, 4, seed=0, epoch=1)


@given(st.integers(4, 30), st.integers(1, 4), seeds)
def test_senses_of_different_length_are_drawn_at_the_same_place(stored, factor, seed):
    few = choose(stored * 4, 4, seed=seed)
    many = choose(stored * 4 * factor, 4, seed=seed)
    assert [index // factor for index in many] == few


@pytest.mark.parametrize(("stored", "count"), [(0, 4), (4, 0), (-1, 4)])
def test_nothing_to_choose(stored, count):
    with pytest.raises(ValueError, match="cannot choose"):
        choose(stored, count)


def clip(segments, start=1.0, length=0.5):
    edges = start + length * torch.arange(segments + 1, dtype=torch.float64)
    mask = torch.ones(segments, 2, dtype=torch.bool)
    mask[:, 1] = torch.arange(segments) % 2 == 0
    tokens = torch.arange(segments).float()[:, None, None].expand(-1, 2, 3).contiguous()
    return Features(tokens, mask, torch.stack([edges[:-1], edges[1:]], dim=1))


def test_select_takes_tokens_and_masks_and_tiles_the_clip():
    chosen = select(clip(8), [1, 2, 5, 6])
    assert chosen.tokens[:, 0, 0].tolist() == [1, 2, 5, 6]
    assert chosen.mask[:, 1].tolist() == [False, True, False, True]
    assert chosen.times.tolist() == [[1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 5.0]]


def test_select_of_everything_changes_nothing():
    uneven = clip(3)
    uneven.times[1, 1] = uneven.times[2, 0] = 2.1
    assert select(uneven, [0, 1, 2]) is uneven


@given(st.integers(1, 20), st.integers(1, 20), seeds)
def test_selected_times_have_no_gaps_or_overlaps(stored, count, seed):
    features = clip(stored)
    times = select(features, choose(stored, count, seed=seed)).times
    assert torch.equal(times[1:, 0], times[:-1, 1])
    assert (times[0, 0], times[-1, 1]) == (features.times[0, 0], features.times[-1, 1])
    assert bool((times[:, 1] > times[:, 0]).all())

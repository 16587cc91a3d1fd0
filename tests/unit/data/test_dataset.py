import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from open_crema.config import EncodersConfig
from open_crema.data.dataset import FeatureDataset
from open_crema.data.extract import Source
from open_crema.data.sample import Sample
from open_crema.errors import SenseAbsent
from open_crema.features import Features
from open_crema.modality import canonical, get

SENSES = ["video", "audio", "thermal", "point"]


class Extractor:
    """Features as a function of the file's name; counts how often each is read."""

    def __init__(self, senses=SENSES, segments=8):
        self.senses = canonical(senses)
        self.modalities = {sense: get(sense) for sense in self.senses}
        self.segments = segments
        self.encoders_config = EncodersConfig(max_points=2)
        self.reads = []

    def source(self, sample, sense):
        if sense not in sample.media:
            return SenseAbsent(sense, "not given")
        return Source(sample.media[sense], "reader")

    def features(self, sample, sense):
        path = sample.media[sense]
        self.reads.append((path, sense))
        if path == "mute":
            return SenseAbsent(sense, "mute")
        segments = {"point": 1, "audio": 6}.get(sense, self.segments)
        number = float(path.strip("abcdefghijklmnopqrstuvwxyz"))
        tokens = torch.full((segments, 2, 4), number, dtype=torch.bfloat16)
        tokens[:, 0, 0] = torch.arange(segments)
        edges = torch.arange(segments + 1, dtype=torch.float64)
        mask = torch.ones(segments, 2, dtype=torch.bool)
        return Features(tokens, mask, torch.stack([edges[:-1], edges[1:]], dim=1))


def ask(number, *senses):
    return Sample(f"q{number}", "?", {sense: f"{sense}{number}" for sense in senses}, ("yes",))


SAMPLES = [
    ask(0, "video", "audio", "thermal"),
    ask(1, "video"),
    ask(2, "audio", "point"),
    Sample("q3", "?", {"video": "video0", "audio": "mute"}),
    ask(4, "video", "thermal", "point"),
]


def dataset(samples=SAMPLES, frames=4, **options):
    return FeatureDataset(samples, Extractor(), frames=frames, **options)


def rows(batch, place):
    """What one sample of a batch has: sense -> (tokens, times) of its real segments."""
    return {
        sense: (x.tokens[place][x.segments[place]], x.times[place][x.segments[place]])
        for sense, x in batch.senses.items()
        if bool(x.present[place])
    }


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(x, y) for sense in a for x, y in zip(a[sense], b[sense], strict=True)
    )


def test_a_batch_of_samples_with_different_senses():
    batch = dataset().batch(range(5))
    assert [sample.id for sample in batch.samples] == ["q0", "q1", "q2", "q3", "q4"]
    assert list(batch.senses) == ["video", "audio", "point", "thermal"]
    present = {sense: x.present.tolist() for sense, x in batch.senses.items()}
    assert present == {
        "video": [True, True, False, True, True],
        "audio": [True, False, True, False, False],
        "point": [False, False, True, False, True],
        "thermal": [True, False, False, False, True],
    }
    assert batch.senses["video"].tokens.shape == (5, 4, 2, 4)
    assert batch.senses["audio"].tokens.shape == (5, 6, 2, 4)
    assert batch.senses["point"].tokens.shape == (5, 1, 2, 4)
    assert batch.senses["video"].tokens.dtype == torch.bfloat16
    assert not batch.senses["video"].tokens[2].any()


def test_absences_are_counted_by_sample_and_once():
    data = dataset()
    assert all(not reasons for reasons in data.absent.values())
    for _ in range(3):
        data.batch(range(5))
    assert data.absent == {
        "video": {"not given": 1},
        "audio": {"not given": 2, "mute": 1},
        "thermal": {"not given": 3},
        "point": {"not given": 3},
    }


def test_a_batch_where_nobody_has_any_sense():
    batch = dataset([Sample("a", "?", {}), Sample("b", "?", {})]).batch([0, 1])
    assert (len(batch), dict(batch.senses)) == (2, {})


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=8),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_what_a_sample_gets_does_not_depend_on_its_batch(places, training, epoch, seed):
    options = {"training": training, "epoch": epoch, "seed": seed}
    batch = dataset().batch(places, **options)
    for row, place in enumerate(places):
        alone = dataset().batch([place], **options)
        assert same(rows(batch, row), rows(alone, 0))


def test_visual_senses_of_a_sample_are_drawn_together_and_others_left_whole():
    data = dataset()
    drawn = set()
    for epoch in range(20):
        batch = data.batch([0], training=True, epoch=epoch)
        frames = batch.senses["video"].tokens[0, :, 0, 0].tolist()
        assert batch.senses["thermal"].tokens[0, :, 0, 0].tolist() == frames
        assert batch.senses["audio"].tokens[0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
        drawn.add(tuple(frames))
    assert len(drawn) > 5
    chosen = data.batch([0]).senses["video"]
    assert chosen.tokens[0, :, 0, 0].tolist() == [1, 3, 5, 7]
    assert chosen.times[0].tolist() == [[0, 2], [2, 4], [4, 6], [6, 8]]


def test_questions_on_one_video_draw_their_own_frames():
    batch = dataset().batch([0, 3], training=True, seed=1)
    frames = batch.senses["video"].tokens[:, :, 0, 0].tolist()
    assert frames[0] != frames[1]


def test_a_draw_belongs_to_the_sample_not_to_its_place():
    for epoch in range(5):
        there = rows(dataset().batch([4], training=True, epoch=epoch), 0)
        here = rows(dataset([SAMPLES[4]]).batch([0], training=True, epoch=epoch), 0)
        assert same(there, here)


def test_batches_are_drawn_with_their_epoch():
    data = dataset()
    (batch,) = data.batches(9, training=True, epoch=7, seed=3)
    places = [int(sample.id[1:]) for sample in batch.samples]
    expected = data.batch(places, training=True, epoch=7, seed=3)
    assert all(same(rows(batch, row), rows(expected, row)) for row in range(5))


def ids(batches):
    return [[sample.id for sample in batch.samples] for batch in batches]


def test_evaluation_keeps_the_order_and_every_sample():
    assert ids(dataset().batches(2)) == [["q0", "q1"], ["q2", "q3"], ["q4"]]


def test_training_shuffles_by_seed_and_epoch():
    def epoch(seed, number):
        return ids(dataset().batches(2, training=True, seed=seed, epoch=number))

    assert epoch(0, 0) == epoch(0, 0)
    assert sorted(name for names in epoch(0, 0) for name in names) == [
        sample.id for sample in SAMPLES
    ]
    assert len({str(epoch(seed, number)) for seed in range(3) for number in range(3)}) > 5


def test_each_file_is_read_once_while_memory_lasts():
    data = dataset()
    for _ in range(3):
        data.batch(range(5))
    assert sorted(data.extractor.reads) == sorted(set(data.extractor.reads))


def test_memory_is_bounded():
    one = 8 * 2 * 4 * 2 + 8 * 2 + 8 * 2 * 8  # tokens bfloat16, mask, times
    samples = [ask(i, "video") for i in range(10)]
    data = dataset(samples, memory_bytes=3 * one + 1)
    for _ in range(2):
        data.batch(range(10))
    assert len(data.extractor.reads) == 10 + 7
    nothing = dataset(samples, memory_bytes=0)
    assert same(rows(nothing.batch([4]), 0), rows(data.batch([4]), 0))


def test_views_of_a_data_set_share_the_bound_of_its_memory():
    one = 8 * 2 * 4 * 2 + 8 * 2 + 8 * 2 * 8
    data = dataset([ask(i, "video") for i in range(10)], memory_bytes=3 * one + 1)
    views = data, data.masking(), data.shared(0, 1)
    for i, view in enumerate(views):
        view.batch([2 * i, 2 * i + 1])
    assert len(data.extractor.reads) == 6
    for view in views:
        view.batch(range(6))
    assert len(data.extractor.reads) == 6 + 3 * 3


def test_an_empty_dataset():
    assert len(dataset([])) == 0
    assert list(dataset([]).batches(4, training=True)) == []


@pytest.mark.parametrize("skip", range(5))
def test_skipping_resumes_an_epoch_where_it_was(skip):
    options = {"training": True, "epoch": 3, "seed": 5}
    whole = list(dataset().batches(2, **options))
    data = dataset()
    rest = list(data.batches(2, skip=skip, **options))
    assert ids(rest) == ids(whole[skip:])
    for ours, theirs in zip(rest, whole[skip:], strict=True):
        for row in range(len(ours)):
            assert same(rows(ours, row), rows(theirs, row))
    if skip >= 3:
        assert data.extractor.reads == []


FAILED = {"audio": {"q0": "a.wav: broken"}, "video": {"q1": "b.mp4: cut"}}


def test_samples_with_broken_files_are_left_out():
    data = dataset(failed=FAILED, on_error="skip")
    assert [sample.id for sample in data.samples] == ["q2", "q3", "q4"]
    assert data.skipped == {"q0": "audio: a.wav: broken", "q1": "video: b.mp4: cut"}
    assert data.masked == {}


def test_a_broken_file_is_an_absent_sense():
    data = dataset(failed=FAILED, on_error="mask")
    assert (len(data), data.skipped) == (5, {})
    batch = data.batch([0, 1])
    assert batch.senses["video"].present.tolist() == [True, False]
    assert "audio" not in batch.senses
    assert data.absent["audio"]["unusable media: a.wav: broken"] == 1
    assert ("audio0", "audio") not in data.extractor.reads


def test_masks_of_a_view_are_its_own():
    data = dataset()
    data.masking().masked["q0", "video"] = "cut"
    assert "video" in data.batch([0]).senses


def test_failures_change_nothing_under_the_policy_error():
    assert len(dataset(failed=FAILED).batch([0, 1]).senses["audio"].tokens) == 2


class Cloud(Extractor):
    """A cloud of 40 stored points; token i says i in its first channel."""

    def __init__(self, choice, *, hidden=0, segments=1):
        super().__init__(["point"])
        self.encoders_config = EncodersConfig(max_points=6, stored_points=40, point_choice=choice)
        self.hidden, self.many = hidden, segments

    def features(self, sample, sense):
        tokens = torch.arange(40.0).bfloat16()[None, :, None].repeat(self.many, 1, 4)
        mask = torch.ones(self.many, 40, dtype=torch.bool)
        mask[:, : self.hidden] = False
        return Features(tokens, mask, torch.zeros(self.many, 2, dtype=torch.float64))


def used(choice, *, number=2, **options):
    given = {k: options.pop(k) for k in ("hidden", "segments") if k in options}
    data = FeatureDataset([ask(number, "point")], Cloud(choice, **given), frames=4)
    batch = data.batch([0], **options)
    assert bool(batch.senses["point"].mask.all()) or given
    return batch.senses["point"].tokens[0, 0, :, 0].long().tolist()


EVEN = [0, 6, 13, 20, 26, 33]


@pytest.mark.parametrize("choice", ["even", "drawn"])
def test_evaluation_uses_evenly_spaced_points(choice):
    assert used(choice) == used(choice, epoch=3, seed=5) == EVEN


def test_training_draws_points_anew_for_each_epoch_seed_and_sample():
    draws = [{}, {"epoch": 1}, {"seed": 1}, {"number": 4}]
    found = [used("drawn", training=True, **d) for d in draws]
    assert len({tuple(f) for f in found} | {tuple(EVEN)}) == 5
    assert all(f == sorted(set(f)) and len(f) == 6 for f in found)
    assert used("drawn", training=True) == found[0]
    assert used("even", training=True, epoch=1) == EVEN


def test_the_released_code_draws_in_evaluation_too():
    assert used("reference") == used("reference")
    assert used("reference") != EVEN


def test_padding_is_never_drawn():
    for epoch in range(5):
        assert min(used("drawn", training=True, epoch=epoch, hidden=30)) >= 30


def test_points_of_several_segments_are_left_as_they_are():
    assert len(used("drawn", training=True, segments=2)) == 40

import dataclasses
import math

import pytest
import torch
from named_features import NamedFeatures, ask, dataset

import tiny
from open_crema.config import EvalConfig
from open_crema.data.sample import Batch
from open_crema.errors import ConfigError, CremaError, DataError, MediaError
from open_crema.evaluation import metrics
from open_crema.evaluation.run import UNANSWERED, UNUSABLE, evaluate

COLOURS = ("red", "light blue", "green")
CONFIG = EvalConfig(batch_size=2, max_new_tokens=4)


def mixed():
    """Samples with and without options, in turn, with different senses present."""
    return [
        ask("a", options=COLOURS, video="1", audio="2", type="colour"),
        ask("b", answer="two", video="2", audio="mute", type="count", question="how many"),
        ask("c", options=COLOURS[:2], video="3", type="colour", question="which one of them"),
        ask("d", answer="one", video="4", audio="5", type="count", question="how many"),
        ask("e", options=COLOURS, answer="green", audio="7", type="colour"),
        ask("f", options=COLOURS, video="6", audio="6", type="colour"),
    ]


def as_predicted(model, samples, places):
    """The same samples, with the model's own predictions as answers at these places."""
    found = evaluate(model, dataset(*samples), config=CONFIG).predictions
    return [
        dataclasses.replace(s, answers=(p.prediction,) if i in places else ("none of these",))
        if not s.options
        else dataclasses.replace(
            s,
            answers=(
                p.prediction if i in places else next(o for o in s.options if o != p.prediction),
            ),
        )
        for i, (s, p) in enumerate(zip(samples, found, strict=True))
    ]


@pytest.mark.parametrize("kind", ["decoder-only", "encoder-decoder"])
def test_each_sample_gets_what_the_model_says_to_it_alone(kind):
    model, samples = tiny.crema(kind=kind), mixed()
    data = dataset(*samples)
    result = evaluate(model, data, config=CONFIG)
    assert [p.id for p in result.predictions] == list("abcdef")
    for i, (sample, said) in enumerate(zip(samples, result.predictions, strict=True)):
        batch = data.batch([i])
        if sample.options:
            scores = model.score(batch)
            assert said.prediction == sample.options[int(scores.mean.argmax())]
            expected = scores.probabilities()[0].tolist()
            assert said.probabilities == pytest.approx(expected, abs=1e-5)
            assert math.fsum(said.probabilities) == pytest.approx(1, abs=1e-5)
        else:
            assert said.prediction == model.generate(batch, max_new_tokens=4).texts[0]
            assert said.probabilities == ()


def test_rates_are_those_of_the_predictions():
    model = tiny.crema()
    samples = as_predicted(model, mixed(), {0, 1, 2})
    result = evaluate(model, dataset(*samples), config=CONFIG)
    assert [p.correct for p in result.predictions] == [True, True, True, False, False, False]
    assert result.accuracy == 0.5
    assert result.overall.interval == metrics.wilson(3, 6)
    assert {name: (row.n, row.correct) for name, row in result.types.items()} == {
        "colour": (4, 2),
        "count": (2, 1),
    }
    assert result.types["count"].chance == 0.5
    assert result.overall.chance == pytest.approx((3 * (1 / 3) + 3 * (1 / 2)) / 6)


def test_blind_is_the_same_model_without_any_sense():
    model = tiny.crema()
    samples = mixed()
    result = evaluate(model, dataset(*samples), config=CONFIG)
    for sample, said in zip(samples, result.predictions, strict=True):
        alone = Batch((sample,))
        if sample.options:
            expected = sample.options[int(model.score(alone).mean.argmax())]
        else:
            expected = model.generate(alone, max_new_tokens=4).texts[0]
        assert said.blind == expected
        assert said.blind_correct == metrics.is_correct(sample, expected)
    without = evaluate(model, dataset(*samples), config=CONFIG, senses=[])
    assert result.overall.blind == without.accuracy
    assert [p.prediction for p in without.predictions] == [p.blind for p in result.predictions]
    assert all(p.senses == () and p.absent == {} for p in without.predictions)
    # The senses must matter, or this test shows nothing.
    assert [p.prediction for p in without.predictions] != [p.prediction for p in result.predictions]


def test_blind_can_be_left_out():
    result = evaluate(tiny.crema(), dataset(*mixed()), config=CONFIG, blind=False)
    assert result.overall.blind is None
    assert {p.blind for p in result.predictions} == {None}


def test_a_subset_of_the_senses_is_what_the_model_sees():
    model, samples = tiny.crema(), mixed()
    data = dataset(*samples)
    result = evaluate(model, data, config=CONFIG, senses=["audio"])
    assert result.senses == ("audio",)
    for i, said in enumerate(result.predictions):
        if samples[i].options:
            batch = data.batch([i]).only(["audio"])
            expected = model.score(batch).probabilities()[0].tolist()
            assert said.probabilities == pytest.approx(expected, abs=1e-5)
    assert [p.senses for p in result.predictions] == [
        ("audio",) if s.media.get("audio", "mute") != "mute" else () for s in samples
    ]


def test_absent_senses_are_named_with_their_reasons():
    result = evaluate(tiny.crema(), dataset(*mixed()), config=CONFIG)
    by_id = {p.id: p for p in result.predictions}
    assert by_id["a"].senses == ("video", "audio")
    assert by_id["a"].absent == {}
    assert by_id["b"].absent == {"audio": "a mute sound track"}
    assert by_id["c"].absent == {"audio": "no file given"}
    assert (by_id["e"].senses, by_id["e"].absent) == (("audio",), {"video": "no file given"})
    assert result.absent == {
        "video": {"no file given": 1},
        "audio": {"a mute sound track": 1, "no file given": 1},
    }


def test_a_sample_without_any_sense_is_answered_from_its_question():
    samples = [ask("a", options=COLOURS), ask("b", options=COLOURS, video="1")]
    result = evaluate(tiny.crema(), dataset(*samples), config=CONFIG)
    assert len(result.predictions) == 2
    assert result.predictions[0].prediction == result.predictions[0].blind


def test_unusable_samples_are_counted_and_change_nothing_else():
    model, sound = tiny.crema(), mixed()
    broken = [
        ask("x", options=COLOURS, video="broken"),
        *sound[:3],
        ask("y", answer="", video="1"),
        *sound[3:],
        ask("z", audio="broken"),
    ]
    result = evaluate(model, dataset(*broken), config=CONFIG)
    whole = evaluate(model, dataset(*sound), config=CONFIG)
    assert result.expected == 9
    assert [p.id for p in result.predictions] == list("abcdef")
    assert result.reasons == {UNANSWERED: 1, UNUSABLE: 2}
    assert [(s.id, s.reason) for s in result.skipped] == [
        ("x", UNUSABLE),
        ("y", UNANSWERED),
        ("z", UNUSABLE),
    ]
    assert "broken.mp4" in result.skipped[0].detail
    for one, other in zip(result.predictions, whole.predictions, strict=True):
        assert one.prediction == other.prediction
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_broken_file_can_be_an_absent_sense():
    model = tiny.crema()
    config = dataclasses.replace(CONFIG, on_error="mask")
    samples = [*mixed(), ask("x", options=COLOURS, video="1", audio="broken"), ask("y", answer="")]
    data = dataset(*samples)
    result = evaluate(model, data, config=config)
    assert result.expected == len(result.predictions) + len(result.skipped) == 8
    assert result.reasons == {UNANSWERED: 1}
    masked = next(p for p in result.predictions if p.id == "x")
    assert masked.senses == ("video",)
    assert masked.absent["audio"].startswith(f"{UNUSABLE}: ")
    assert "broken.mp4" in masked.absent["audio"]
    assert result.absent["audio"][UNUSABLE] == 1
    alone = dataset(ask("x", options=COLOURS, video="1"))
    (expected,) = evaluate(model, alone, config=config).predictions
    assert masked.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert data.masked == {}  # another evaluation of the same data has its own policy


def test_a_broken_file_can_be_an_error():
    config = dataclasses.replace(CONFIG, on_error="error")
    with pytest.raises(MediaError, match=r"sample 'x', video: broken\.mp4"):
        evaluate(tiny.crema(), dataset(*mixed(), ask("x", video="broken")), config=config)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "none of 0"),
        ([ask("a", video="broken")], r"1 unusable media.*sample 'a', video: broken\.mp4"),
        ([ask("a", answer="", video="1")], UNANSWERED),
    ],
)
def test_nothing_scored_is_no_score(samples, message):
    with pytest.raises(CremaError, match=message):
        evaluate(tiny.crema(), dataset(*samples), config=CONFIG)


def test_an_answer_that_is_no_option_is_refused_before_anything_runs():
    samples = [ask("a", video="broken"), ask("b", options=COLOURS, answer="pink", video="1")]
    with pytest.raises(DataError, match=r"'b'.*not among its options"):
        evaluate(tiny.crema(), dataset(*samples), config=CONFIG)


@pytest.mark.parametrize(
    ("senses", "message"),
    [
        (["vidoe"], "did you mean 'video'"),
        (["thermal"], "the model has no sense 'thermal'; it has video, audio"),
    ],
)
def test_senses_that_are_not_there_are_named(senses, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(tiny.crema(), dataset(*mixed()), config=CONFIG, senses=senses)


def test_a_data_set_without_one_of_the_models_senses_is_refused():
    data = dataset(*mixed(), senses=("video",))
    with pytest.raises(ConfigError, match="the data set has no sense 'audio'; it has video"):
        evaluate(tiny.crema(), data, config=CONFIG)
    assert evaluate(tiny.crema(), data, config=CONFIG, senses=["video"]).senses == ("video",)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_size_changes_nothing(batch_size):
    model = tiny.crema()
    one = evaluate(model, dataset(*mixed()), config=CONFIG)
    config = EvalConfig(batch_size=batch_size, max_new_tokens=4)
    other = evaluate(model, dataset(*mixed()), config=config)
    for p, q in zip(one.predictions, other.predictions, strict=True):
        assert p.probabilities == pytest.approx(q.probabilities, abs=1e-5)
        assert dataclasses.replace(p, probabilities=()) == dataclasses.replace(q, probabilities=())


def test_two_runs_are_equal_also_from_a_model_in_training():
    model = tiny.crema(dropout=0.5).train()
    torch.manual_seed(1)
    one = evaluate(model, dataset(*mixed()), config=CONFIG)
    assert model.training
    assert model.adapters["audio"].training
    torch.manual_seed(2)
    assert evaluate(model, dataset(*mixed()), config=CONFIG) == one
    assert evaluate(model.eval(), dataset(*mixed()), config=CONFIG) == one
    assert not model.training


def test_the_model_is_in_training_again_after_an_error():
    model = tiny.crema().train()
    model.fusion.blocks["audio"].data.fill_(torch.nan)
    with pytest.raises(CremaError, match="not finite"):
        evaluate(model, dataset(*mixed()), config=CONFIG)
    assert model.training


def test_the_longest_answer_is_as_configured():
    data = dataset(ask("a", video="1"))
    words = [
        len(evaluate(tiny.crema(), data, config=c).predictions[0].prediction.split())
        for c in (EvalConfig(max_new_tokens=1), EvalConfig(max_new_tokens=6))
    ]
    assert words[0] <= 1 < words[1] <= 6


def test_majority_comes_from_the_training_samples():
    samples = [ask("a", answer="red", video="1"), ask("b", answer="blue", video="2")]
    train = [ask("t", answer="blue")]
    model = tiny.crema()
    assert evaluate(model, dataset(*samples), config=CONFIG).overall.majority is None
    result = evaluate(model, dataset(*samples), config=CONFIG, train=train)
    assert [p.majority for p in result.predictions] == [False, True]
    assert result.overall.majority == 0.5


def test_progress_counts_every_sample_once():
    samples = [*mixed(), ask("x", video="broken")]
    seen = []
    evaluate(
        tiny.crema(),
        dataset(*samples),
        config=CONFIG,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (7, 7)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_sound_samples_are_read_once_and_not_one_by_one():
    class Counting(NamedFeatures):
        reads = 0

        def features(self, sample, sense):
            Counting.reads += 1
            return super().features(sample, sense)

    samples = [ask(str(i), video=str(i), audio=str(i)) for i in range(6)]
    data = dataset(*samples)
    data.extractor = Counting("video", "audio")
    evaluate(tiny.crema(), data, config=CONFIG)
    assert Counting.reads == 12

"""Early exit as a curve: against the rule itself, sample by sample."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from named_features import ask, dataset
from rich.console import Console

import tiny
from open_crema.config import EvalConfig
from open_crema.errors import CremaError, DataError
from open_crema.evaluation.exit_curve import (
    Prices,
    Round,
    draw,
    exit_curve,
    outcomes,
    prices,
    table,
    write_curve,
)
from open_crema.evaluation.metrics import wilson
from open_crema.evaluation.run import evaluate_each
from open_crema.sense_costs import SenseCosts

THREE = ("video", "audio", "thermal")
COLOURS = ("red", "light blue", "green")
CONFIG = EvalConfig(batch_size=3, max_new_tokens=3)
PAID = Prices({"audio": 0.5, "video": 1.0, "thermal": 4.0}, ("audio",))

confidences = st.one_of(st.sampled_from([0.25, 0.5, 1.0]), st.floats(1e-9, 1.0))


@st.composite
def samples(draw_from):
    """Rounds that get dearer, a sense each; some samples have fewer senses."""
    steps = draw_from(st.lists(st.floats(0, 10), min_size=4, max_size=4))
    found = []
    for _ in range(draw_from(st.integers(1, 8))):
        paid, rounds = 0.0, []
        for senses in range(1, draw_from(st.integers(1, 4)) + 1):
            paid += steps[senses - 1]
            rounds.append(Round(draw_from(confidences), draw_from(st.booleans()), paid, senses))
        found.append(rounds)
    return found


def stopped(rounds, threshold):
    """The rule of ``ask --confidence``."""
    return next((r for r in rounds if r.confidence > threshold), rounds[-1])


@given(samples())
def test_every_point_is_what_the_rule_gives(rounds):
    found = list(outcomes(rounds))
    thresholds = [threshold for threshold, _ in found]
    assert thresholds == sorted(set(thresholds))
    assert set(thresholds) <= {0.0, *(r.confidence for own in rounds for r in own)}
    ends = [*thresholds[1:], 2.0]
    for (threshold, point), end in zip(found, ends, strict=True):
        last = math.nextafter(end, 0)  # the mean of two neighbours may be the upper one
        for p in (threshold, min((threshold + end) / 2, last), last):
            at = [stopped(own, p) for own in rounds]
            assert point.correct == sum(r.correct for r in at)
            assert point.seconds == pytest.approx(sum(r.seconds for r in at) / len(at))
            assert point.senses == sum(r.senses for r in at) / len(at)
        assert point.n == len(rounds)
        assert point.accuracy == point.correct / point.n
        assert point.interval == wilson(point.correct, point.n)


@given(samples())
def test_from_the_first_sense_to_all_of_them_at_a_rising_cost(rounds):
    found = [point for _, point in outcomes(rounds)]
    first, last = [own[0] for own in rounds], [own[-1] for own in rounds]
    assert found[0].correct == sum(r.correct for r in first)
    assert found[0].senses == 1
    assert found[-1].correct == sum(r.correct for r in last)
    assert found[-1].senses == sum(r.senses for r in last) / len(last)
    for before, after in pairwise(found):
        assert before.seconds <= after.seconds
        assert before.senses < after.senses


def questions():
    return [
        ask("a", options=COLOURS, video="1", audio="2", thermal="3"),
        ask("b", answer="two", video="2", audio="mute", question="how many"),
        ask("c", options=COLOURS[:2], video="3", question="which one of them"),
        ask("d", answer="one", audio="5", thermal="5", question="how many"),
        ask("e", options=COLOURS, answer="green", question="what was it"),
        ask("f", options=COLOURS, video="6", audio="6", thermal="1"),
    ]


@pytest.fixture(scope="module")
def curve():
    data = dataset(*questions(), senses=THREE)
    found = evaluate_each(
        tiny.crema(*THREE), data, [(), *PAID.subsets], config=CONFIG, confident=True
    )
    return exit_curve(found, PAID), found


def test_prefixes_and_the_primary_sense():
    assert PAID.subsets == [("video",), ("audio",), ("video", "audio"), THREE]
    assert Prices({"video": 1.0, "audio": 2.0}, ()).subsets == [("video",), ("video", "audio")]


def test_of_a_model(curve):
    curve, found = curve
    by_senses = {e.senses: e for e in found}
    assert set(curve.fixed) == set(PAID.subsets)
    for senses, outcome in curve.fixed.items():
        assert outcome.correct == by_senses[senses].overall.correct
        assert outcome.n == 6
    assert curve.fixed[THREE].senses == (3 + 1 + 1 + 2 + 0 + 3) / 6
    assert curve.fixed[THREE].seconds == pytest.approx((5.5 + 1 + 1 + 4.5 + 0 + 5.5) / 6)
    everything = curve.at(1.0)
    assert everything == curve.at(7.0)
    assert (everything.correct, everything.senses) == (
        curve.fixed[THREE].correct,
        curve.fixed[THREE].senses,
    )
    # The first sense that each has: what is absent makes no round.
    assert curve.at(0.0).senses == 5 / 6
    assert curve.at(0.0).seconds == pytest.approx((0.5 + 1 + 1 + 0.5 + 0 + 0.5) / 6)
    with pytest.raises(ValueError, match="below 0"):
        curve.at(-0.1)


def test_predictions_without_confidence_are_refused():
    data = dataset(*questions(), senses=THREE)
    found = evaluate_each(tiny.crema(*THREE), data, PAID.subsets, config=CONFIG)
    with pytest.raises(ValueError, match="without a confidence"):
        exit_curve(found, PAID)


def test_files_and_table(curve, tmp_path):
    curve, _ = curve
    path = write_curve(curve, tmp_path / "out")
    kept = json.loads(path.read_text())
    assert kept["order"] == ["audio", "video", "thermal"]
    assert kept["expected"] == kept["scored"] == 6
    assert [p["threshold"] for p in kept["points"]] == list(curve.thresholds)
    assert kept["points"][-1]["accuracy"] == curve.at(1).accuracy
    assert (tmp_path / "out" / "exit_curve.png").read_bytes()[1:4] == b"PNG"
    console = Console(width=100, record=True)
    console.print(table(curve))
    text = console.export_text()
    for said in (
        "0.95",
        "always + video",
        "always + thermal (all)",
        "expected 6 = scored 6",
        "video, thermal",
    ):
        assert said in text
    (tmp_path / "taken").touch()
    with pytest.raises(CremaError, match=r"taken.*cannot be written"):
        write_curve(curve, tmp_path / "taken")


def test_a_model_of_one_sense_has_one_point():
    data = dataset(*questions(), senses=("video",))
    paid = Prices({"video": 1.0}, ())
    found = evaluate_each(tiny.crema("video"), data, paid.subsets, config=CONFIG, confident=True)
    curve = exit_curve(found, paid)
    assert curve.thresholds == (0.0,)
    draw(curve)


def test_prices_are_those_of_most_samples(tmp_path):
    costs = SenseCosts(tmp_path / "costs.json")
    costs.note("audio by tiny", 8.0)
    found = prices(dataset(*questions(), senses=THREE), ("video", "audio"), costs)
    assert found == Prices({"audio": 8.0, "video": 16.0}, ("audio",))
    assert found.order == ("audio", "video")
    unmeasured = prices(dataset(*questions()), ("video",), SenseCosts(tmp_path / "none.json"))
    assert (unmeasured.unit, unmeasured.measured) == ("relative cost", ())
    with pytest.raises(DataError, match="no order of cost"):
        prices(dataset(ask("a")), ("video",), costs)

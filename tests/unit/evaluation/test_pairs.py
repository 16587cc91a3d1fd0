"""Questions that differ in one sense alone: how often a model is right about both."""

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named_features import ask, dataset

import tiny
from open_crema.config import Config, EvalConfig
from open_crema.errors import DataError
from open_crema.evaluation import metrics
from open_crema.evaluation.result import Evaluation, PairRow, Prediction, Skipped, write
from open_crema.evaluation.run import UNUSABLE, evaluate

COLOURS = ("red", "light blue", "green", "two")
CONFIG = EvalConfig(batch_size=3, max_new_tokens=3)


def said(id, correct, pairs, *, blind=False, chance=0.5, type=""):
    return Prediction(
        id=id,
        type=type,
        question="?",
        answers=("red",),
        prediction="red" if correct else "blue",
        correct=correct,
        options=(),
        probabilities=(),
        senses=("video",),
        absent={},
        blind=None if blind is None else "blue",
        blind_correct=blind,
        chance=chance,
        majority=None,
        pairs=pairs,
    )


def left_out(id, pairs, type=""):
    return Skipped(id, type, "?", UNUSABLE, "broken.mp4: damaged", pairs)


def rates(*predictions, skipped=()):
    expected = len(predictions) + len(skipped)
    return Evaluation(("video",), expected, predictions, tuple(skipped))


def test_pairs_are_those_who_share_a_name_under_a_sense():
    found = metrics.pair_up(
        [{"audio": "x"}, {"thermal": "x", "audio": "y"}, {}, {"audio": "x"}, {"thermal": "x"}]
    )
    assert list(found) == ["audio", "thermal"]
    assert found["audio"] == metrics.Paired(((0, 3),), 1)
    assert found["thermal"] == metrics.Paired(((1, 4),), 0)
    assert found["audio"].both([True, False, False, True, True]) == 1
    assert found["audio"].both([True, True, True, False, True]) == 0
    assert metrics.pair_up([{}, {}]) == metrics.pair_up([]) == {}


def test_a_pair_without_the_score_of_a_question_is_incomplete():
    named = [{"audio": "one"}, {"audio": "both"}, {"audio": "both"}]
    found = metrics.pair_up(named, [{"audio": "one"}, {"audio": "none"}, {"audio": "none"}])
    assert found["audio"] == metrics.Paired(((1, 2),), 2)


def test_a_pair_of_three_is_refused():
    for scored in range(4):
        named = [{"audio": "x"}] * 3
        with pytest.raises(ValueError, match="pair 'x' of audio has 3 questions"):
            metrics.pair_up(named[:scored], named[scored:])


def test_rates_of_pairs():
    row = rates(
        said("a", True, {"audio": "1"}, chance=0.5, blind=True),
        said("b", True, {"audio": "1"}, chance=0.25, blind=True),
        said("c", True, {"audio": "2"}, chance=0.5, blind=True),
        said("d", False, {"audio": "2"}, chance=0.5),
        said("e", True, {"audio": "3"}),
        said("f", False, {}),
    ).overall
    assert row.pairs == {
        "audio": PairRow(
            n=2,
            correct=1,
            accuracy=0.5,
            interval=metrics.wilson(1, 2),
            chance=(0.5 * 0.25 + 0.5 * 0.5) / 2,
            blind=0.5,
            incomplete=1,
        )
    }
    assert row.n == 6


def test_without_pairs_there_are_no_rows_of_them():
    assert rates(said("a", True, {})).overall.pairs == {}


def test_incomplete_pairs_alone_have_no_rates():
    skipped = [left_out("c", {"audio": "2"}), left_out("d", {"audio": "2"})]
    row = rates(said("a", True, {"audio": "1"}), skipped=skipped).overall
    assert row.pairs == {"audio": PairRow(0, 0, None, None, None, None, 2)}


def test_pairs_are_also_counted_by_type():
    found = rates(
        said("a", True, {"audio": "1"}, type="heard"),
        said("b", True, {"audio": "1"}, type="heard"),
        said("c", True, {"thermal": "1"}, type="felt"),
        said("d", False, {"thermal": "1"}, type="felt"),
        said("e", True, {"thermal": "2"}, type="felt"),
        said("f", True, {}, type="other"),
        skipped=[left_out("g", {"thermal": "2"}, type="felt")],
    )
    counts = {
        name: {sense: (p.n, p.correct, p.incomplete) for sense, p in row.pairs.items()}
        for name, row in {"all": found.overall, **found.types}.items()
    }
    assert counts == {
        "all": {"audio": (1, 1, 0), "thermal": (1, 0, 1)},
        "heard": {"audio": (1, 1, 0)},
        "felt": {"thermal": (1, 0, 1)},
        "other": {},
    }


def test_without_blind_answers_there_is_no_blind_rate():
    asked = [said(id, True, {"audio": "1"}, blind=None) for id in "ab"]
    assert rates(*asked).overall.pairs["audio"].blind is None


@st.composite
def groups(draw):
    """Predictions and skipped questions in pairs of up to three senses, some incomplete."""
    names = draw(st.lists(st.tuples(st.sampled_from(["video", "audio", "touch"]), st.integers())))
    size = draw(st.integers(1, 12))
    pairs = [{} for _ in range(size)]
    for sense, name in dict.fromkeys(names):
        for place in draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=2)):
            pairs[place].setdefault(sense, str(name))
    predictions, skipped = [], []
    for i, own in enumerate(pairs):
        if i and draw(st.integers(0, 3)) == 0:
            skipped.append(left_out(str(i), own))
        else:
            chance = draw(st.floats(0, 1))
            right, blind = draw(st.booleans()), draw(st.booleans())
            predictions.append(said(str(i), right, own, chance=chance, blind=blind))
    return predictions, skipped


@given(groups(), st.randoms(use_true_random=False))
def test_rates_of_pairs_are_bounded_by_those_of_their_questions_in_any_order(group, order):
    predictions, skipped = group
    rows = rates(*predictions, skipped=skipped).overall.pairs
    named = {(s, n) for x in (*predictions, *skipped) for s, n in x.pairs.items()}
    for sense, row in rows.items():
        members = {}
        for p in predictions:
            if sense in p.pairs:
                members.setdefault(p.pairs[sense], []).append(p)
        complete = [p for couple in members.values() if len(couple) == 2 for p in couple]
        right = sum(p.correct for p in complete)
        assert row.n == len(complete) / 2
        assert row.n + row.incomplete == sum(s == sense for s, _ in named)
        # Both right: at most half of the right ones, at least those that the wrong ones leave.
        assert max(0, right - row.n) <= row.correct <= right // 2
        if row.n:
            assert row.accuracy <= right / len(complete)
            assert row.interval[0] <= row.accuracy <= row.interval[1]
            assert 0 <= row.chance <= max(p.chance for p in complete)
    order.shuffle(predictions)
    order.shuffle(skipped)
    assert rates(*predictions, skipped=skipped).overall.pairs == rows


def told_apart(model, sense):
    """Seeds of two media of a sense, which the model tells apart, and what it says to them."""
    alone = [ask(str(seed), **{sense: str(seed)}) for seed in range(20)]
    found = evaluate(model, dataset(*alone), config=CONFIG, blind=False).predictions
    one = found[0]
    other = next(p for p in found if p.prediction != one.prediction)
    return {one.id: one.prediction, other.id: other.prediction}


@pytest.fixture(scope="module")
def model():
    return tiny.crema()


def with_pairs(sample, needs=(), **pairs):
    return dataclasses.replace(sample, pairs=pairs, needs=needs)


@pytest.mark.parametrize("sense", ["video", "audio"])
def test_only_with_the_sense_that_differs_are_both_right(model, sense):
    samples = [
        with_pairs(ask(seed, answer=answer, **{sense: seed}), **{sense: "1"})
        for seed, answer in told_apart(model, sense).items()
    ]
    seeing = evaluate(model, dataset(*samples), config=CONFIG)
    assert seeing.overall.pairs == {sense: PairRow(1, 1, 1.0, metrics.wilson(1, 1), 1 / 4, 0.0, 0)}
    (other,) = {"video", "audio"} - {sense}
    for senses in ([other], []):
        without = evaluate(model, dataset(*samples), config=CONFIG, senses=senses)
        assert without.overall.pairs[sense].accuracy == 0
        assert [p.prediction for p in without.predictions] == [seeing.predictions[0].blind] * 2


def test_in_a_2_by_2_group_every_question_is_in_two_pairs(model):
    group = [
        with_pairs(
            # Right is one answer where both are alike, the other where they are not.
            ask(f"{v}{a}", options=COLOURS[:2], answer=COLOURS[v != a], video=str(v), audio=str(a)),
            needs=("video", "audio"),
            video=f"audio {a}",
            audio=f"video {v}",
        )
        for v in (0, 1)
        for a in (0, 1)
    ]
    found = evaluate(model, dataset(*group), config=CONFIG)
    right = {p.id: p.correct for p in found.predictions}
    pairs = found.overall.pairs
    assert {sense: (row.n, row.incomplete) for sense, row in pairs.items()} == {
        "video": (2, 0),
        "audio": (2, 0),
    }
    assert pairs["video"].correct == right["00"] * right["10"] + right["01"] * right["11"]
    assert pairs["audio"].correct == right["00"] * right["01"] + right["10"] * right["11"]
    assert pairs["video"].blind == pairs["audio"].blind == 0
    assert found.overall.blind == 0.5  # as each answer is right twice
    assert pairs["video"].chance == 1 / 4
    assert {(p.needs, *p.pairs.items()) for p in found.predictions} == {
        (s.needs, *s.pairs.items()) for s in group
    }


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=4
    )
)
def test_blind_is_never_right_about_both_questions_of_one_text(model, drawn):
    samples = []
    for i, (choice, question, seed) in enumerate(drawn):
        for answer in COLOURS[:2]:
            sample = ask(
                f"{i}{answer}",
                options=COLOURS[:2] if choice else (),
                answer=answer,
                question=question,
                video=str(seed),
            )
            samples.append(with_pairs(sample, video=str(i)))
    random.Random(len(drawn)).shuffle(samples)
    row = evaluate(model, dataset(*samples), config=CONFIG).overall.pairs["video"]
    assert (row.n, row.blind) == (len(samples) / 2, 0)


def test_blind_is_computed_and_can_be_right_about_questions_of_different_text(model):
    asked = [
        ask(options[0], options=options, answer=options[0], video="1")
        for options in (COLOURS[:2], COLOURS[2:])
    ]
    blind = [p.blind for p in evaluate(model, dataset(*asked), config=CONFIG).predictions]
    samples = [
        dataclasses.replace(s, answers=(answer,), pairs={"video": "1"})
        for s, answer in zip(asked, blind, strict=True)
    ]
    assert evaluate(model, dataset(*samples), config=CONFIG).overall.pairs["video"].blind == 1


def test_a_question_that_is_skipped_leaves_its_pair_incomplete(model, tmp_path):
    def pair(name, *seeds):
        return [
            with_pairs(ask(f"{name}{i}", answer=COLOURS[i], video=seed), video=name)
            for i, seed in enumerate(seeds)
        ]

    samples = [*pair("whole", "1", "2"), *pair("half", "1", "broken"), *pair("no", *["broken"] * 2)]
    found = evaluate(model, dataset(*samples), config=CONFIG)
    row = found.overall.pairs["video"]
    assert (row.n, row.incomplete) == (1, 2)
    masked = evaluate(model, dataset(*samples), config=dataclasses.replace(CONFIG, on_error="mask"))
    assert masked.overall.pairs["video"].n == 3  # answered without the broken file

    data = tmp_path / "data.jsonl"
    data.write_text("{}")
    place = write(found, tmp_path / "out", config=Config(), model=model, data=data)
    written = json.loads(place.read_text())["pairs"]
    assert written == {"video": json.loads(json.dumps(dataclasses.asdict(row)))}
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"]: json.loads(line)["pairs"] for line in lines} == {
        s.id: s.pairs for s in samples
    }


def test_candidates_make_the_chance_of_a_pair(model):
    samples = [
        dataclasses.replace(ask(a, answer=a, video="1"), candidates=c, pairs={"video": "1"})
        for a, c in (("red", ("red", "green")), ("green", ("red", "green", "blue")))
    ]
    found = evaluate(model, dataset(*samples), config=CONFIG)
    assert [p.chance for p in found.predictions] == [1 / 2, 1 / 3]
    assert found.overall.pairs["video"].chance == pytest.approx(1 / 6)


def test_what_is_no_pair_is_refused_before_anything_runs(model):
    def in_pair(id, answer):
        return with_pairs(ask(id, answer=answer, video="broken"), audio="1")

    three = [in_pair("a", "red"), in_pair("b", "blue"), in_pair("c", "green")]
    with pytest.raises(DataError, match="pair '1' of audio has three questions, 'a', 'b', 'c'"):
        evaluate(model, dataset(*three), config=CONFIG)
    with pytest.raises(DataError, match="'a' and 'b' have the same answer 'red'"):
        evaluate(model, dataset(in_pair("a", "red"), in_pair("b", "Red")), config=CONFIG)
    stray = dataclasses.replace(in_pair("a", "red"), candidates=("blue", "green"))
    with pytest.raises(DataError, match="'a': its answer is not among its candidates"):
        evaluate(model, dataset(stray), config=CONFIG)

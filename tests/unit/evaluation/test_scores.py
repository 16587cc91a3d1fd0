"""Two scores side by side, groups of types, answers outside, and intervals by clip."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from named_features import ask, dataset
from rich.console import Console

import tiny
from open_crema import tasks
from open_crema.config import EvalConfig
from open_crema.data.sample import Batch
from open_crema.evaluation import metrics
from open_crema.evaluation.answer import answer
from open_crema.evaluation.beside import beside, table
from open_crema.evaluation.run import evaluate

CONFIG = EvalConfig(batch_size=3, max_new_tokens=3)
COLOURS = ("red", "light blue", "green")


@pytest.fixture(scope="module")
def model():
    return tiny.crema()


def of(model, *samples, task="jsonl"):
    return evaluate(model, dataset(*samples), config=CONFIG, task=tasks.get(task))


def test_a_lenient_score_stands_beside_the_strict_one(model):
    first = of(model, ask("a", answer="x", video="1")).predictions[0]
    assert first.prediction
    inside = f"the {first.prediction} one"
    found = of(model, ask("a", answer=inside, video="1"), ask("b", answer="zzz", video="1"))
    assert [(p.correct, p.lenient) for p in found.predictions] == [(False, True), (False, False)]
    assert (found.accuracy, found.overall.lenient) == (0.0, 0.5)
    said = found.summary()["scores"]
    assert "exact match" in said["strict"]
    assert said["lenient"] == tasks.get("jsonl").lenience
    assert found.summary()["lenient"] == 0.5


def test_letters_are_what_the_released_code_takes(model, monkeypatch):
    samples = [ask(str(i), options=COLOURS[: 2 + i % 2], video=str(i)) for i in range(4)]
    chosen = [1, 2, 0, 1]
    monkeypatch.setattr(type(model.backbone), "letters", lambda self, n: list(range(5, 5 + n)))

    def letters(self, batch, *, tokens=None):
        return [chosen[int(s.id)] for s in batch.samples]

    plain = answer(model, Batch(tuple(samples)), CONFIG, letters=True)
    assert {said.letter for said in plain} <= set(COLOURS)
    monkeypatch.setattr(type(model), "letters", letters)
    found = of(model, *samples)
    assert [p.letter for p in found.predictions] == [
        s.options[i] for s, i in zip(samples, chosen, strict=True)
    ]
    assert [p.lenient for p in found.predictions] == [
        p.letter == p.answers[0] for p in found.predictions
    ]


def test_letters_are_read_at_the_second_token():
    """By hand: greedy, the logits of A to C after what was said first."""
    model = tiny.crema()
    model.backbone.letters = lambda count: [3, 4, 5][:count]
    batch = Batch((ask("a", options=COLOURS, video="1"), ask("b", options=COLOURS, video="2")))
    prompt = model.prompt({}, batch)
    said = model.backbone.generate(prompt, max_new_tokens=2, scores=True)
    stops = model.backbone.stops
    for row, found in enumerate(model.letters(batch, tokens={})):
        first = int(said.scores[0][row].argmax())
        step = 0 if first in stops or len(said.scores) == 1 else 1
        assert found == int(said.scores[step][row][[3, 4, 5]].argmax())


def test_without_tokens_for_letters_there_is_no_lenient_score(model, monkeypatch):
    monkeypatch.setattr(type(model.backbone), "letters", lambda self, n: None)
    found = of(model, ask("a", options=COLOURS, video="1"), ask("b", answer="x", video="1"))
    assert found.predictions[0].lenient is None
    assert found.overall.lenient is None
    assert "letter" not in found.predictions[0].to_dict()


def test_spoken_options_are_what_is_scored(model):
    sample = ask("a", options=COLOURS, video="1")
    spoken = dataclasses.replace(sample, spoken=("one", "two", "three"))
    texts = dataclasses.replace(sample, options=("one", "two", "three"), answers=("one",))
    scores = [model.score(Batch((s,)), tokens={}).mean.tolist() for s in (spoken, texts)]
    prompts = [dataclasses.replace(s, question="?") for s in (spoken, texts)]
    same = [model.score(Batch((s,)), tokens={}).mean.tolist() for s in prompts]
    assert same[0] == same[1]
    assert len(scores[0][0]) == 3
    assert (spoken.target, texts.target) == ("one", "one")


def test_answers_that_are_none_of_the_candidates(model):
    said = of(model, ask("a", answer="x", video="1")).predictions[0].prediction
    known, outside = (
        dataclasses.replace(ask(id, answer=right, video="1"), candidates=candidates)
        for id, right, candidates in (("a", said, (said, "zzz")), ("b", "zzz", ("zzz", "yyy")))
    )
    row = of(model, known, outside).overall
    assert (row.accuracy, row.outside, row.inside) == (0.5, 1, 1.0)
    assert of(model, outside).overall.inside is None


def test_types_have_the_tasks_order_and_groups(model):
    names = ["TP", "DO", "CH", "CW"]
    samples = [ask(name, options=COLOURS, video="1", type=name) for name in names]
    found = of(model, *samples, task="nextqa")
    assert list(found.types) == ["CW", "CH", "TP", "DO"]
    assert {name: row.n for name, row in found.groups.items()} == {
        "Causal": 2,
        "Temporal": 1,
        "Descriptive": 1,
    }


def test_the_papers_numbers_stand_beside(model):
    samples = [
        dataclasses.replace(ask(n, options=COLOURS, video="1", type=n), split="val")
        for n in ("CW", "TN")
    ]
    task = tasks.get("nextqa")
    found = beside(task, samples, of(model, *samples, task="nextqa"))
    assert "the paper's val split has 4996 questions; this is 2" in found["differs"]
    assert set(found["ours"]) == {"Why", "Avg.C", "P&N", "Avg.T", "Avg"}
    row = next(r for r in found["rows"] if (r["method"], r["senses"]) == ("CREMA", "VFDN"))
    assert (row["table"], row["values"]["Avg"]) == (3, "73.9")
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(found, ["video"]))
    text = console.export_text()
    assert "not comparable: the paper's val split" in text
    assert "73.9" in text
    other = [dataclasses.replace(s, split="test") for s in samples]
    assert "evaluates on the val split; this is test" in task.differs(other)
    assert beside(tasks.get("jsonl"), samples, of(model, *samples)) is None


def test_real_videos_alone_are_the_papers():
    task = tasks.get("music_avqa")
    real, other = (
        dataclasses.replace(ask("a", video="1"), clip=c, split="test") for c in ("1", "v")
    )
    assert task.differs([real]) == ""
    assert "use the option split=real" in task.differs([real, other])


# Intervals by clip


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_intervals_hold_the_rate_and_are_the_same_again(right):
    clips = list(range(len(right)))
    low, high = metrics.bootstrap(right, clips, draws=200)
    assert 0 <= low <= sum(right) / len(right) + 1e-9
    assert high <= 1
    assert high >= sum(right) / len(right) - 1e-9
    assert (low, high) == metrics.bootstrap(right, clips, draws=200)


def test_alone_clips_give_about_wilsons():
    right = [i < 120 for i in range(200)]
    assert metrics.bootstrap(right, range(200)) == pytest.approx(metrics.wilson(120, 200), abs=0.02)


def test_questions_of_one_clip_widen_it():
    right = [i < 120 for i in range(200)]
    alone = metrics.bootstrap(right, range(200))
    together = metrics.bootstrap(right, [i // 20 for i in range(200)])
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_all_or_none_right_is_wilsons():
    assert metrics.bootstrap([True] * 5, range(5)) == metrics.wilson(5, 5)
    assert metrics.bootstrap([False] * 5, [0] * 5) == metrics.wilson(0, 5)
    with pytest.raises(ValueError, match="no question"):
        metrics.bootstrap([], [])


def test_rates_need_not_be_whole():
    values = [random.Random(i).random() for i in range(50)]
    low, high = metrics.bootstrap(values, range(50))
    assert low < sum(values) / 50 < high

"""The audit's protocol: what is open is found to be open, and what is closed is found closed."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from open_crema import cli
from open_crema.cli import audit as audit_command
from open_crema.errors import ConfigError
from open_crema.senseqa import audit as audits
from open_crema.senseqa import classify
from open_crema.senseqa.audit import Audit, Rate, Row, Seen, audit, judge
from open_crema.senseqa.classify import FOREST, LINEAR, answers, folds, open_to, words
from open_crema.senseqa.sets import Spec, groups
from open_crema.senseqa.types import TYPES

KINDS = ("thermal_hottest", "audio_count", "two_nearer_hotter")


@pytest.fixture(autouse=True, scope="module")
def small_forests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "TREES", 10)
        yield


def asked(name, n=120):
    """Questions and the numbers of their groups."""
    every = list(groups(Spec("val", 3, n, (name,))))
    questions = tuple(question for group in every for question in group.questions)
    return questions, np.array([group.turn for group in every for _ in group.questions])


def noise(numbers, width=4):
    """Features that tell nothing, the same in the whole group."""
    return np.random.default_rng(0).normal(size=(numbers.max() + 1, width))[numbers]


def truth(questions):
    """Features that tell the answer."""
    answers = sorted({question.answer for question in questions})
    return np.array([[q.answer == a for a in answers] for q in questions], dtype=float)


def row(name, without, seen, n=120):
    questions, numbers = asked(name, n)
    features = {audits.WITH: seen(questions, numbers)}
    (sense,) = TYPES[name].flips
    features[sense] = without(questions, numbers)
    (found,) = judge(Seen(name, questions, numbers, features), 0.999)
    return found


def closed(questions, numbers):
    return noise(numbers)


def leaking(questions, numbers):
    return truth(questions)


def test_features_that_tell_nothing_are_closed_and_at_chance():
    found = row("audio_count", closed, closed, 300)
    assert found.closed
    assert found.without_pairs.rate == 0
    assert found.verdict == audits.UNSOLVED
    assert found.chance == pytest.approx(0.2)
    assert found.without.rate == pytest.approx(0.2, abs=0.06)


def test_a_planted_leak_is_found():
    found = row("audio_count", leaking, leaking)
    assert not found.closed
    assert found.without_pairs.rate == 1
    assert found.verdict == audits.SOLVED
    assert (found.seen.rate, found.seen_pairs.rate) == (1, 1)


def test_a_leak_of_what_the_two_answers_of_a_pair_are_is_found():
    """No pair can be answered, and still it is more than chance."""

    def narrowed(questions, numbers):
        both = np.zeros((numbers.max() + 1, 5))
        np.add.at(both, numbers, truth(questions))
        return both[numbers]

    found = row("audio_count", narrowed, leaking)
    assert found.without_pairs.rate == 0
    assert found.without.rate == 0.5
    assert not found.closed


def test_what_is_more_than_chance_and_seldom_a_pair_is_hard():
    def often(questions, numbers):
        lies = np.random.default_rng(1).random(len(questions)) < 0.5
        told = truth(questions)
        told[lies] = truth(questions)[np.random.default_rng(2).permutation(len(questions))][lies]
        return told

    found = row("audio_count", closed, often, 300)
    assert found.verdict == audits.HARD
    assert found.seen_pairs.rate < 0.5 < found.seen.rate


def test_a_leak_in_the_words_is_found(monkeypatch):
    questions, numbers = asked("audio_count")
    told = tuple(replace(q, text=f"{q.text} {q.answer}") for q in questions)
    features = {audits.WITH: noise(numbers), "audio": noise(numbers)}
    (found,) = judge(Seen("audio_count", told, numbers, features), 0.999)
    assert not found.closed
    assert found.blind.rate > 0.9


def test_folds_do_not_split_groups():
    numbers = np.repeat(np.arange(53), 4)
    at = folds(numbers)
    assert set(at) == {0, 1, 2, 3, 4}
    assert all(len(set(at[numbers == group])) == 1 for group in range(53))
    assert np.bincount(at).tolist() == [44, 44, 40, 44, 40]


@pytest.mark.parametrize("kinds", [(LINEAR,), (FOREST,), (LINEAR, FOREST)])
@pytest.mark.parametrize("each", [False, True])
def test_answers_are_options(kinds, each):
    questions, numbers = asked("video_colour", 60)
    said = answers(questions, words(questions, each), numbers, kinds)
    assert all(one in open_to(q) for one, q in zip(said, questions, strict=True))
    by_group = {}
    for one, number in zip(said, numbers, strict=True):
        by_group.setdefault(number, set()).add(one)
    assert all(len(found) == 1 for found in by_group.values())


@pytest.mark.parametrize("kinds", [(LINEAR,), (FOREST,)])
def test_candidates_are_told_apart_by_their_own_features(kinds):
    questions, numbers = asked("flow_fastest", 60)
    told = np.array([[[float(c == q.answer)] for c in q.candidates] for q in questions])
    said = answers(
        questions, told + 0.1 * np.random.default_rng(0).normal(size=told.shape), numbers, kinds
    )
    assert said == [q.answer for q in questions]


def test_intervals_are_wilsons_and_those_of_pairs_are_halved():
    rate = Rate.of(5, 10, 0.999)
    assert (rate.low, rate.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert rate.lowest < rate.low < rate.rate < rate.high < rate.highest
    half = Rate.of(10, 10, 0.999, part=0.5)
    assert (half.rate, half.high) == (0.5, 0.5)
    assert half.surely_holds(0.5)
    assert not half.surely_holds(0.51)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("audit")
    return out, audit(30, seed=5, split="train", types=KINDS, out=out, workers=1)


def test_an_audit_asks_whole_groups_and_no_pair_is_answered_without_the_sense(small):
    _, found = small
    assert [(r.type, r.sense, r.questions, r.pairs) for r in found.rows] == [
        ("audio_count", "audio", 30, 15),
        ("thermal_hottest", "thermal", 30, 15),
        ("two_nearer_hotter", "depth", 32, 16),
        ("two_nearer_hotter", "thermal", 32, 16),
    ]
    assert all(r.without_pairs.rate == 0 for r in found.rows)
    assert all(r.closed for r in found.rows)
    assert all(r.seen.rate > 0.8 for r in found.rows)
    assert found.sure == pytest.approx(1 - 0.05 / 8)


def test_an_audit_goes_on_with_the_features_that_are_there(small, monkeypatch):
    out, found = small
    monkeypatch.setattr(audits, "look", None)
    again = audit(30, seed=5, split="train", types=KINDS[::-1], out=out, workers=1)
    assert again == found


@pytest.mark.parametrize("damage", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_damaged_features_and_those_of_another_set_are_made_again(tmp_path, damage):
    held = tmp_path / "features" / "audio_count.npz"
    held.parent.mkdir()
    held.write_bytes(damage)
    audit(4, split="train", types=["audio_count"], out=tmp_path, workers=1)
    made = held.read_bytes()
    audit(4, split="train", types=["audio_count"], out=tmp_path, workers=1)
    assert held.read_bytes() == made != damage
    audit(4, seed=9, split="train", types=["audio_count"], out=tmp_path, workers=1)
    assert held.read_bytes() != made


def test_two_processes_find_what_one_does(small):
    _, found = small
    two = audit(30, seed=5, split="train", types=["audio_count"], workers=2)
    assert two.rows[0].seen.rate == found.rows[0].seen.rate  # by a linear classifier


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"types": ["audio_cuont"]}, "did you mean 'audio_count'"),
        ({"split": "outside"}, "checks of others"),
        ({"split": "vla"}, "did you mean 'val'"),
        ({"n": 0}, "give at least 1"),
        ({"workers": -1}, "workers"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        audit(**{"n": 10, **options})


def result(*, closed=True):
    good, bad = Rate(1.0, 0.9, 1.0, 0.8, 1.0), Rate(0.5, 0.4, 0.6, 0.3, 0.7)
    none = Rate(0.0, 0.0, 0.1, 0.0, 0.2)
    one = Row("audio_first", "audio", 30, 15, 0.5, bad, bad, none, good, good)
    if not closed:
        one = replace(one, without_pairs=bad)
    return Audit("val", 0, 30, 0.975, (one,))


@pytest.fixture
def crema(monkeypatch):
    """The command line with this command alone."""
    monkeypatch.setattr(cli, "COMMANDS", (SimpleNamespace(add=audit_command.add),))
    return lambda *words: cli.main(["audit", *map(str, words)])


def test_the_command_prints_and_writes_a_table(crema, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(audits, "audit", lambda n, **options: result())
    tmp_path = tmp_path / "deep" / "out"
    assert crema("senseqa", "--n", 30, "--types", "audio_first", "--out", tmp_path) == 0
    assert "audio_first" in capsys.readouterr().out
    report = json.loads((tmp_path / "audit.json").read_text())
    command = "crema data audit senseqa --n 30 --seed 0 --split val --types audio_first"
    assert report["command"] == command
    assert report["rows"][0]["closed"] is True
    text = (tmp_path / "audit.md").read_text()
    assert command in text
    assert "| audio_first | audio | 30 | 50.0 | 50.0 (40.0-60.0) |" in text
    assert crema("senseqa", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == report["rows"]


def test_the_command_fails_where_a_type_is_open(crema, monkeypatch, capsys):
    monkeypatch.setattr(audits, "audit", lambda n, **options: result(closed=False))
    assert crema("senseqa") == 2
    assert "audio_first" in capsys.readouterr().err


def test_the_command_names_what_it_does_not_know(crema, capsys):
    assert crema("senseqa", "--types", "audio_cuont") == 2
    assert "did you mean 'audio_count'" in capsys.readouterr().err
    assert crema("sensqa") == 2
    assert "did you mean 'senseqa'" in capsys.readouterr().err


def test_the_command_names_the_extra_that_is_missing(crema, monkeypatch, capsys):
    for name in ("audit", "classify", "looks", "probes"):
        monkeypatch.delitem(sys.modules, f"open_crema.senseqa.{name}")
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert crema("senseqa") == 2
    assert "pip install 'open-crema[audit]'" in capsys.readouterr().err


def test_the_command_shows_its_help():
    parser = argparse.ArgumentParser()
    audit_command.add(parser.add_subparsers())
    assert parser.parse_args(["audit", "senseqa"]).n == 2000

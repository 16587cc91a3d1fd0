"""docs/real-footage.jsonl: thirty questions that no habit of answering gets right."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from open_crema import modality
from open_crema.tasks import jsonl

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "real-footage.jsonl"
MEDIA = Path(os.environ.get("CREMA_REAL_MEDIA") or ROOT.parent / "shared" / "data" / "media")


@pytest.fixture(scope="module")
def samples():
    return jsonl.load(FILE, media_root=MEDIA)


def test_thirty_multiple_choice_questions(samples):
    assert len(samples) == len({sample.id for sample in samples}) == 30
    for sample in samples:
        assert 2 <= len(sample.options) <= 5, sample.id
        assert len(sample.answers) == 1, sample.id
        assert sample.answers[0] in sample.options, sample.id
        assert sample.type, sample.id


def test_needs_are_senses_that_the_media_have(samples):
    assert sum("video" in sample.media for sample in samples) >= 18
    assert sum(bool({*sample.needs} - {"video"}) for sample in samples) >= 10
    for sample in samples:
        assert set(sample.needs) <= set(modality.names()), sample.id
        assert set(sample.needs) <= set(sample.media), sample.id


def test_no_position_and_no_word_is_mostly_right(samples):
    positions = Counter(sample.options.index(sample.answers[0]) for sample in samples)
    assert max(positions.values()) <= 0.45 * len(samples)
    of_two = Counter(s.options.index(s.answers[0]) for s in samples if len(s.options) == 2)
    assert of_two[0] == of_two[1]
    words = Counter(sample.answers[0] for sample in samples)
    assert max(words.values()) <= 0.15 * len(samples)


def test_types_of_two_options_have_both_answers_as_often(samples):
    answers = defaultdict(Counter)
    for sample in samples:
        if len(sample.options) == 2:
            answers[sample.type].update(dict.fromkeys(sample.options, 0))
            answers[sample.type][sample.answers[0]] += 1
    assert sum({"yes", "no"} == set(found) for found in answers.values()) >= 3
    for name, found in answers.items():
        assert len(set(found.values())) == 1, (name, found)


def test_pairs_are_whole(samples):
    pairs = defaultdict(list)
    for sample in samples:
        for sense, name in sample.pairs.items():
            pairs[sense, name].append(sample)
    assert pairs
    for (sense, name), two in pairs.items():
        assert len(two) == 2, (sense, name)
        assert len({sample.question for sample in two}) == 1, (sense, name)
        assert len({sample.answers for sample in two}) == 2, (sense, name)
        assert all(set(sample.media) == {sense} for sample in two), (sense, name)


def test_the_page_lists_every_question(samples):
    page = (ROOT / "docs" / "real-footage.md").read_text(encoding="utf-8")
    for sample in samples:
        (row,) = [line for line in page.split("\n") if line.startswith(f"| {sample.id} |")]
        assert f"| {sample.answers[0]} |" in row
        for path in sample.media.values():
            assert f"`{Path(path).relative_to(MEDIA).as_posix()}`" in row


@pytest.mark.skipif(
    not MEDIA.is_dir(), reason=f"no recordings at {MEDIA}; name their folder by CREMA_REAL_MEDIA"
)
def test_the_media_exist(samples):
    missing = {path for sample in samples for path in sample.media.values()}
    assert not {path for path in missing if not Path(path).is_file()}

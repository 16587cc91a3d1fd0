"""Answers of simple classifiers to questions that they were not fitted on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from open_crema.senseqa.looks import Array
from open_crema.senseqa.sets import Question

FOLDS = 5
TREES = 100  # of a forest
LINEAR, FOREST = "linear", "forest"


def folds(groups: Array) -> Array:
    """For each question the fold that it is answered in, by its group's number.

    Folds are stretches of consecutive groups: all answers are equally frequent in every stretch. In
    folds that are drawn they are not, and what is rarer in a fold is then more frequent in the
    others: a classifier that has nothing but frequencies would be right less often than by chance.
    """
    return np.asarray(groups * FOLDS // (groups.max() + 1))


def labels(questions: Sequence[Question]) -> list[str]:
    """All candidates of these questions."""
    return sorted({candidate for one in questions for candidate in one.candidates})


def open_to(question: Question) -> tuple[str, ...]:
    """What may be answered."""
    return question.options or question.candidates


def words(questions: Sequence[Question], each: bool) -> Array:
    """Features of the text and the options: of every question, or of each of its candidates.

    [n, d]: how often each word of any of the texts occurs, and for each label its place among the
    options. [n, candidates, d]: which label a candidate is, and its places.
    """
    known = labels(questions)
    if each:
        return np.array([[_as_candidate(q, c, known) for c in q.candidates] for q in questions])
    texts = [re.findall(r"\w+", question.text.lower()) for question in questions]
    vocabulary = sorted({word for text in texts for word in text})
    rows = []
    for question, text in zip(questions, texts, strict=True):
        places = [_place(label, question.options) for label in known]
        rows.append([*map(text.count, vocabulary), *places, *(place > 0 for place in places)])
    return np.array(rows, dtype=np.float64)


def _as_candidate(question: Question, candidate: str, known: Sequence[str]) -> list[float]:
    places = _place(candidate, question.candidates), _place(candidate, question.options)
    return [*(float(candidate == label) for label in known), *places]


def _place(word: str, words: Sequence[str]) -> int:
    """From 1; 0 where it is not there."""
    return words.index(word) + 1 if word in words else 0


def answers(
    questions: Sequence[Question], features: Array, groups: Array, kinds: Sequence[str]
) -> list[str]:
    """What the classifiers of these kinds together answer, each question by those that were fitted
    on the questions of other folds. features: [n, d], or [n, candidates, d]."""
    at, found = folds(groups), [""] * len(questions)
    scores = _by_candidate if features.ndim == 3 else _by_question
    for fold in range(FOLDS):
        here = np.flatnonzero(at == fold)
        if not len(here):
            continue
        table = scores(questions, features, at != fold, here, kinds)
        for place, row in zip(here.tolist(), table, strict=True):
            likely = [row[option] for option in open_to(questions[place])]
            found[place] = open_to(questions[place])[int(np.argmax(likely))]
    return found


def _by_question(
    questions: Sequence[Question],
    features: Array,
    fitted: Array,
    asked: Array,
    kinds: Sequence[str],
) -> list[dict[str, float]]:
    """For each question asked the probability of every label."""
    right = np.array([question.answer for question in questions])
    total = dict.fromkeys(labels(questions), 0.0)
    found = [dict(total) for _ in asked]
    for kind in kinds:
        model = _model(kind).fit(features[fitted], right[fitted])
        for row, probabilities in zip(found, model.predict_proba(features[asked]), strict=True):
            for label, probability in zip(model.classes_, probabilities, strict=True):
                row[str(label)] += float(probability)
    return found


def _by_candidate(
    questions: Sequence[Question],
    features: Array,
    fitted: Array,
    asked: Array,
    kinds: Sequence[str],
) -> list[dict[str, float]]:
    """For each question asked how likely every candidate is to be right.

    A candidate is seen by its features and by what these differ from those of the others.
    """
    seen = np.concatenate([features, features - features.mean(axis=1, keepdims=True)], axis=2)
    rows, right = [], []
    for place in np.flatnonzero(fitted).tolist():
        question = questions[place]
        for option in open_to(question):
            rows.append(seen[place, question.candidates.index(option)])
            right.append(option == question.answer)
    found = [dict.fromkeys(questions[place].candidates, 0.0) for place in asked.tolist()]
    for kind in kinds:
        model = _model(kind).fit(np.array(rows), np.array(right))
        likely = model.predict_proba(seen[asked].reshape(-1, seen.shape[2]))[:, 1]
        for row, values in zip(found, likely.reshape(len(asked), -1), strict=True):
            for candidate, value in zip(row, values, strict=True):
                row[candidate] += float(value)
    return found


def _model(kind: str) -> Any:
    if kind == FOREST:
        return ExtraTreesClassifier(TREES, min_samples_leaf=3, random_state=0)
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))

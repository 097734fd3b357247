"""Blends: majority vote against counting, means and probabilities against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from results.blending import blend, majority_vote, mean_score, shares
from results.predictions import Prediction

KINDS = {"colour": "classification", "length": "regression"}
ROW = np.arange(1)


def test_majority_vote_and_its_ties() -> None:
    values = np.array([[0.0, 2, 2, 1], [0, 1, 1, 0], [1, 1, 0, 2]])
    ones = np.ones(3)
    assert majority_vote(values, ones).tolist() == [0, 1, 0, 0], "a tie goes to the smaller label"
    assert majority_vote(values, np.array([3.0, 1, 1])).tolist() == [0, 2, 2, 1], "weights count"
    sure = np.zeros((3, 4, 3))
    sure[np.arange(3)[:, None], np.arange(4), values.astype(int)] = [[0.4], [0.5], [0.9]]
    assert majority_vote(values, ones, sure).tolist() == [0, 1, 0, 2], "or to the more probable label"
    even = np.full((3, 4, 3), 1 / 3)
    assert majority_vote(values, ones, even).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_majority_vote_equals_counting(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 4, (5, 50)).astype(float)
    counted = [min(set(column), key=lambda label: (-list(column).count(label), label)) for column in values.T]
    assert majority_vote(values, np.ones(5)).tolist() == counted


def test_mean_score() -> None:
    assert mean_score(np.array([[0.0, 4], [3, 1]]), np.array([1.0, 2])).tolist() == [2, 2]


def test_probabilities_are_averaged() -> None:
    sure, unsure = np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]])
    members = [{"colour": Prediction(ROW, p.argmax(axis=1).astype(float), p)} for p in (sure, unsure)]
    for weights, label in (([1.0, 1], 0), ([1, 5], 1), ([0, 1], 1), ([2, 0], 0)):
        assert blend(members, {"colour": np.array(weights)}, "average", KINDS)["colour"].tolist() == [label], weights


def test_tasks_have_weights_of_their_own() -> None:
    members = [{task: Prediction(ROW, np.array([value])) for task in KINDS} for value in (0.0, 1.0)]
    mixed = blend(members, {"colour": np.array([1.0, 0]), "length": np.array([1.0, 3])}, "average", KINDS)
    assert {task: values.tolist() for task, values in mixed.items()} == {"colour": [0], "length": [0.75]}


def test_members_may_know_different_numbers_of_classes() -> None:
    certain = Prediction(ROW, np.array([3.0]))
    unsure = Prediction(ROW, np.array([1.0]), np.array([[0.3, 0.7]]))
    parts = shares([certain, unsure], "classification")
    assert [part.tolist() for part in parts] == [[[0, 0, 0, 1]], [[0.3, 0.7, 0, 0]]]

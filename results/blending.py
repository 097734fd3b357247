"""Blends: the members' predictions of each task combined by weight, into one prediction a row.

    vote       classes: the label with the largest weight; scores: the weighted mean (`beyond_bert`)
    average    classes: the most probable one by the weighted mean of probabilities; scores: the weighted mean

All functions are pure functions of arrays: M members, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from results.predictions import Member, Prediction
from results.scoring import Vector

Weights = Mapping[str, Vector]
"""Task -> weights [M] of the members, none negative and not all 0."""


def majority_vote(values: Vector, weights: Vector, probabilities: Vector | None = None) -> Vector:
    """Majority vote [N]: the label with the largest total weight [M] in each column of values [M, N].

    Of tied labels the one with the larger weighted sum of probabilities [M, N, C] wins, if these are given; labels must
    then be 0..C-1. Without probabilities, or if the sums tie too, the smaller label wins.
    """
    classes = np.unique(values)  # [C'], ascending, so that argmax takes the smaller of tied labels
    votes = np.stack([weights @ (values == label) for label in classes], axis=1)  # [N, C']
    tied = np.isclose(votes, votes.max(axis=1, keepdims=True), rtol=0, atol=1e-9)
    totals = np.zeros_like(votes)
    if probabilities is not None:
        totals = np.einsum("m,mnc->nc", weights, probabilities)[:, classes.astype(int)]
    labels: Vector = classes[np.argmax(np.where(tied, totals, -np.inf), axis=1)]
    return labels


def mean_score(values: Vector, weights: Vector) -> Vector:
    """Mean [N] of values [M, N], weighted by weights [M]; works for any shape [M, ...]."""
    mean: Vector = np.tensordot(weights / weights.sum(), values, axes=1)
    return mean


def vote(predictions: Sequence[Prediction], weights: Vector, kind: str) -> Vector:
    """Combination by vote [N]: majority vote for classes, weighted mean for scores."""
    values = np.stack([prediction.values for prediction in predictions])
    if kind == "regression":
        return mean_score(values, weights)
    return majority_vote(values, weights, _probabilities(predictions))


def average(predictions: Sequence[Prediction], weights: Vector, kind: str) -> Vector:
    """Combination by average [N]: the most probable class by the mean probabilities, the weighted mean for scores.

    A member without probabilities is certain of its classes.
    """
    return decided(np.tensordot(weights, np.stack(shares(predictions, kind)), axes=1), float(weights.sum()), kind)


def shares(predictions: Sequence[Prediction], kind: str, classes: int = 1) -> list[Vector]:
    """What `average` takes the mean of, for each member: scores [N], or probabilities [N, C] of at least `classes`
    classes."""
    if kind == "regression":
        return [prediction.values for prediction in predictions]
    widths = [0 if p.probabilities is None else p.probabilities.shape[1] for p in predictions]
    classes = max([classes, *widths, *(int(prediction.values.max(initial=0)) + 1 for prediction in predictions)])
    certain = np.eye(classes)
    return [
        certain[p.values.astype(int)]
        if p.probabilities is None
        else np.pad(p.probabilities, ((0, 0), (0, classes - width)))
        if width < classes
        else p.probabilities
        for p, width in zip(predictions, widths, strict=True)
    ]


def decided(total: Vector, weight: float, kind: str) -> Vector:
    """Predictions [N] by the sum of members of this total weight: of their scores [N], or probabilities [N, C]."""
    if kind == "regression":
        return total / weight
    if total.shape[1] == 2:  # ten times as fast as argmax; of equal classes the first, as there
        return (total[:, 1] > total[:, 0]).astype(np.float64)
    likeliest: Vector = np.argmax(total, axis=1).astype(np.float64)
    return likeliest


COMBINATIONS: dict[str, Callable[[Sequence[Prediction], Vector, str], Vector]] = {"vote": vote, "average": average}
"""Combination -> function from the members' predictions for one task, weights [M] and the task's kind to values [N]."""


def blend(
    members: Sequence[Member], weights: Weights, combination: str, kinds: Mapping[str, str]
) -> dict[str, Vector]:
    """The ensemble's predictions [N] of each task with weights. If only one member has weight in a task, they are that
    member's own predictions."""
    return {
        task: _blended([member[task] for member in members], np.asarray(own, np.float64), combination, kinds[task])
        for task, own in weights.items()
    }


def _blended(predictions: Sequence[Prediction], weights: Vector, combination: str, kind: str) -> Vector:
    heavy = [(prediction, weight) for prediction, weight in zip(predictions, weights, strict=True) if weight]
    if len(heavy) == 1:
        return heavy[0][0].values
    return COMBINATIONS[combination]([prediction for prediction, _ in heavy], weights[weights != 0], kind)


def mean_probabilities(predictions: Sequence[Prediction], weights: Vector) -> Vector | None:
    """Mean [N, C] of the members' probabilities, weighted by weights [M]; None if a member has none."""
    probabilities = _probabilities(predictions)
    return None if probabilities is None else mean_score(probabilities, weights)


def _probabilities(predictions: Sequence[Prediction]) -> Vector | None:
    """Probabilities [M, N, C] of the members; None if a member has none."""
    present = [prediction.probabilities for prediction in predictions if prediction.probabilities is not None]
    return np.stack(present) if len(present) == len(predictions) else None

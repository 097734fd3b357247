"""Growing ensembles: the scores of an ensemble that each of M members might join, computed from running sums.

An ensemble of averages is the sum of its members, so a candidate costs one addition and no blend from scratch.

    accuracy    row n is right if the label's lead over every other class c, summed over the ensemble, is positive:
                sum_k (p_k[label] - p_k[c]) + (p_m[label] - p_m[c]) > 0
    pearson     with s the centred sum and x_m the centred scores of member m
                r = (s y + x_m y) / (|y| sqrt(s s + 2 s x_m + x_m x_m)); only the products s x_m change with a pick
    others      the ensemble grown by each member is scored from scratch

Scores equal those of `results.blending` with the average, exactly where sums of leads are exact (as those of float16
probabilities are in float64), ties included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from results.blending import decided, shares
from results.predictions import Member, Prediction
from results.scoring import Scoring, Vector

Places = NDArray[np.intp] | slice
"""Some of the members, by their places."""
EVERYBODY = slice(None)


class Growth(Protocol):
    """An ensemble to which members are added one after the other. It begins without members."""

    def values(self, among: Places = EVERYBODY) -> Vector:
        """The score of the ensemble grown by each member among these."""
        ...

    def add(self, member: int) -> None:
        """Add a member; one that is there already counts once more."""
        ...

    def clear(self) -> None:
        """Remove every member."""
        ...


class Accuracy:
    """Accuracy of an average of class probabilities."""

    def __init__(self, predictions: Sequence[Prediction], labels: Vector) -> None:
        truth = labels.astype(np.intp)
        parts = shares(predictions, "classification", int(truth.max()) + 1)
        others = np.arange(parts[0].shape[1] - 1)[:, None]
        others = others + (others >= truth)  # [C-1, N], the classes other than the label, ascending
        self._lead = _leads(parts, truth, others)
        """[C-1, M, N], by how much each member prefers the label to each other class."""
        self._wins_ties = truth < others
        self.clear()

    def values(self, among: Places = EVERYBODY) -> Vector:
        right: NDArray[np.bool_] | None = None
        for lead, total, wins in zip(self._lead, self._total, self._wins_ties, strict=True):
            ahead = lead[among] > _below(-total, wins, lead.dtype)
            right = ahead if right is None else np.logical_and(right, ahead, out=right)
        assert right is not None, "there are at least two classes"
        return np.asarray(right.sum(axis=1, dtype=np.uint32) / right.shape[1])

    def add(self, member: int) -> None:
        self._total += self._lead[:, member]

    def clear(self) -> None:
        self._total = np.zeros(self._wins_ties.shape)


def _leads(parts: Sequence[Vector], truth: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.floating]:
    """Leads [C-1, M, N] of the label: as float32, in half the time and memory, if that is exact for all of them."""
    rows = np.arange(len(truth))
    leads: NDArray[np.floating] = np.empty((len(others), len(parts), len(truth)), np.float32)
    place = 0
    while place < len(parts):
        part = parts[place]
        exact = np.subtract(part[rows, truth], part[rows, others], dtype=np.float64)
        leads[:, place] = exact
        if leads.dtype == np.float32 and not np.array_equal(leads[:, place], exact):
            leads, place = np.empty(leads.shape), 0
        else:
            place += 1
    return leads


def _below(bound: Vector, closed: NDArray[np.bool_], kind: np.dtype[np.floating]) -> NDArray[np.floating]:
    """Thresholds t [N] of this type: x > t for a number x of this type where x > bound, or x >= bound where closed."""
    near = bound.astype(kind)
    too_high = (near > bound) | (closed & (near == bound))
    return np.where(too_high, np.nextafter(near, kind.type(-np.inf)), near)


class Pearson:
    """Pearson correlation of a mean of scores."""

    def __init__(self, predictions: Sequence[Prediction], labels: Vector) -> None:
        scores = np.stack(shares(predictions, "regression")).astype(np.float64)
        self._largest = np.abs(scores).max(axis=1)
        self._centred = scores - scores.mean(axis=1, keepdims=True)
        truth = labels - labels.mean()
        self._undefined = constant(float(truth @ truth), float(np.abs(labels).max()), len(labels))
        self._with_truth = np.einsum("mn,n->m", self._centred, truth / (np.linalg.norm(truth) or 1.0))
        self._squares = np.einsum("mn,mn->m", self._centred, self._centred)
        self.clear()

    def values(self, among: Places = EVERYBODY) -> Vector:
        square = self._square + 2 * self._with_sum[among] + self._squares[among]
        without = constant(square, self._bound + self._largest[among], self._centred.shape[1])
        without |= square <= np.finfo(np.float64).eps * (self._square + self._squares[among])  # they cancel each other
        r = (self._sum_with_truth + self._with_truth[among]) / np.sqrt(np.where(without, 1.0, square))
        return np.where(without | self._undefined, 0.0, np.clip(r, -1.0, 1.0))

    def add(self, member: int) -> None:
        self._square += 2 * self._with_sum[member] + self._squares[member]
        self._sum_with_truth += self._with_truth[member]
        self._with_sum += np.einsum("mn,n->m", self._centred, self._centred[member])
        self._bound += self._largest[member]

    def clear(self) -> None:
        self._square = self._sum_with_truth = self._bound = 0.0
        self._with_sum = np.zeros(len(self._centred))


def constant(square: Vector | float, largest: Vector | float, n: int) -> NDArray[np.bool_]:
    """Whether n numbers with this sum of squared deviations have no spread beyond the rounding of their mean."""
    return np.asarray(square <= (np.finfo(np.float64).eps * np.sqrt(n) * np.asarray(largest)) ** 2)


class Other:
    """Any metric: the grown ensembles are scored one by one."""

    def __init__(self, predictions: Sequence[Prediction], labels: Vector, scoring: Scoring, task: str) -> None:
        self._kind, self._metric = scoring.kinds[task], scoring.metrics[task]
        self._score, self._labels = scoring.score, labels
        self._shares = shares(predictions, self._kind)
        self._total, self._number = np.zeros_like(self._shares[0], dtype=np.float64), 0

    def values(self, among: Places = EVERYBODY) -> Vector:
        grown = (self._total + self._shares[place] for place in np.arange(len(self._shares))[among])
        predictions = (decided(total, self._number + 1, self._kind) for total in grown)
        return np.array([self._score(self._metric, values, self._labels) for values in predictions])

    def add(self, member: int) -> None:
        self._total = self._total + self._shares[member]
        self._number += 1

    def clear(self) -> None:
        self._total, self._number = np.zeros_like(self._shares[0], dtype=np.float64), 0


class Joint:
    """The overall score of ensembles that grow in all tasks at once."""

    def __init__(self, tasks: Mapping[str, Growth], scoring: Scoring) -> None:
        self._tasks = tasks
        self._scoring = scoring

    def values(self, among: Places = EVERYBODY) -> Vector:
        scores = {task: growth.values(among) for task, growth in self._tasks.items()}
        return np.asarray(self._scoring.combine(scores, self._scoring.metrics, self._scoring.weights))

    def add(self, member: int) -> None:
        for growth in self._tasks.values():
            growth.add(member)

    def clear(self) -> None:
        for growth in self._tasks.values():
            growth.clear()


def growths(members: Sequence[Member], labels: Mapping[str, Vector], scoring: Scoring) -> dict[str, Growth]:
    """A growing ensemble of these members for each task."""
    return {
        task: _growth([member[task] for member in members], truth, scoring, task) for task, truth in labels.items()
    }


def _growth(predictions: Sequence[Prediction], labels: Vector, scoring: Scoring, task: str) -> Growth:
    if (scoring.kinds[task], scoring.metrics[task]) == ("classification", "accuracy"):
        return Accuracy(predictions, labels)
    if (scoring.kinds[task], scoring.metrics[task]) == ("regression", "pearson"):
        return Pearson(predictions, labels)
    return Other(predictions, labels, scoring, task)

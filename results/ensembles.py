"""Ensembles: methods that select members, and functions that combine the members' predictions.

    top-k    the k best members; majority vote for classes, mean for scores (`beyond_bert`)
    greedy   forward selection with replacement on the metric itself (Caruana et al. 2004): begin with the best
             member, add again and again the member that helps most, keep the best prefix; probabilities and scores
             are averaged

All functions are pure functions of arrays: M members, N rows, C classes. A selection is a tuple of indices of members,
in the order of the picks, with repetitions: a member that was picked twice counts twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from results.predictions import Member, Prediction
from results.scoring import Vector

Judge = Callable[[Mapping[str, Vector]], float]
"""Function from predictions [N] by task, on the rows for selection, to the overall score; higher is better."""


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
    return _decided(np.tensordot(weights, _shares(predictions, kind), axes=1), float(weights.sum()), kind)


def _shares(predictions: Sequence[Prediction], kind: str) -> Vector:
    """What `average` takes the mean of: scores [M, N], or probabilities [M, N, C]."""
    if kind == "regression":
        return np.stack([prediction.values for prediction in predictions])
    chances = [prediction.probabilities for prediction in predictions]
    known = [array.shape[1] for array in chances if array is not None]
    classes = max([*known, *(int(prediction.values.max(initial=0)) + 1 for prediction in predictions)])
    certain = np.eye(classes)
    pairs = zip(predictions, chances, strict=True)
    return np.stack([certain[p.values.astype(int)] if array is None else array for p, array in pairs])


def _decided(total: Vector, weight: float, kind: str) -> Vector:
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
    members: Sequence[Member], chosen: Sequence[int], combination: str, kinds: Mapping[str, str]
) -> dict[str, Vector]:
    """The ensemble's predictions [N] by task. If `chosen` names only one member, they are that member's predictions."""
    counts = sorted(Counter(chosen).items())
    first = members[counts[0][0]]
    if len(counts) == 1:
        return {task: prediction.values for task, prediction in first.items()}
    weights = np.array([count for _, count in counts], dtype=np.float64)
    return {
        task: COMBINATIONS[combination]([members[index][task] for index, _ in counts], weights, kinds[task])
        for task in first
    }


class Ensemble(Protocol):
    """An ensemble method. Its fields are its hyperparameters; `select` chooses the members."""

    combination: ClassVar[str]

    def select(self, members: Sequence[Member], judge: Judge, kinds: Mapping[str, str]) -> tuple[int, ...]:
        """The chosen members' indices, in order, with repetitions."""
        ...


@dataclass(frozen=True)
class TopK:
    """The `size` best members, each once, combined by majority vote and mean."""

    size: int = 5
    """k, the number of members; if there are fewer, all are taken."""

    combination: ClassVar[str] = "vote"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def select(self, members: Sequence[Member], judge: Judge, kinds: Mapping[str, str]) -> tuple[int, ...]:
        """The best members by their own scores; of equal members the earlier one."""
        alone = [judge(blend(members, (index,), self.combination, kinds)) for index in range(len(members))]
        return tuple(sorted(range(len(members)), key=lambda index: -alone[index])[: self.size])


@dataclass(frozen=True)
class Greedy:
    """Forward selection with replacement on `overall`; never worse on the selection data than the best member."""

    size: int = 5
    """Number of picks, with repetitions. The best prefix is kept, so the ensemble may be smaller."""

    combination: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def select(self, members: Sequence[Member], judge: Judge, kinds: Mapping[str, str]) -> tuple[int, ...]:
        """Each pick maximises the judge's value. Of equal members the earlier wins, of equal prefixes the shorter.

        The members' sum grows with each pick, so a pick costs one addition a candidate.
        """
        tasks = list(members[0]) if members else []
        shares = {task: _shares([member[task] for member in members], kinds[task]) for task in tasks}
        total = {task: np.zeros_like(shares[task][0]) for task in tasks}
        chosen: tuple[int, ...] = ()
        best, best_value = chosen, -np.inf
        for number in range(1, 1 + self.size if members else 1):
            grown = [
                {task: _decided(total[task] + shares[task][index], number, kinds[task]) for task in tasks}
                for index in range(len(members))
            ]
            values = [judge(predictions) for predictions in grown]
            pick = int(np.argmax(values))
            chosen = (*chosen, pick)
            total = {task: total[task] + shares[task][pick] for task in tasks}
            if values[pick] > best_value:
                best, best_value = chosen, values[pick]
        return best


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"`size` of an ensemble must be at least 1; found {size}.")


def _probabilities(predictions: Sequence[Prediction]) -> Vector | None:
    """Probabilities [M, N, C] of the members; None if a member has none."""
    present = [prediction.probabilities for prediction in predictions if prediction.probabilities is not None]
    return np.stack(present) if len(present) == len(predictions) else None


ENSEMBLES: dict[str, type[TopK] | type[Greedy]] = {"top-k": TopK, "greedy": Greedy}
"""Ensemble methods by name, as option --method takes it."""

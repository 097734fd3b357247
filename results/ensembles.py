"""Ensembles: which members to take, how often, and how their predictions become one.

    top-k    the k best members; majority vote for classes, mean for scores (`beyond_bert`)
    greedy   forward selection with replacement on the metric itself (Caruana et al. 2004): begin with the best
             member, add again and again the one that helps most, keep the best prefix; probabilities and scores
             are averaged

Pure functions of arrays: M members, N rows, C classes. A selection is the tuple of chosen members, in order, with
repetition; a member chosen twice counts twice.
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
"""Predictions by task on the selection data -> overall; higher is better."""


def majority_vote(values: Vector, weights: Vector, probabilities: Vector | None = None) -> Vector:
    """Labels [N] with the most weight among values [M, N].

    A tie goes to the tied label with the larger sum of probabilities [M, N, C] where these are given (labels are then
    0..C-1), and otherwise, or if that ties too, to the smaller label.
    """
    classes = np.unique(values)  # [C'], ascending, so that argmax takes the smaller label of a tie
    votes = np.stack([weights @ (values == label) for label in classes], axis=1)  # [N, C']
    tied = np.isclose(votes, votes.max(axis=1, keepdims=True), rtol=0, atol=1e-9)
    total = np.zeros_like(votes)
    if probabilities is not None:
        total = np.einsum("m,mnc->nc", weights, probabilities)[:, classes.astype(int)]
    chosen: Vector = classes[np.argmax(np.where(tied, total, -np.inf), axis=1)]
    return chosen


def mean_score(values: Vector, weights: Vector) -> Vector:
    """Weighted mean [N] of values [M, N] (or of any [M, ...])."""
    mean: Vector = np.tensordot(weights / weights.sum(), values, axes=1)
    return mean


def vote(predictions: Sequence[Prediction], weights: Vector, kind: str) -> Vector:
    """Majority for classes, mean for scores."""
    values = np.stack([prediction.values for prediction in predictions])
    if kind == "regression":
        return mean_score(values, weights)
    return majority_vote(values, weights, _probabilities(predictions))


def average(predictions: Sequence[Prediction], weights: Vector, kind: str) -> Vector:
    """Most probable class of the averaged probabilities, mean for scores; a vote where probabilities are missing."""
    probabilities = _probabilities(predictions)
    if kind == "regression" or probabilities is None:
        return vote(predictions, weights, kind)
    likeliest: Vector = np.argmax(mean_score(probabilities, weights), axis=1).astype(np.float64)
    return likeliest


COMBINATIONS: dict[str, Callable[[Sequence[Prediction], Vector, str], Vector]] = {"vote": vote, "average": average}
"""How the members' predictions for one task become one."""


def blend(
    members: Sequence[Member], chosen: Sequence[int], combination: str, kinds: Mapping[str, str]
) -> dict[str, Vector]:
    """The ensemble's predictions [N] by task; of a single member they are that member's own."""
    counts = sorted(Counter(chosen).items())
    if len(counts) == 1:
        return {task: members[counts[0][0]][task].values for task in members[counts[0][0]]}
    weights = np.array([count for _, count in counts], dtype=np.float64)
    tasks = members[counts[0][0]]
    return {
        task: COMBINATIONS[combination]([members[index][task] for index, _ in counts], weights, kinds[task])
        for task in tasks
    }


class Ensemble(Protocol):
    """A method: its hyperparameters are its fields, `select` applies it."""

    combination: ClassVar[str]

    def select(self, members: Sequence[Member], judge: Judge, kinds: Mapping[str, str]) -> tuple[int, ...]:
        """The chosen members, in order, with repetition."""
        ...


@dataclass(frozen=True)
class TopK:
    """The `size` best members, each once, by majority vote and mean."""

    size: int = 5
    """k, how many members are taken; all of them if there are fewer."""

    combination: ClassVar[str] = "vote"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def select(self, members: Sequence[Member], judge: Judge, kinds: Mapping[str, str]) -> tuple[int, ...]:
        """The best members by their own scores; of equals the earlier one."""
        alone = [judge(blend(members, (index,), self.combination, kinds)) for index in range(len(members))]
        return tuple(sorted(range(len(members)), key=lambda index: -alone[index])[: self.size])


@dataclass(frozen=True)
class Greedy:
    """Forward selection with replacement on `overall`; never worse on the selection data than the best member."""

    size: int = 5
    """Picks, repetitions counted; the best prefix is kept, so that the ensemble may be smaller."""

    combination: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def select(self, members: Sequence[Member], judge: Judge, kinds: Mapping[str, str]) -> tuple[int, ...]:
        """Each pick maximises the judge's value; of equals the earlier member, of equal prefixes the shorter."""
        chosen: tuple[int, ...] = ()
        best, best_value = chosen, -np.inf
        for _ in range(self.size if members else 0):
            grown = [(*chosen, index) for index in range(len(members))]
            values = [judge(blend(members, selection, self.combination, kinds)) for selection in grown]
            pick = int(np.argmax(values))
            chosen = grown[pick]
            if values[pick] > best_value:
                best, best_value = chosen, values[pick]
        return best


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"`size` of an ensemble must be at least 1; found {size}.")


def _probabilities(predictions: Sequence[Prediction]) -> Vector | None:
    """Probabilities [M, N, C] of the members; None where one has none."""
    known = [prediction.probabilities for prediction in predictions if prediction.probabilities is not None]
    return np.stack(known) if len(known) == len(predictions) else None


ENSEMBLES: dict[str, type[TopK] | type[Greedy]] = {"top-k": TopK, "greedy": Greedy}
"""Every method by the name that `--method` takes."""

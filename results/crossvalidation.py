"""Cross-validation of ensemble methods within `search`: which method and size score best on rows that chose nothing.

The rows of each task are split into FOLDS parts. An ensemble chosen on all parts but one predicts that one; the
predictions of all parts together are scored. This is repeated REPEATS times with other parts, and the scores averaged.
A method's score on the rows that chose its members is higher than that: the difference is its optimism. What remains:
the candidates themselves were kept for their scores on `search`, so only `held` gives the score to report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results import estimates
from results.blending import blend
from results.ensembles import AUTO, METHODS, Problem, choose
from results.predictions import Member, Prediction
from results.scoring import Vector

SIZES = (3, 5, 10, 20)
"""Sizes that are tried, up to the largest that is allowed."""
FOLDS, REPEATS = 5, 2
SEED = 20240607
"""Seed of the parts: the same predictions give the same scores."""

Rows = Mapping[str, NDArray[np.intp]]
"""Task -> places of rows."""


class Plan(NamedTuple):
    """What is tried: a method with a largest number of members."""

    method: str
    size: int


SINGLE = Plan("top-k", 1)
"""The best single trial, chosen on the same rows as the ensembles."""


@dataclass(frozen=True)
class Tried:
    """A method and size on `search`."""

    plan: Plan
    members: int
    """Number of members if all rows choose."""
    value: float
    """Overall score by cross-validation."""
    optimism: float
    """Overall score on the rows that chose the members, minus `value`."""
    gain: estimates.Estimate
    """`value` minus that of the best single trial, with its interval over the rows."""


def plans(method: str, size: int) -> list[Plan]:
    """What is tried for a method; for AUTO all methods with several sizes. The best single trial comes first."""
    if method != AUTO:
        return list(dict.fromkeys([SINGLE, Plan(method, size)]))
    sizes = [number for number in SIZES if number < size] + [size]
    return [SINGLE, *(Plan(name, number) for name in METHODS for number in sizes if number > 1)]


def compare(problem: Problem, tried: Sequence[Plan]) -> list[Tried]:
    """Score each plan by cross-validation. The first is what the others are compared with."""
    predictions: dict[Plan, list[dict[str, Vector]]] = {plan: [] for plan in tried}
    for repeat in range(REPEATS):
        empty = {task: np.empty(len(truth)) for task, truth in problem.labels.items()}
        whole = {plan: {task: values.copy() for task, values in empty.items()} for plan in tried}
        for chosen, rows, members in _folds(problem, repeat):
            for plan in tried:
                parts = _predicted(chosen, members, plan)
                for task, places in rows.items():
                    whole[plan][task][places] = parts[task]
        for plan in tried:
            predictions[plan].append(whole[plan])
    return [_tried(problem, plan, predictions[plan], predictions[tried[0]]) for plan in tried]


def best(tried: Sequence[Tried]) -> Tried:
    """The plan with the best score; of equal ones that with fewer members."""
    return max(tried, key=lambda one: (round(one.value, 12), -one.members))


def _tried(
    problem: Problem, plan: Plan, own: Sequence[Mapping[str, Vector]], single: Sequence[Mapping[str, Vector]]
) -> Tried:
    weights = choose(problem, *plan)
    value = float(np.mean([problem.score(predictions) for predictions in own]))
    optimism = problem.value(weights, METHODS[plan.method].combination) - value
    gain = estimates.of_difference(problem.scoring, own, single, problem.labels)
    members = int(np.count_nonzero(np.sum(list(weights.values()), axis=0)))
    return Tried(plan, members, value, optimism, gain)


def _predicted(chosen: Problem, members: Sequence[Member], plan: Plan) -> dict[str, Vector]:
    """Predictions by the members for rows that chose nothing."""
    weights = choose(chosen, *plan)
    return blend(members, weights, METHODS[plan.method].combination, chosen.scoring.kinds)


def _folds(problem: Problem, repeat: int) -> Iterator[tuple[Problem, Rows, list[Member]]]:
    """Of each part: the problem on all other rows, the rows of the part, and the candidates' predictions for them."""
    parts = {
        task: np.random.default_rng([SEED, repeat]).permutation(len(truth)) % FOLDS
        for task, truth in problem.labels.items()
    }
    for fold in range(FOLDS):
        inside = {task: np.flatnonzero(numbers == fold) for task, numbers in parts.items()}
        outside = {task: np.flatnonzero(numbers != fold) for task, numbers in parts.items()}
        labels = {task: problem.labels[task][places] for task, places in outside.items()}
        yield Problem(_at(problem.members, outside), labels, problem.scoring), inside, _at(problem.members, inside)


def _at(members: Sequence[Member], rows: Rows) -> list[Member]:
    """The members' predictions for some of their rows."""
    return [{task: _part(member[task], places) for task, places in rows.items()} for member in members]


def _part(prediction: Prediction, places: NDArray[np.intp]) -> Prediction:
    chances = prediction.probabilities
    return Prediction(prediction.rows[places], prediction.values[places], None if chances is None else chances[places])

"""Ensemble methods: each chooses members among M candidates, and their weights, by rows whose labels are given.

    top-k            the `size` best, combined by majority vote and mean (`beyond_bert`)
    average          the `size` best, probabilities and scores averaged
    greedy           forward selection of `size` picks on `overall` (Caruana et al. 2004): with replacement, from a
                     sorted start, the best prefix kept
    greedy-per-task  the same for each task on its own metric
    greedy-bagged    the same on BAGS random halves of the candidates, all picks counted
    stack            linear weights, fitted with a penalty (`results.stacking`)

A method is a pure function of the candidates' predictions and the labels. `choose` limits its members to `size`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from results.blending import Weights, blend, shares
from results.growth import EVERYBODY, Growth, Joint, Places, growths
from results.predictions import Member
from results.scoring import Scoring, Vector
from results.stacking import stacked

BAGS = 20
"""Number of bags of `greedy-bagged`, each a random half of the candidates (Caruana et al. 2004, 2.3)."""
SEED = 20240607
"""Seed of the bags: the same candidates give the same ensemble."""
TIE = 1e-12
"""Scores that differ by no more are equal: sums of the same numbers differ by rounding."""


@dataclass(frozen=True)
class Problem:
    """The candidates' predictions for some rows, with the labels that score them."""

    members: Sequence[Member]
    """Predictions of the candidates [M] for the same rows."""
    labels: Mapping[str, Vector]
    """Task -> labels of these rows."""
    scoring: Scoring

    @cached_property
    def order(self) -> list[int]:
        """Candidates by their own overall score, best first; of equal ones the earlier."""
        alone = [self.score({task: prediction.values for task, prediction in one.items()}) for one in self.members]
        return [int(place) for place in np.argsort(-np.round(alone, 12), kind="stable")]

    @cached_property
    def growths(self) -> dict[str, Growth]:
        """An ensemble to grow for each task."""
        return growths(self.members, self.labels, self.scoring)

    @cached_property
    def stacked(self) -> Weights:
        """Weights of a linear combination of all candidates, fitted for each task (`results.stacking`)."""
        weights = {}
        for task, truth in self.labels.items():
            kind = self.scoring.kinds[task]
            classes = 1 if kind == "regression" else int(truth.max()) + 1
            features = np.stack(shares([member[task] for member in self.members], kind, classes))
            target = truth if kind == "regression" else np.eye(features.shape[2])[truth.astype(int)]
            weights[task] = stacked(features, target)
        return weights

    def score(self, predictions: Mapping[str, Vector]) -> float:
        """Overall score of predictions [N] by task."""
        return self.scoring.judge(self.labels)(predictions)

    def value(self, weights: Weights, combination: str) -> float:
        """Overall score of an ensemble of the candidates."""
        return self.score(blend(self.members, weights, combination, self.scoring.kinds))

    def of(self, places: Sequence[int]) -> Problem:
        """The problem with only these candidates."""
        return Problem([self.members[place] for place in places], self.labels, self.scoring)

    def everywhere(self, weights: Vector) -> Weights:
        """The same weights [M] in every task."""
        return dict.fromkeys(self.labels, weights)


def best_of(problem: Problem, size: int) -> Weights:
    """Equal weights for the `size` best candidates."""
    weights = np.zeros(len(problem.members))
    weights[problem.order[:size]] = 1.0
    return problem.everywhere(weights)


def greedy(problem: Problem, size: int) -> Weights:
    """How often joint forward selection picks each candidate."""
    return problem.everywhere(_counts(problem, forward(Joint(problem.growths, problem.scoring), size)))


def greedy_per_task(problem: Problem, size: int) -> Weights:
    """How often forward selection on each task's own metric picks each candidate."""
    return {task: _counts(problem, forward(growth, size)) for task, growth in problem.growths.items()}


def greedy_bagged(problem: Problem, size: int) -> Weights:
    """How often joint forward selection picks each candidate, over all bags."""
    generator, joint = np.random.default_rng(SEED), Joint(problem.growths, problem.scoring)
    many = len(problem.members)
    bags = [np.sort(generator.choice(many, (many + 1) // 2, replace=False)) for _ in range(BAGS)]
    return problem.everywhere(_counts(problem, [pick for bag in bags for pick in forward(joint, size, bag)]))


def stack(problem: Problem, size: int) -> Weights:
    """Weights of a linear combination, all candidates allowed whatever the size."""
    return problem.stacked


def forward(growth: Growth, size: int, among: Places = EVERYBODY) -> list[int]:
    """Picks of forward selection with replacement, in order (Caruana et al. 2004).

    It starts with the n best candidates, where n <= size / 2 makes the best average, and adds the candidate that helps
    most until there are `size` picks. The best prefix from the start on is kept. Of equal candidates the earlier one is
    picked, of equal prefixes the shorter one.
    """
    growth.clear()
    alone = growth.values(among)
    places = np.arange(len(alone)) if isinstance(among, slice) else among
    order = places[np.argsort(-np.round(alone, 12), kind="stable")]
    picks, best = _sorted_start(growth, order[: max(1, size // 2)])
    kept = len(picks)
    while len(picks) < size:
        values = growth.values(among)
        place = _first_best(values)
        picks.append(int(places[place]))
        growth.add(picks[-1])
        if values[place] > best + TIE:
            kept, best = len(picks), values[place]
    return picks[:kept]


def _sorted_start(growth: Growth, order: NDArray[np.intp]) -> tuple[list[int], float]:
    """The best candidates whose average scores highest, and its score; `growth` then holds them."""
    values = []
    for place in order:
        values.append(float(growth.values(np.array([place]))[0]))
        growth.add(int(place))
    number = _first_best(np.array(values)) + 1
    growth.clear()
    picks = [int(place) for place in order[:number]]
    for pick in picks:
        growth.add(pick)
    return picks, values[number - 1]


def _first_best(values: Vector) -> int:
    return int(np.flatnonzero(values >= values.max() - TIE)[0])


def _counts(problem: Problem, picks: Sequence[int]) -> Vector:
    return np.bincount(picks, minlength=len(problem.members)).astype(np.float64)


@dataclass(frozen=True)
class Method:
    """An ensemble method."""

    weights: Callable[[Problem, int], Weights]
    """(candidates, size) -> weights of the candidates."""
    combination: str
    """How the members are combined (`results.blending`)."""


METHODS: dict[str, Method] = {
    "top-k": Method(best_of, "vote"),
    "average": Method(best_of, "average"),
    "greedy": Method(greedy, "average"),
    "greedy-per-task": Method(greedy_per_task, "average"),
    "greedy-bagged": Method(greedy_bagged, "average"),
    "stack": Method(stack, "average"),
}
"""Ensemble methods by name, as option --method takes them."""
AUTO = "auto"
"""Instead of a method: the one that is best by cross-validation (`results.crossvalidation`)."""


def check(method: str, size: int, further: Sequence[str] = ()) -> None:
    """Raise ValueError for an unknown method, or a size below 1. `further`: methods that the caller has."""
    if method not in (known := (AUTO, *METHODS, *further)):
        raise ValueError(f"Unknown ensemble method `{method}`. Expected one of: {', '.join(known)}.")
    if size < 1:
        raise ValueError(f"`size` of an ensemble must be at least 1; found {size}.")


def choose(problem: Problem, method: str, size: int) -> Weights:
    """Weights of the candidates by one of METHODS, in every task with a sum of 1; at most `size` candidates have any.

    A method that took more chooses again among the `size` with the largest weights over all tasks.
    """
    weights = METHODS[method].weights(problem, size)
    shared = {task: own / own.sum() for task, own in weights.items()}
    totals = np.sum(list(shared.values()), axis=0)
    if np.count_nonzero(totals) <= size:
        return shared
    heaviest = np.sort(np.argsort(-np.round(totals, 12), kind="stable")[:size])
    again = choose(problem.of(list(heaviest)), method, size)
    return {task: _spread(own, heaviest, len(totals)) for task, own in again.items()}


def _spread(weights: Vector, places: NDArray[np.intp], size: int) -> Vector:
    """Weights of some candidates as weights of all."""
    spread = np.zeros(size)
    spread[places] = weights
    return spread

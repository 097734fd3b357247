"""NSGA-II (Deb et al. 2002), for sweeps of several objectives: crossover and mutation of the trials that few dominate.

The population is chosen anew for every draw, from all complete trials: front after front, where a front holds what no
trial outside the earlier fronts dominates, and of the last one those with the largest crowding distance. Deb et al.
choose it once a generation; here each trial is a generation of its own (steady state, Durillo et al. 2009), which needs
no waiting where trials run side by side, and no memory besides the study: Optuna's NSGAIISampler keeps generations in
hidden attributes of trials, which rows do not restore, and crosses only parameters that all trials have.

Values at different milestones cannot be compared, so only complete trials take part. Under a scheduler that stops
trials early they are few.

A child takes each parameter from one of two parents at random. Where only one of them has the parameter, which then
belongs to a branch that the child took from it, the child takes it too. Then few parameters change as in
`hpo.samplers.changes`; parameters of a branch that a change opens are drawn from their priors.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from hpo.samplers.changes import changed
from hpo.samplers.history import FURTHER
from hpo.samplers.problem import Parameters, Problem
from hpo.samplers.sampling import SpaceSampler
from hpo.space.tree import Leaf, compose


def population(gains: NDArray[np.float64], size: int) -> list[int]:
    """Places of the population in `gains` [n, K], best first by front, then by crowding distance; at most `size`."""
    from results.objectives import undominated

    left, chosen = np.arange(len(gains)), np.empty(0, dtype=int)
    while len(left) and len(chosen) < size:
        first = undominated(gains[left])
        front = left[first]
        chosen = np.concatenate([chosen, front[np.argsort(-crowding(gains[front]), kind="stable")]])
        left = left[~first]
    return [int(place) for place in chosen[:size]]


def crowding(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crowding distance of each trial of a front, from their gains [n, K]: the sum over the objectives of the distance
    between its two neighbours, over that between the two ends, which are infinitely far from all."""
    total = np.zeros(len(gains))
    for values in gains.T:
        order = np.argsort(values, kind="stable")
        ordered = np.concatenate([[-math.inf], values[order], [math.inf]])
        extent = ordered[-2] - ordered[1]
        if extent > 0:  # otherwise all are equal, and the objective tells none apart
            total[order] += (ordered[2:] - ordered[:-2]) / extent
    return total


def gains_of(trial: FrozenTrial) -> tuple[float, ...]:
    """Gains of a complete trial, one for each objective."""
    assert trial.value is not None
    return (trial.value, *trial.user_attrs.get(FURTHER, ()))


def crossed(problem: Problem, parents: Sequence[Parameters], source: random.Random) -> dict[str, Any]:
    """A child's parameters, each from a random parent among those that have it."""

    def choose(leaf: Leaf) -> Any:
        # At least one parent has it: the one that gave the child the branch of this parameter.
        return source.choice([parent[leaf.name] for parent in parents if leaf.name in parent])

    return compose(problem.leaves, choose)[1]


class NsgaSampler(SpaceSampler):
    """Children of complete trials, and draws from the priors before `startup` trials are complete. The settings are
    those of the searcher `nsga2`."""

    def __init__(self, problem: Problem, *, startup: int, population: int, crossover: float, changes: float) -> None:
        super().__init__(problem)
        self._startup, self._size, self._crossover, self._changes = startup, population, crossover, changes
        self._source = random.Random()

    def reseed(self, seed: int) -> None:
        self._source.seed(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        complete = [each for each in complete if each.params and all(map(math.isfinite, gains_of(each)))]
        if len(complete) < self._startup:
            self.plan = changed(self.problem, {}, self._changes, self._source)
            return
        gains = np.array([gains_of(each) for each in complete])
        parents = [complete[place].params for place in population(gains, self._size)]
        child: Parameters = self._winner(parents)
        if self._source.random() < self._crossover:
            child = crossed(self.problem, (child, self._winner(parents)), self._source)
        self.plan = changed(self.problem, child, self._changes, self._source)

    def _winner(self, parents: Sequence[Parameters]) -> Parameters:
        """The winner of a tournament of two; `parents`, best first."""
        return parents[min(self._source.randrange(len(parents)) for _ in range(2))]

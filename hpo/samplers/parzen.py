"""Optuna's TPE over the groups of a known space, fast, and the same weighed by the priors.

TPE (Bergstra et al. 2011) draws candidates from l(x), the density of good trials, and takes the one with the highest
l(x) / g(x), g being the density of all others. Densities, candidates and comparison are Optuna's. What differs:

- Groups come from the space, and only those that a configuration has are drawn. Optuna draws every group.
- The trials are split once a draw. Optuna splits them once a group.
- g is made from the latest OTHERS trials besides the good ones. Optuna takes all, but weighs those before the latest
  25 less and less.
- Running trials count as bad (constant liar), by their parameters in the study, without Optuna's hidden attributes.

With one group and few trials it draws exactly what Optuna's TPESampler draws (tested).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import default_gamma
from optuna.trial import FrozenTrial

from hpo.samplers.history import History
from hpo.samplers.problem import Problem
from hpo.samplers.sampling import SpaceSampler, quiet

OTHERS = 50
"""Most trials in g: the cost of a draw grows with it."""


class ParzenSampler(SpaceSampler, TPESampler):
    """TPE. Before `startup` trials have ended, draws are uniform."""

    def __init__(self, problem: Problem, startup: int, history: History | None = None) -> None:
        SpaceSampler.__init__(self, problem)
        with quiet():
            TPESampler.__init__(self, n_startup_trials=startup, multivariate=True, constant_liar=False)
        self._history = History(problem.groups) if history is None else history
        self._good: frozenset[int] = frozenset()

    def reseed(self, seed: int) -> None:
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._history.sync(study)
        self._good = frozenset(self._history.best(default_gamma(self._history.ended)))
        self.plan = {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a parameter; the first one that is asked for draws its whole group."""
        if self._history.ended < self._n_startup_trials:
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        if param_name not in self.plan:
            self.plan = {**self.plan, **self._draw_group(self.problem.group_of[param_name])}
        return self.plan[param_name]

    def _draw_group(self, index: int) -> dict[str, Any]:
        group = self.problem.groups[index]
        good = self._estimator(self._history.table(index, self._good), group)
        others = self._estimator(self._history.rest(index, self._good, OTHERS), group)
        candidates = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(candidates, self._compute_acquisition_func(candidates, good, others))
        return {name: group[name].to_external_repr(value) for name, value in best.items()}

    def _estimator(
        self, observations: Mapping[str, NDArray[np.float64]], group: Mapping[str, BaseDistribution]
    ) -> _ParzenEstimator:
        return self._parzen_estimator_cls(dict(observations), dict(group), self._parzen_estimator_parameters)


class WeighedParzenSampler(ParzenSampler):
    """TPE whose candidates are weighed by their prior, as piBO weighs an acquisition (Hvarfner et al. 2022, eq. 6):
    log(l / g) + (beta / n) log prior, with n the number of ended trials. So the priors fade as trials come in."""

    def __init__(self, problem: Problem, history: History, beta: float) -> None:
        super().__init__(problem, 0, history)
        self._beta = beta

    def _compute_acquisition_func(
        self, samples: dict[str, NDArray[np.float64]], mpe_below: _ParzenEstimator, mpe_above: _ParzenEstimator
    ) -> NDArray[np.float64]:
        ratio = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        prior = np.zeros_like(ratio)
        for name, values in samples.items():
            leaf, dist = self.problem.varied[name], self.problem.distributions[name]
            prior += [leaf.log_prior(dist.to_external_repr(value)) for value in values]
        return np.asarray(ratio + self._beta / max(self._history.ended, 1) * prior)

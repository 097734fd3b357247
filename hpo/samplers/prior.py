"""Random search: independent draws from the priors, which are uniform where a parameter has none."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from hpo.samplers.problem import Problem
from hpo.samplers.sampling import SpaceSampler


class PriorSampler(SpaceSampler):
    """Draws every value from its parameter's prior, and looks at no trial."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._source = random.Random()

    def reseed(self, seed: int) -> None:
        self._source.seed(seed)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.problem.varied[param_name].drawn(self._source)

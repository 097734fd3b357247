"""How a configuration is drawn: an Optuna sampler that knows the whole space, and a trial that is not stored.

Every value comes through `suggest_*`, and the study stays as it was. `study.ask()` would store a trial with hidden
attributes, which change later draws and which a replay from the store could not restore.

A sampler lives as long as its sweep and keeps what it has read from the study, so that a draw costs little. It is
seeded anew for every draw. What it draws must follow from that seed and from the study alone: a new sampler draws the
same (tested for every searcher).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpo.samplers.problem import Parameters, Problem


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without notes and warnings: a new study, a missing accelerator, an experimental argument."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


class SpaceSampler(BaseSampler):
    """An Optuna sampler for one space. It plans a trial before it begins, and hands out the values one by one."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.plan: Parameters = {}
        """Parameters of the present trial."""
        self.part = ""
        """Which part of the searcher drew the present trial, if it has parts."""

    @abstractmethod
    def reseed(self, seed: int) -> None:
        """Seed the next draw."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No parameters: Optuna's relative sampling knows only those that earlier trials had."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.plan[param_name]


class Draft(FrozenTrial):
    """A running trial outside the study, whose values a sampler draws."""

    def __init__(self, study: optuna.Study, sampler: BaseSampler, number: int) -> None:
        nothing: dict[str, Any] = {"value": None, "datetime_start": None, "datetime_complete": None}
        records: dict[str, Any] = {name: {} for name in ("params", "distributions", "user_attrs", "system_attrs")}
        super().__init__(number, TrialState.RUNNING, **nothing, **records, intermediate_values={}, trial_id=-1)
        self._study, self._sampler = study, sampler
        sampler.before_trial(study, self)
        self._relative = sampler.sample_relative(study, self, sampler.infer_relative_search_space(study, self))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._drawn(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._drawn(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._drawn(name, CategoricalDistribution(choices))

    def _drawn(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._relative:
            value = self._relative[name]
        else:
            value = self._sampler.sample_independent(self._study, self, name, distribution)
        self._params[name], self._distributions[name] = value, distribution
        return value

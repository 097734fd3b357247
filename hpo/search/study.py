"""Optuna, told the truth: which trials ran, how far each came, and how each ended.

A trial is RUNNING from its draw on, reports its value at every nominal milestone as an intermediate value, and ends as
COMPLETE (full budget), PRUNED (stopped at a rung), PRUNED with NaN at its last step and a violated constraint
(diverged: TPE ranks it below every other one, however far it came) or FAIL (raised, or lost too often). Trials enter
with their parameters only, the way given configurations do: a trial that was asked for carries hidden attributes that
a replayed one lacks, and they change later draws. So a draw is asked for on the side (its ghost is told FAIL, which
samplers ignore) and then entered as a finished record would be.

Before every draw the sampler is made anew from (sweep seed, trial number): a draw is a function of the recorded trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search.searchers import Searcher
from hpo.search.states import End
from hpo.space.tree import Leaf, Nested, compose
from search_spaces.domains import Float, Int

OPTUNA_STATES: Mapping[End, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}

DIVERGED: Mapping[str, Any] = create_trial(state=TrialState.PRUNED, constraints={"finite": 1.0}).system_attrs
"""How Optuna notes that a trial violated a constraint."""


def derived_seed(*parts: int | str) -> int:
    """A 31-bit seed that is a function of its parts, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def distribution(leaf: Leaf) -> BaseDistribution:
    """Optuna's word for a leaf's domain."""
    domain = leaf.domain
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, step=domain.step, log=domain.log)
    return CategoricalDistribution(domain.choices)


def draw(trial: optuna.Trial, space: Sequence[Leaf]) -> tuple[Nested, dict[str, Any]]:
    """One configuration (nested, without the fields that the space does not vary) and its parameters."""

    def choose(leaf: Leaf) -> Any:
        domain = leaf.domain
        if isinstance(domain, Float):
            return trial.suggest_float(leaf.name, domain.low, domain.high, log=domain.log)
        if isinstance(domain, Int):
            return trial.suggest_int(leaf.name, domain.low, domain.high, step=domain.step, log=domain.log)
        return trial.suggest_categorical(leaf.name, domain.choices)

    return compose(space, choose)


class Study:
    """The trials of a sweep as Optuna sees them, entered in the order of their numbers."""

    def __init__(self, space: Sequence[Leaf], seed: int, searcher: Searcher) -> None:
        self._space = tuple(space)
        self._distributions = {leaf.name: distribution(leaf) for leaf in space if not leaf.constant}
        self._seed = seed
        self._searcher = searcher
        self._storage = optuna.storages.InMemoryStorage()
        self._study = _quiet_study(self._storage)
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        self._trial_ids: dict[int, int] = {}

    def draw(self, number: int) -> tuple[Nested, dict[str, Any]]:
        """The configuration for trial `number`, given all recorded trials; the draw records nothing."""
        self._study.sampler = self._searcher.sampler(derived_seed(self._seed, "draw", number))
        ghost = self._study.ask()
        try:
            return draw(ghost, self._space)
        finally:
            self._study.tell(ghost, state=TrialState.FAIL)

    def add(self, number: int, parameters: Mapping[str, Any]) -> None:
        """Enter a running trial; `parameters` is empty for a configuration outside the space."""
        self._trial_ids[number] = self._storage.create_new_trial(
            self._id,
            create_trial(
                state=TrialState.RUNNING,
                params=dict(parameters),
                distributions={name: self._distributions[name] for name in parameters},
            ),
        )

    def report(self, number: int, step: int, value: float) -> None:
        """An intermediate value at a nominal milestone; NaN where the trial diverged."""
        self._storage.set_trial_intermediate_value(self._trial_ids[number], step, value)

    def finish(self, number: int, end: End, value: float | None = None) -> None:
        """The end of a trial; `value`, the overall score at full budget, belongs to `complete` alone."""
        if end == "diverged":  # NaN alone would rank it above all that were stopped at an earlier step
            for name, violation in DIVERGED.items():
                self._storage.set_trial_system_attr(self._trial_ids[number], name, violation)
        values = [value] if end == "complete" and value is not None else None
        self._storage.set_trial_state_values(self._trial_ids[number], OPTUNA_STATES[end], values)

    def trials(self) -> list[FrozenTrial]:
        """What Optuna has been told, one entry a trial in the order of entry."""
        return [self._storage.get_trial(trial_id) for trial_id in self._trial_ids.values()]


def _quiet_study(storage: optuna.storages.BaseStorage) -> optuna.Study:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # "A new study created in memory"
    try:
        return optuna.create_study(storage=storage, direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)

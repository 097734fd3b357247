"""The Optuna study of a sweep: it holds which trials ran, how far each came, and how each ended.

A trial is RUNNING from its start. Its value at each milestone is an intermediate value, whose step is the milestone and
not the true number of examples. It ends as

    COMPLETE  it used its full budget
    PRUNED    it was stopped at a rung
    PRUNED    it diverged: with NaN at its last step and a violated constraint, so that TPE ranks it below all others
    FAIL      it raised an error, or was lost too often

A draw leaves nothing in the study. `study.ask()` makes a trial with hidden attributes, which change later draws and
which a replay from the store could not restore. So that trial is only used to draw and ends as FAIL, which samplers
ignore; the real trial is then added with its parameters alone, as a replay adds it.

Before every draw a new sampler is made from (sweep seed, trial number): a draw is a function of the recorded trials.
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
"""Optuna's attributes of a trial that violates a constraint."""


def derived_seed(*parts: int | str) -> int:
    """A 31-bit seed computed from the parts, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def distribution(leaf: Leaf) -> BaseDistribution:
    """The Optuna distribution of a leaf's domain."""
    domain = leaf.domain
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, step=domain.step, log=domain.log)
    return CategoricalDistribution(domain.choices)


def draw(trial: optuna.Trial, space: Sequence[Leaf]) -> tuple[Nested, dict[str, Any]]:
    """A drawn configuration (nested, without the fields that the space leaves out) and its parameters by name."""

    def choose(leaf: Leaf) -> Any:
        domain = leaf.domain
        if isinstance(domain, Float):
            return trial.suggest_float(leaf.name, domain.low, domain.high, log=domain.log)
        if isinstance(domain, Int):
            return trial.suggest_int(leaf.name, domain.low, domain.high, step=domain.step, log=domain.log)
        return trial.suggest_categorical(leaf.name, domain.choices)

    return compose(space, choose)


class Study:
    """The trials of a sweep in Optuna's terms, in the order in which they started."""

    def __init__(self, space: Sequence[Leaf], seed: int, searcher: Searcher) -> None:
        self._space = tuple(space)
        self._distributions = {leaf.name: distribution(leaf) for leaf in space if not leaf.constant}
        self._seed = seed
        self._searcher = searcher
        self._storage = optuna.storages.InMemoryStorage()
        self._study = quiet_study(self._storage)
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        self._trial_ids: dict[int, int] = {}

    def draw(self, number: int) -> tuple[Nested, dict[str, Any]]:
        """Configuration and parameters of trial `number`, drawn from all recorded trials; nothing is recorded."""
        self._study.sampler = self._searcher.sampler(derived_seed(self._seed, "draw", number))
        temporary = self._study.ask()
        try:
            return draw(temporary, self._space)
        finally:
            self._study.tell(temporary, state=TrialState.FAIL)

    def add(self, number: int, parameters: Mapping[str, Any]) -> None:
        """Add a running trial; `parameters` is empty for a configuration outside the space."""
        self._trial_ids[number] = self._storage.create_new_trial(
            self._id,
            create_trial(
                state=TrialState.RUNNING,
                params=dict(parameters),
                distributions={name: self._distributions[name] for name in parameters},
            ),
        )

    def report(self, number: int, step: int, value: float) -> None:
        """Record a trial's value at a milestone; NaN if the trial diverged."""
        self._storage.set_trial_intermediate_value(self._trial_ids[number], step, value)

    def finish(self, number: int, end: End, value: float | None = None) -> None:
        """Record the end of a trial; `value` is the overall score at full budget and belongs to `complete` alone.

        A complete trial whose value is not known (its row was lost) counts as pruned at its last known milestone:
        Optuna cannot model a complete trial without a value.
        """
        if end == "diverged":  # with NaN alone it would rank above all trials that were stopped at an earlier step
            for name, violation in DIVERGED.items():
                self._storage.set_trial_system_attr(self._trial_ids[number], name, violation)
        state, values = OPTUNA_STATES[end], None
        if end == "complete":
            state, values = (TrialState.PRUNED, None) if value is None else (state, [value])
        self._storage.set_trial_state_values(self._trial_ids[number], state, values)

    def trials(self) -> list[FrozenTrial]:
        """Optuna's trials, in the order in which they were added."""
        return [self._storage.get_trial(trial_id) for trial_id in self._trial_ids.values()]


def quiet_study(storage: optuna.storages.BaseStorage) -> optuna.Study:
    """A study that maximises, made without Optuna's message about it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # "A new study created in memory"
    try:
        return optuna.create_study(storage=storage, direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)

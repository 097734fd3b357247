"""The Optuna study of a sweep: it holds which trials ran, how far each came, and how each ended.

A trial is RUNNING from its start. Its value at each milestone is an intermediate value, whose step is the milestone and
not the true number of examples. It ends as

    COMPLETE  it used its full budget
    PRUNED    it was stopped at a rung
    PRUNED    it diverged: with NaN at its last step and a violated constraint, so that TPE ranks it below all others
    FAIL      it raised an error, or was lost too often

The study maximises the first objective; gains in further ones are an attribute of a complete trial, for the searcher
that reads them (`hpo.samplers.nsga`).

A draw leaves nothing in the study (`hpo.samplers.sampling`); a trial is added with all its parameters at once, as a
replay adds it. The sampler is seeded for every draw, by (sweep seed, trial number, number of the try): a draw is a
function of the recorded trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial, FrozenTrial, TrialState, create_trial

from hpo.samplers.history import FURTHER, SEARCHER
from hpo.samplers.problem import Problem
from hpo.samplers.sampling import Draft, quiet
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


def draw(trial: BaseTrial, space: Sequence[Leaf]) -> tuple[Nested, dict[str, Any]]:
    """A drawn configuration (nested, without the fields that the space leaves out) and its parameters by name."""

    def choose(leaf: Leaf) -> Any:
        domain = leaf.domain
        if isinstance(domain, Float):
            return trial.suggest_float(leaf.name, domain.low, domain.high, log=domain.log)
        if isinstance(domain, Int):
            return trial.suggest_int(leaf.name, domain.low, domain.high, step=domain.step, log=domain.log)
        return trial.suggest_categorical(leaf.name, domain.choices)

    return compose(space, choose)


@dataclass(frozen=True)
class Drawn:
    """A drawn configuration."""

    config: Nested
    """Nested, without the fields that the space leaves out."""
    params: dict[str, Any]
    """Optuna's name -> choice."""
    searcher: str
    """Name of the searcher that drew it; with the part of it, if it has parts: changes/tpe."""


class Template(FrozenTrial):
    """A running trial for Optuna's storage, which takes a deep copy of it: a plain trial that shares its distributions
    with all others. Copies of 40 distributions would take 30 kB a trial, and most of the time of `Study.add`.

    Raises ValueError for parameters outside their distributions.
    """

    def __init__(
        self, params: dict[str, Any], distributions: dict[str, BaseDistribution], user_attrs: dict[str, Any]
    ) -> None:
        super().__init__(
            number=-1, trial_id=-1, state=TrialState.RUNNING, value=None, datetime_start=datetime.now(),
            datetime_complete=None, params=params, distributions=distributions, user_attrs=user_attrs, system_attrs={},
            intermediate_values={},
        )  # fmt: skip
        self._validate()

    def __deepcopy__(self, memo: object) -> FrozenTrial:
        plain = FrozenTrial.__new__(FrozenTrial)
        vars(plain).update(vars(self))
        return plain


class Study:
    """The trials of a sweep in Optuna's terms, in the order in which they started.

    Raises SpaceError if the searcher cannot search the space.
    """

    def __init__(self, problem: Problem, seed: int, searcher: Searcher) -> None:
        searcher.check(problem.leaves)
        self.problem, self._seed, self._searcher = problem, seed, searcher
        self._sampler = searcher.sampler(problem)
        self._storage = optuna.storages.InMemoryStorage()
        self._study = quiet_study(self._storage)
        self._id = self._storage.get_study_id_from_name(self._study.study_name)
        self._trial_ids: dict[int, int] = {}

    def draw(self, number: int, attempt: int = 0) -> Drawn:
        """The configuration of trial `number`, drawn from all recorded trials; nothing is recorded.

        `attempt` counts the draws for this trial so far, each of which is another.
        """
        self._sampler.reseed(derived_seed(self._seed, "draw", number, *([attempt] if attempt else [])))
        config, params = draw(Draft(self._study, self._sampler, number), self.problem.leaves)
        part = self._sampler.part
        return Drawn(config, params, f"{self._searcher.name}/{part}" if part else self._searcher.name)

    def add(self, number: int, parameters: Mapping[str, Any], searcher: str | None = None) -> None:
        """Add a running trial; `parameters` is empty for a configuration outside the space. `searcher`: who drew it."""
        self._trial_ids[number] = self._storage.create_new_trial(
            self._id,
            Template(
                params=dict(parameters),
                distributions={name: self.problem.distributions[name] for name in parameters},
                user_attrs={} if searcher is None else {SEARCHER: searcher},
            ),
        )

    def report(self, number: int, step: int, value: float) -> None:
        """Record a trial's value at a milestone; NaN if the trial diverged."""
        self._storage.set_trial_intermediate_value(self._trial_ids[number], step, value)

    def finish(self, number: int, end: End, value: float | None = None, further: Sequence[float] = ()) -> None:
        """Record the end of a trial; `value` is the overall score at full budget and belongs to `complete` alone.
        `further`: the gains there in the objectives after the first.

        A complete trial whose value is not known (its row was lost) counts as pruned at its last known milestone:
        Optuna cannot model a complete trial without a value.
        """
        if end == "diverged":  # with NaN alone it would rank above all trials that were stopped at an earlier step
            for name, violation in DIVERGED.items():
                self._storage.set_trial_system_attr(self._trial_ids[number], name, violation)
        state, values = OPTUNA_STATES[end], None
        if end == "complete":
            state, values = (TrialState.PRUNED, None) if value is None else (state, [value])
        if values is not None and further:
            self._storage.set_trial_user_attr(self._trial_ids[number], FURTHER, list(further))
        self._storage.set_trial_state_values(self._trial_ids[number], state, values)

    def trials(self) -> list[FrozenTrial]:
        """Optuna's trials, in the order in which they were added."""
        return [self._storage.get_trial(trial_id) for trial_id in self._trial_ids.values()]


def quiet_study(storage: optuna.storages.BaseStorage, name: str | None = None) -> optuna.Study:
    """A study that maximises, made without Optuna's message about it; `name` None: Optuna names it."""
    with quiet():
        return optuna.create_study(storage=storage, study_name=name, direction="maximize")

"""Optuna's Gaussian process on the trials of a sweep that is raced.

A Gaussian process needs values that can be compared, and Optuna's takes complete trials alone: few, where trials are
stopped early. Here it gets the values at one milestone: the highest that at least d + 1 trials have reached, d being
the number of parameters (Falkner et al. 2018, BOHB, section 3.2). Running trials count by their parameters (Optuna
integrates over what they may bring). A trial that diverged violates a constraint and has the worst value.

Fitting n trials costs n^3, so the process sees MOST trials: the best half and the latest half. A new study holds them
for one draw, and Optuna's own sampler does the rest.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.samplers.history import VIOLATING, History
from hpo.samplers.problem import Parameters, Problem
from hpo.samplers.sampling import SpaceSampler, quiet

MOST = 24
"""Most ended trials that the process sees."""
PENDING = 1
"""Most running trials that it sees, the latest: what they may bring is integrated over, which is dear."""


class GaussianSampler(SpaceSampler):
    """Expected improvement under Optuna's Gaussian process; draws from the priors until `startup` trials have ended."""

    def __init__(self, problem: Problem, startup: int) -> None:
        super().__init__(problem)
        self._startup = startup
        self._history = History(problem.groups)
        self._seed = 0

    def reseed(self, seed: int) -> None:
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._history.sync(study)
        values = self._values()
        if self._history.ended < self._startup or len(values) < 2:
            self.plan = self._from_priors()
            return
        self.plan = self._asked([*self._ended(values), *self._pending()])
        if any(trial.params == self.plan for trial in self._history.trials.values()):
            self.plan = self._from_priors()  # another seed would find the same optimum again

    def _from_priors(self) -> Parameters:
        source = random.Random(self._seed)
        return {name: leaf.drawn(source) for name, leaf in self.problem.varied.items()}

    def _asked(self, trials: Sequence[FrozenTrial]) -> Parameters:
        """What Optuna's sampler draws from these trials."""
        import torch
        from optuna.samplers import GPSampler  # imports torch as well

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # several threads take many times as long for matrices of this size
        try:
            with quiet():
                sampler = GPSampler(seed=self._seed, n_startup_trials=1)
                model = optuna.create_study(direction="maximize", sampler=sampler)
                model.add_trials(trials)
                return dict(model.ask(self.problem.distributions).params)
        finally:
            torch.set_num_threads(threads)

    def _values(self) -> dict[int, float]:
        """Trial -> value at the highest milestone that enough trials have reached, of sound trials in the space."""
        trials = self._history.trials
        sound = [trials[number] for kind, *_, number in self._history.ranked if kind != VIOLATING]
        sound = [trial for trial in sound if trial.params]
        reached = Counter(step for trial in sound for step in trial.intermediate_values)
        enough = [step for step, count in reached.items() if count > len(self.problem.varied)]
        step = max(enough, default=min(reached, default=0))
        return {t.number: t.intermediate_values[step] for t in sound if step in t.intermediate_values}

    def _ended(self, values: dict[int, float]) -> list[FrozenTrial]:
        """The ended trials that the process sees."""
        diverged = [number for kind, *_, number in self._history.ranked if kind == VIOLATING]
        numbers = {*values, *(number for number in diverged if self._history.trials[number].params)}
        latest = sorted(numbers)[-MOST // 2 :]
        best = sorted(values, key=lambda number: (-values[number], number))[: MOST // 2]
        shown, worst = sorted({*latest, *best}), min(values.values())
        constraints = {} if numbers.isdisjoint(diverged) else {"finite": 0.0}
        return [
            self._as(number, TrialState.COMPLETE, value=values.get(number, worst),
                     constraints=constraints and {"finite": float(number in diverged)})
            for number in shown
        ]  # fmt: skip

    def _pending(self) -> list[FrozenTrial]:
        """The running trials that the process sees."""
        trials = self._history.trials
        running = [number for number in self._history.open if trials[number].params]
        return [self._as(number, TrialState.RUNNING) for number in running[-PENDING:]]

    def _as(self, number: int, state: TrialState, **fields: Any) -> FrozenTrial:
        trial = self._history.trials[number]
        return create_trial(state=state, params=trial.params, distributions=trial.distributions, **fields)

"""The trials of a study, kept so that a draw costs little: ranked as they end, and one table of values a group.

`sync` reads from the study what has changed since the last draw. A history that was kept up over a sweep and one that
is read afresh from the same study are equal, so draws can be replayed (tested).

The ranking is that of Optuna's TPE: complete trials by value, pruned ones by (last step, value), then those that
violate a constraint; the earlier trial wins a tie. Failed trials teach nothing and are dropped.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

Rank = tuple[int, float, float, int]
"""(class, then what orders trials of that class, trial number); lower is better."""
COMPLETE, PRUNED, VIOLATING = range(3)
SEARCHER = "searcher"
"""User attribute of a trial: the searcher that drew it, with the part of it that did (changes/prior)."""
FURTHER = "further"
"""User attribute of a complete trial: its gains in the objectives after the first (`results.objectives`)."""


def rank(trial: FrozenTrial) -> Rank:
    """The place of an ended trial in a study that is maximised."""
    violation = sum(value for value in trial.constraints.values() if value > 0)
    if violation > 0:
        return VIOLATING, violation, 0.0, trial.number
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return COMPLETE, -trial.value, 0.0, trial.number
    if not trial.intermediate_values:
        return PRUNED, 1.0, 0.0, trial.number
    step, value = max(trial.intermediate_values.items())
    return PRUNED, -step, math.inf if math.isnan(value) else -value, trial.number


class History:
    """What a study holds, by rank and by group. Trials are added to the study with all their parameters."""

    def __init__(self, groups: Sequence[Mapping[str, BaseDistribution]]) -> None:
        self._groups = groups
        self._seen = 0
        self.open: list[int] = []
        """Numbers of the trials that had not ended, ascending."""
        self.trials: dict[int, FrozenTrial] = {}
        """Number -> trial, of those that run or have ended well or badly, but not of failed ones."""
        self.ranked: list[Rank] = []
        """Ended trials, best first."""
        self.drawn_by: dict[str, list[int]] = {}
        """Searcher and part -> numbers of its ended trials."""
        self._rows: list[dict[int, tuple[float, ...]]] = [{} for _ in groups]
        """One table a group: number -> Optuna's internal values, in the order of the names."""

    def sync(self, study: optuna.Study) -> None:
        """Take over what has happened in the study."""
        trials = study.get_trials(deepcopy=False)
        still_open = []
        for number in (*self.open, *range(self._seen, len(trials))):
            trial = trials[number]
            if number >= self._seen:
                self._add(trial)
            if not trial.state.is_finished():
                still_open.append(number)
            elif trial.state == TrialState.FAIL:
                self._drop(number)
                continue
            else:
                bisect.insort(self.ranked, rank(trial))
                self.drawn_by.setdefault(trial.user_attrs.get(SEARCHER, ""), []).append(number)
            self.trials[number] = trial
        self.open, self._seen = still_open, len(trials)

    def _add(self, trial: FrozenTrial) -> None:
        params = trial.params
        for group, rows in zip(self._groups, self._rows, strict=True):
            if group.keys() <= params.keys():
                rows[trial.number] = tuple(dist.to_internal_repr(params[name]) for name, dist in group.items())

    def _drop(self, number: int) -> None:
        self.trials.pop(number, None)
        for rows in self._rows:
            rows.pop(number, None)

    @property
    def ended(self) -> int:
        """Number of trials that ended and did not fail."""
        return len(self.ranked)

    def best(self, count: int) -> list[int]:
        """Numbers of the best ended trials, best first."""
        return [number for *_, number in self.ranked[:count]]

    def parents(self, count: int) -> list[Mapping[str, Any]]:
        """Parameters of the best ended trials that lie in the space and violate nothing, best first."""
        sound = (self.trials[number].params for kind, *_, number in self.ranked if kind != VIOLATING)
        return list(islice((params for params in sound if params), count))

    def table(self, group: int, numbers: Collection[int]) -> dict[str, NDArray[np.float64]]:
        """Name -> internal values of these trials in the group, those without the group left out."""
        rows = self._rows[group]
        return self._columns(group, [rows[number] for number in sorted(numbers) if number in rows])

    def rest(self, group: int, numbers: Collection[int], most: int) -> dict[str, NDArray[np.float64]]:
        """Name -> internal values of the latest trials that are not among `numbers`, at most `most`, in their order."""
        rows = self._rows[group]
        others = list(islice((row for number, row in reversed(rows.items()) if number not in numbers), most))
        return self._columns(group, others[::-1])

    def _columns(self, group: int, rows: list[tuple[float, ...]]) -> dict[str, NDArray[np.float64]]:
        names = self._groups[group]
        table = np.array(rows, dtype=float).reshape(len(rows), len(names))
        return {name: table[:, column] for column, name in enumerate(names)}

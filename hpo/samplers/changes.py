"""The sweep's own searcher: it changes few parameters of the default configuration first, then of the best trials.

A trial comes from one of five parts, which the store names with the searcher (changes/best):

    default  the default configuration with few changes: it is tuned, and the first gains are near it
    warm     in place of the default one of the best of other sweeps, each as often as the default (a warm start)
    best     one of the best trials with few changes (mutation and selection): gains add up
    tpe      one of the best trials in which a few parameters take the values that Optuna's TPE draws for them, with its
             candidates weighed by the priors: what many trials say together
    prior    a draw from the priors alone, so that no part of the space is out of reach: rare where the default is good,
             as often as it wins where such draws beat the default at their first report

A change gives a number another value near the parent's (a draw from its prior, moved to that value), and a choice
another value by the priors of the others. Numbers are changed equally often, choices in proportion to the prior
probability of their other values (`chances`). Parameters that the parent does not have are drawn from their priors
(`tpe`: by TPE). In simulated sweeps over `full` 7 in 100 whole draws of TPE were better than the default, and 32 in 100
of those that change one or two parameters of a good trial; see `benchmarks/README.md`.

Cost: a draw of `default`, `best` or `prior` that costs c times what its parent costs is kept with probability
min(1, 1 / c), else drawn again. Such a draw has no result that speaks for it, so dear draws get no more time than
others, and none is out of reach. TPE's draws have results that speak for them, and a parent's own cost has too. The
first trial with a stage before training pays for it (`hpo.search.costs`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from hpo.samplers.history import History
from hpo.samplers.parzen import WeighedParzenSampler
from hpo.samplers.problem import Parameters, Problem
from hpo.samplers.sampling import SpaceSampler
from hpo.space.priors import weight_of
from hpo.space.tree import Leaf, compose, configuration
from search_spaces.domains import OneOf

TRIES = 20
"""Most draws of another value; then the old one stays: the prior gives the others next to nothing."""
AFFORDABLE = 5
"""Most draws for the sake of cost; the last one is kept."""
LEAST_DEFAULT = 0.2
"""Share of the default, and of a warm start's configurations, among the parents once `explore` trials have ended."""


def near(leaf: Leaf, choice: Any, source: random.Random) -> Any:
    """Another choice for a leaf: near a number, or by the priors of the other choices."""
    if not isinstance(leaf.domain, OneOf):
        leaf = replace(leaf, domain=replace(leaf.domain, prior=choice))
    for _ in range(TRIES):
        if (drawn := leaf.drawn(source)) != choice:
            return drawn
    return choice


def chances(problem: Problem, parent: Parameters, count: float) -> dict[str, float]:
    """Name -> probability of a change of the parent's value; `count` changes on average.

    With n parameters, m of them choices, and p(c_i) the prior probability of the parent's choice for the i-th:

        a number   count / n
        a choice   count m / n (1 - p(c_i)) / sum_j (1 - p(c_j)),   at most 1

    So a choice that the prior gives 97 % is left a tenth as often as one that it gives 70 %.
    """
    mean = count / len(parent)
    others = {
        name: 1 - weight_of(leaf.domain, choice)
        for name, choice in parent.items()
        if isinstance((leaf := problem.varied[name]).domain, OneOf)
    }
    scale = mean * len(others) / (sum(others.values()) or 1)
    return {name: min(1.0, scale * others[name]) if name in others else mean for name in parent}


def picked(problem: Problem, parent: Parameters, count: float, source: random.Random) -> set[str]:
    """A few parameters of the parent, each with its probability (`chances`); at least one."""
    weights = chances(problem, parent, count)
    chosen = {name for name, chance in weights.items() if source.random() < chance}
    return chosen or set(source.choices(list(weights), list(weights.values())))


def changed(problem: Problem, parent: Parameters, changes: float, source: random.Random) -> dict[str, Any]:
    """The parent with a few changed parameters. Without a parent every parameter is drawn from its prior."""
    moved = picked(problem, parent, changes, source) if parent else set()

    def choose(leaf: Leaf) -> Any:
        if leaf.name not in parent:
            return leaf.drawn(source)
        return near(leaf, parent[leaf.name], source) if leaf.name in moved else parent[leaf.name]

    return compose(problem.leaves, choose)[1]


class ChangesSampler(SpaceSampler):
    """Changes of the default and of the best, TPE, and the priors. The settings are those of the searcher `changes`."""

    def __init__(
        self,
        problem: Problem,
        *,
        startup: int,
        changes: float,
        parents: int,
        explore: int,
        tpe_every: int,
        tpe_changes: float | None,
        prior_trust: float,
        beta: float,
    ) -> None:
        super().__init__(problem)
        self._startup, self._changes, self._parents, self._explore = startup, changes, parents, explore
        self._tpe_every, self._tpe_changes, self._prior_trust = tpe_every, tpe_changes, prior_trust
        self._history = History(problem.groups)
        self._tpe = WeighedParzenSampler(problem, self._history, beta)
        self._source = random.Random()

    def reseed(self, seed: int) -> None:
        self._source.seed(seed)
        self._tpe.reseed(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._history.sync(study)
        self.part = self._part(trial.number)
        if self.part == "tpe":
            self._tpe.before_trial(study, trial)
            self.plan = self._kept()
        else:
            self.plan = self._planned()

    def _part(self, number: int) -> str:
        """The part that draws a trial."""
        ended = self._history.ended
        if self._tpe_every and ended >= self._startup and number % self._tpe_every == 0:
            return "tpe"
        prior_share = self._prior_share()
        if self._source.random() < prior_share:
            return "prior"
        # Where draws from the priors beat the default, its neighbourhood is no good place either.
        default_share = (1 - prior_share) * self._first_share()
        return "default" if self._source.random() < default_share or not self._history.parents(1) else "best"

    def _first_share(self) -> float:
        """Share of the default and of a warm start's configurations among the parents."""
        return max(LEAST_DEFAULT, 1 - self._history.ended / self._explore)

    def _prior_share(self) -> float:
        """Share of draws from the priors: that of such draws which beat the default where they first reported, after
        one that did and `prior_trust` that did not."""
        trials = self._history.trials
        default = trials[0].intermediate_values if 0 in trials else {}
        won, lost = 1.0, self._prior_trust
        for number in self._history.drawn_by.get("changes/prior", ()):
            values = trials[number].intermediate_values
            if values and (first := min(values)) in default:
                won, lost = (won + 1, lost) if values[first] > default[first] else (won, lost + 1)
        return won / (won + lost)

    def _planned(self) -> Parameters:
        """All parameters of a trial of any part but TPE."""
        parent: Parameters = {}
        if self.part != "prior":
            best = self.part == "best"
            parent = self._source.choice(self._history.parents(self._parents) if best else self.problem.starts)
            if not best and parent in self.problem.warm:
                self.part = "warm"
        affordable = self._cost(parent) if parent else 1.0
        for _ in range(AFFORDABLE):
            plan = changed(self.problem, parent, self._changes, self._source)
            if self._source.random() * self._cost(plan) <= affordable:
                break
        return plan

    def _kept(self) -> Parameters:
        """The parameters that a trial of TPE takes from its parent; TPE draws the others as they are asked for."""
        parents: Sequence[Parameters] = self._history.parents(self._parents)
        if self.problem.warm and (not parents or self._source.random() < self._first_share()):
            parents = self.problem.warm
        if self._tpe_changes is None or not parents:
            return {}
        parent = self._source.choice(parents)
        drawn = picked(self.problem, parent, self._tpe_changes, self._source)
        return {name: choice for name, choice in parent.items() if name not in drawn}

    def _cost(self, parameters: Parameters) -> float:
        """Cost of a trial relative to the default's; 1.0 if it is not known."""
        if self.problem.cost is None:
            return 1.0
        return self.problem.cost(configuration(self.problem.leaves, parameters))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name in self.plan:
            return self.plan[param_name]
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

"""Grid search: every configuration of a finite space once, in an order that the sweep's seed shuffles.

The configurations are numbered: a kind counts its branches one after the other, parameters side by side multiply. A
draw takes a number that no trial has, each with the same probability, so it needs no list of all configurations: the
space may be far larger than the sweep. (Optuna's BruteForceSampler builds its tree from all trials for every value.)
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from math import prod
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.samplers.problem import Parameters, Problem
from hpo.samplers.sampling import SpaceSampler
from hpo.space.tree import Conditions, Leaf
from search_spaces.domains import Float, OneOf


def choices(leaf: Leaf) -> Sequence[Any]:
    """All choices of a finite leaf."""
    domain = leaf.domain
    assert not isinstance(domain, Float)
    return domain.choices if isinstance(domain, OneOf) else range(domain.low, domain.high + 1, domain.step)


class Numbering:
    """The configurations of a finite space, numbered from 0."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self._under: dict[Conditions, list[Leaf]] = {}
        for leaf in leaves:
            self._under.setdefault(leaf.conditions, []).append(leaf)
        self._sizes: dict[Conditions, int] = {}
        self.size = self._size(())
        """Number of configurations."""

    def _size(self, kinds: Conditions) -> int:
        """Number of ways to choose everything that exists under these kinds."""
        if kinds not in self._sizes:
            self._sizes[kinds] = prod(self._ways(leaf) for leaf in self._under.get(kinds, ()))
        return self._sizes[kinds]

    def _ways(self, leaf: Leaf) -> int:
        """Number of ways to choose a leaf and, of a kind, its branch."""
        return sum(self._size(branch) for branch in self._branches(leaf)) if leaf.is_kind else len(choices(leaf))

    def _branches(self, leaf: Leaf) -> list[Conditions]:
        return [(*leaf.conditions, (leaf.path, kind)) for kind in choices(leaf)]

    def configuration(self, number: int) -> dict[str, Any]:
        """The choices of a configuration by name, constants included."""
        return dict(self._chosen((), number))

    def _chosen(self, kinds: Conditions, number: int) -> list[tuple[str, Any]]:
        chosen: list[tuple[str, Any]] = []
        for leaf in self._under.get(kinds, ()):
            number, place = divmod(number, self._ways(leaf))
            if not leaf.is_kind:
                chosen.append((leaf.name, choices(leaf)[place]))
                continue
            for kind, branch in zip(choices(leaf), self._branches(leaf), strict=True):
                if place < self._size(branch):
                    chosen += [(leaf.name, kind), *self._chosen(branch, place)]
                    break
                place -= self._size(branch)
        return chosen

    def number(self, parameters: Parameters) -> int:
        """The number of a configuration whose choices are given by name; constants may be left out."""
        return self._number((), parameters)

    def _number(self, kinds: Conditions, parameters: Parameters) -> int:
        number = 0
        for leaf in reversed(self._under.get(kinds, ())):
            place = choices(leaf).index(parameters.get(leaf.name, leaf.first()))
            if leaf.is_kind:
                branches = self._branches(leaf)
                before = sum(self._size(branch) for branch in branches[:place])
                place = before + self._number(branches[place], parameters)
            number = number * self._ways(leaf) + place
        return number


class GridSampler(SpaceSampler):
    """Draws a configuration that no trial has, failed ones included. There must be one (`Sweep.trials`)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._source = random.Random()
        self._numbering = Numbering(problem.leaves)
        self._seen = 0
        """Number of trials of the study that `_taken` holds."""
        self._taken: list[int] = []
        """Numbers of the configurations that trials have, ascending, each once."""

    def reseed(self, seed: int) -> None:
        self._source.seed(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        trials = study.get_trials(deepcopy=False)
        for earlier in trials[self._seen :]:
            if earlier.params:
                self._take(self._numbering.number(earlier.params))
        self._seen = len(trials)
        free = self._numbering.size - len(self._taken)
        assert free > 0, "a sweep has no more trials than there are configurations"
        self.plan = self._numbering.configuration(_skipping(self._source.randrange(free), self._taken))

    def _take(self, number: int) -> None:
        place = bisect.bisect_left(self._taken, number)
        if self._taken[place : place + 1] != [number]:
            self._taken.insert(place, number)


def _skipping(place: int, taken: Sequence[int]) -> int:
    """The number at a place (from 0) among those that are not taken; `taken` ascends."""
    # taken[i] - i numbers below taken[i] are free.
    return place + bisect.bisect_right(range(len(taken)), place, key=lambda index: taken[index] - index)

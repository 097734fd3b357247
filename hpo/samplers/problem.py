"""What a searcher searches: the parameters of a space, where to begin, and what a configuration costs.

Parameters that exist under the same kinds form a group: they occur together in every configuration or not at all, so a
model of one group needs no missing values. The space says so before the first trial. (Optuna's `group=True` finds
groups from the trials, each time from all of them.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.space.tree import Leaf, Nested, compose
from search_spaces.domains import Float, Int

Parameters = Mapping[str, Any]
"""Optuna's name -> choice, for every parameter of one configuration that the space varies."""
Cost = Callable[[Nested], float]
"""Cost of a trial with a drawn configuration, relative to the default one (1.0), were both to run in full."""


def distribution(leaf: Leaf) -> BaseDistribution:
    """The Optuna distribution of a leaf's domain."""
    domain = leaf.domain
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, step=domain.step, log=domain.log)
    return CategoricalDistribution(domain.choices)


def modes(space: Sequence[Leaf]) -> dict[str, Any]:
    """The parameters of the configuration in which each has the choice with the highest prior."""
    return compose(space, lambda leaf: leaf.mode)[1]


@dataclass(frozen=True)
class Problem:
    """A space as a searcher sees it."""

    leaves: tuple[Leaf, ...]
    parents: tuple[Parameters, ...] = ()
    """Configurations to change before the sweep has good trials of its own: the default one. Empty: the priors' modes
    (the default configuration lies outside the space)."""
    warm: tuple[Parameters, ...] = ()
    """More of them: the best of other sweeps."""
    cost: Cost | None = None
    """None: costs are not known, and play no part."""

    @cached_property
    def starts(self) -> tuple[Parameters, ...]:
        """The parents, or the modes where there are none; then the best of other sweeps."""
        return (*(self.parents or (modes(self.leaves),)), *self.warm)

    @cached_property
    def varied(self) -> dict[str, Leaf]:
        """Name -> leaf, for leaves with more than one possible value."""
        return {leaf.name: leaf for leaf in self.leaves if not leaf.constant}

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Name -> Optuna's distribution, for leaves with more than one possible value."""
        return {name: distribution(leaf) for name, leaf in self.varied.items()}

    @cached_property
    def groups(self) -> tuple[dict[str, BaseDistribution], ...]:
        """The groups, each as its sorted names with their distributions."""
        by_kinds: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for name, leaf in self.varied.items():
            by_kinds.setdefault(leaf.conditions, []).append(name)
        return tuple({name: self.distributions[name] for name in sorted(names)} for names in by_kinds.values())

    @cached_property
    def group_of(self) -> dict[str, int]:
        """Name -> index of its group."""
        return {name: index for index, group in enumerate(self.groups) for name in group}

"""Resolution of priors: every domain of a tree gets its prior, from the default configuration where none is written.

The default configuration is that of the sweep's base and tasks under the kinds of the domain's branch: a rank in the
branch `lora` is that of `{"adapter": {"kind": "lora"}}`. A range is centred at its default, with sigma 0.2; a choice
gives its default 0.5, or the share that is written, and the others equal shares. Weights are written so that they sum
to 1. A domain with one value needs no prior.

A warm start then moves the priors to the best trial of other sweeps (`centred`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpo.space.pins import Complete
from hpo.space.priors import weight_of
from hpo.space.tree import Conditions, Leaf, Nested, at, nest, rewritten
from search_spaces.domains import SIGMA, Domain, Node, OneOf, SpaceError, same

DEFAULT_SHARE = 0.5
"""Prior probability of the default among the choices of a domain without weights."""

_NO_DEFAULT = object()
"""Stands for the default of a parameter that the default configuration does not have."""


def resolved(tree: Mapping[str, Node], complete: Complete) -> tuple[dict[str, Node], list[str]]:
    """The expanded tree with every prior written, and one mistake for each default outside its domain.

    A domain with a mistake keeps no prior. Nor does one that the configuration does not have, has as a dictionary, or
    has in a branch that it refuses: `hpo.space.check` reports those.
    """
    resolution = _Resolution(complete)
    return rewritten(tree, resolution.prior), resolution.mistakes


class _Resolution:
    """Priors of the leaves of a tree; each combination of kinds is completed once."""

    def __init__(self, complete: Complete) -> None:
        self.mistakes: list[str] = []
        self._complete = complete
        self._defaults: dict[Conditions, Nested] = {}

    def prior(self, leaf: Leaf) -> Domain:
        """The leaf's domain with its prior."""
        domain = leaf.domain
        if isinstance(domain, OneOf) and domain.share is not None:
            share, domain = domain.share, _weighed(domain, None)
        else:
            share = DEFAULT_SHARE
        if leaf.constant:
            return domain
        if isinstance(domain, OneOf) and domain.weights is not None:
            return _weighed(domain, domain.weights)
        if not isinstance(domain, OneOf) and domain.prior is not None:
            return replace(domain, sigma=domain.sigma or SIGMA)
        default = self._default(leaf)
        if default is _NO_DEFAULT or (isinstance(default, Mapping) and not _is_composite(domain)):
            return domain
        try:
            choice = leaf.choice(default)
        except SpaceError:
            self.mistakes.append(_outside(leaf, default))
            return domain
        if isinstance(domain, OneOf):
            others = (1 - share) / (len(domain.values) - 1)
            return _weighed(domain, [share if same(each, choice) else others for each in domain.choices])
        return replace(domain, prior=choice, sigma=domain.sigma or SIGMA)

    def _default(self, leaf: Leaf) -> Any:
        """The parameter's default under the kinds of its branch; `_NO_DEFAULT` if it is unknown."""
        if leaf.conditions not in self._defaults:
            try:
                self._defaults[leaf.conditions] = self._complete(nest(dict(leaf.conditions)))
            except ValueError:
                self._defaults[leaf.conditions] = {}
        try:
            return at(self._defaults[leaf.conditions], leaf.path)
        except KeyError:
            return _NO_DEFAULT


def centred(tree: Mapping[str, Node], choices: Mapping[str, Any]) -> dict[str, Node]:
    """The resolved tree with its priors moved to these choices, by Optuna's names.

    A range is centred at its choice and keeps its sigma. A choice gets DEFAULT_SHARE, what a default gets, unless it
    has more; the others share the rest in their former proportions, so that none is out of reach.
    """

    def moved(leaf: Leaf) -> Domain:
        domain = leaf.domain
        if leaf.name not in choices or leaf.constant:
            return domain
        choice = choices[leaf.name]
        if not isinstance(domain, OneOf):
            return replace(domain, prior=choice, sigma=domain.sigma or SIGMA)
        share = weight_of(domain, choice)
        if share >= DEFAULT_SHARE:
            return domain
        weights = [weight_of(domain, each) * (1 - DEFAULT_SHARE) / (1 - share) for each in domain.choices]
        return _weighed(domain, [DEFAULT_SHARE if same(each, choice) else weight
                                 for each, weight in zip(domain.choices, weights, strict=True)])  # fmt: skip

    return rewritten(tree, moved)


def _is_composite(domain: Domain) -> bool:
    return isinstance(domain, OneOf) and any(isinstance(value, Mapping) for value in domain.values)


def _weighed(domain: OneOf, weights: Sequence[float] | None) -> OneOf:
    """The choice with weights that sum to 1; None: without weights."""
    labels = dict(zip(domain.labels, domain.values, strict=True))
    return OneOf(labels=labels, weights=None if weights is None else [weight / sum(weights) for weight in weights])


def _outside(leaf: Leaf, default: Any) -> str:
    """The mistake of a default outside its domain: what it is, and what to write."""
    under = " and ".join(f"{path} = {kind}" for path, kind in leaf.conditions)
    cure = "the centre of a prior with prior=..."
    if isinstance(leaf.domain, OneOf):
        cure = "the share of each choice with weights=..."
    return (
        f"{leaf.name}: the default {json.dumps(default)}{f' (where {under})' * bool(under)} is not within "
        f"{leaf.domain.extent}, and good values are expected near it. Widen the domain, or write {cure}"
    )

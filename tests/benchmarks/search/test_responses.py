"""Responses: the default scores 0, the gap is that of brute force, each kind is what its words say."""

from __future__ import annotations

import itertools
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.search.responses import (
    GAP,
    POOR_SHARE,
    RESPONSES,
    Parabola,
    Plan,
    Response,
    key_of,
    position,
    uniform,
)
from hpo.space.space import Space
from hpo.space.tree import Leaf, compose
from search_spaces.domains import OneOf
from tests.hpo.simulation import complete

KINDS = tuple(RESPONSES)


def drawn(kind: str, plan: Plan, seed: int) -> Response:
    return RESPONSES[kind](plan, random.Random(seed))


def default_of(space: Space) -> dict[str, Any]:
    return space.parameters(space.apply({}, complete), complete)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_scores_zero(kind: str, space: Space, plan: Plan) -> None:
    for seed in range(5):
        assert drawn(kind, plan, seed).score(default_of(space)) == pytest.approx(0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_the_response(kind: str, plan: Plan) -> None:
    draws = [uniform(plan, random.Random(seed)) for seed in range(20)]
    first, again, other = (drawn(kind, plan, seed) for seed in (0, 0, 1))
    assert [first.score(draw) for draw in draws] == [again.score(draw) for draw in draws]
    assert [first.score(draw) for draw in draws] != [other.score(draw) for draw in draws]


def best_by_enumeration(response: Response) -> float:
    """Highest score over all choices, with numbers at the top of their parabola or at the default."""
    plan = response.plan
    options: dict[str, list[Any]] = {}
    for leaf in plan.leaves:
        if isinstance(leaf.domain, OneOf):
            options[leaf.name] = list(leaf.domain.choices)
        else:
            options[leaf.name] = [plan.defaults[leaf.name], _top(response, leaf)]
    scores = []
    for chosen in itertools.product(*options.values()):
        values = dict(zip(options, chosen, strict=True))
        scores.append(response.score(compose(plan.leaves, lambda leaf: values[leaf.name])[1]))  # noqa: B023
    return max(scores)


def _top(response: Response, leaf: Leaf) -> float:
    effect, domain = response.effects[key_of(leaf)], leaf.domain
    assert isinstance(effect, Parabola) and not isinstance(domain, OneOf)
    if domain.log:
        return float(min(domain.high, max(domain.low, domain.low * (domain.high / domain.low) ** effect.best)))
    return float(domain.low + effect.best * (domain.high - domain.low))


@pytest.mark.parametrize("kind", ["good", "interacting"])
def test_the_gap_is_that_of_all_configurations(kind: str, plan: Plan) -> None:
    few = replace(plan, leaves=tuple(leaf for leaf in plan.leaves if "taper" not in leaf.name and leaf.name != "x"))
    kept = {leaf.name for leaf in few.leaves}
    few = replace(few, defaults={name: value for name, value in plan.defaults.items() if name in kept})
    for seed in range(3):
        response = drawn(kind, few, seed)
        assert GAP[0] - 1e-6 <= response.gap() <= GAP[1] + 1e-6
        assert best_by_enumeration(response) == pytest.approx(response.gap(), abs=1e-6)


def test_nothing_gains_where_the_default_is_optimal(plan: Plan) -> None:
    response = drawn("optimal", plan, 0)
    assert response.gap() == 0.0
    assert max(response.score(uniform(plan, random.Random(seed))) for seed in range(200)) <= 1e-12


def test_a_poor_default_has_its_place_among_uniform_draws(plan: Plan) -> None:
    shares, deviations = [], []
    for seed in range(5):
        response, rng = drawn("poor", plan, seed), random.Random(100)
        scores = [response.score(uniform(plan, rng)) for _ in range(400)]
        shares.append(sum(score > 0 for score in scores) / len(scores))
        deviations.append(statistics.pstdev(scores))
    assert POOR_SHARE[0] - 0.1 < min(shares) and max(shares) < POOR_SHARE[1] + 0.1
    assert statistics.mean(deviations) == pytest.approx(0.015, rel=0.15)


def test_partners_gain_together_and_cost_alone(plan: Plan) -> None:
    for seed in range(20):
        response = drawn("interacting", plan, seed)
        if response.partners:
            break
    first, second = next(iter(response.partners.items()))
    names = {key: leaf.name for key, leaf in plan.keyed.items()}
    tops = {key: _best(response, plan.keyed[key]) for key in (first, second)}
    alone = {names[first]: tops[first], names[second]: plan.defaults[names[second]]}
    together = {names[key]: tops[key] for key in (first, second)}
    gains = {key: response._gained(key, response.effects[key](tops[key])) for key in (first, second)}
    assert response.score(alone) == pytest.approx(-0.5 * gains[first])
    assert response.score(together) == pytest.approx(sum(gains.values()))


def _best(response: Response, leaf: Leaf) -> Any:
    effect = response.effects[key_of(leaf)]
    return max(leaf.domain.choices, key=effect) if isinstance(leaf.domain, OneOf) else _top(response, leaf)


def test_equal_parameters_of_two_branches_have_one_effect(plan: Plan) -> None:
    leaves = [leaf for leaf in plan.leaves if leaf.name in plan.defaults]
    assert len(plan.keyed) == len({key_of(leaf) for leaf in leaves}) <= len(leaves)


def test_positions() -> None:
    assert position(10.0, 1.0, 100.0, True) == pytest.approx(0.5)
    assert position(25.0, 0.0, 100.0, False) == 0.25

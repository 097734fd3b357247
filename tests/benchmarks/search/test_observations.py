"""Observations: nothing but the true score at full budget, noise of the stated size, shared where that is asked for."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from benchmarks.search.observations import CURVES, LOWEST, NOISES, Observer, early
from benchmarks.search.responses import Plan, good, uniform


def observer(plan: Plan, noise: str = "low", family: str = "crossing", paired: float = 0.0, seed: int = 0) -> Observer:
    return Observer(good(plan, random.Random(seed)), CURVES[family], NOISES[noise], seed, paired)


def test_the_early_weight_is_linear_in_the_logarithm_of_the_budget() -> None:
    assert early(1.0) == 0.0
    assert early(LOWEST) == pytest.approx(1.0)
    assert early(1 / 3) == pytest.approx(1 / 2)
    assert early(LOWEST / 10) == 1.0


@pytest.mark.parametrize("family", list(CURVES))
def test_at_full_budget_only_the_true_score_counts(family: str, plan: Plan) -> None:
    watched = observer(plan, family=family)
    level = CURVES[family].levels[1]
    for seed in range(20):
        draw = uniform(plan, random.Random(seed))
        assert watched.expected(draw, 1.0) == pytest.approx(level + watched.response.score(draw))


@pytest.mark.parametrize(("family", "rises"), [("rising", True), ("crossing", True), ("falling", False)])
def test_the_defaults_curve_rises_or_falls(family: str, rises: bool, plan: Plan) -> None:
    default = {name: value for name, value in plan.defaults.items() if "." not in name}
    scores = [observer(plan, family=family).expected(default, 3.0**-power) for power in (2, 1, 0)]
    assert scores == sorted(scores, reverse=not rises)


@pytest.mark.parametrize("name", ["low", "measured", "high"])
def test_noise_has_the_stated_deviation(name: str, plan: Plan) -> None:
    noise, watched = NOISES[name], observer(plan, noise=name)
    draw = uniform(plan, random.Random(0))
    for share, stated in ((1.0, math.hypot(noise.training, noise.rows)), (LOWEST, noise.lowest)):
        assert math.hypot(*noise.deviations(share)) == pytest.approx(stated)
        errors = [watched.observed(draw, share, trial) for trial in range(1500)]
        assert statistics.pstdev(errors) == pytest.approx(noise.deviations(share)[0], rel=0.08)


def test_equal_arguments_give_equal_scores_and_replicates_differ(plan: Plan) -> None:
    draw = uniform(plan, random.Random(0))
    watched = observer(plan)
    assert watched.observed(draw, 1.0, 7) == observer(plan).observed(draw, 1.0, 7)
    assert len({watched.observed(draw, 1.0, trial, replicate) for trial in (7, 8) for replicate in (0, 1)}) == 4


def test_the_error_of_rows_belongs_to_the_configuration(plan: Plan) -> None:
    """Repeats do not average it out."""
    watched = observer(plan, noise="measured")
    watched.noise = NOISES["measured"].__class__(0.0, 0.007, 0.0125)
    draw, other = (uniform(plan, random.Random(seed)) for seed in (0, 1))
    assert watched.observed(draw, 1.0, 1, 0) == watched.observed(draw, 1.0, 2, 5)
    errors = [watched.observed(params, 1.0, 1) - watched.expected(params, 1.0) for params in (draw, other)]
    assert errors[0] != errors[1]


def test_paired_trials_share_noise_within_a_replicate(plan: Plan) -> None:
    watched, draw = observer(plan, paired=1.0), uniform(plan, random.Random(0))
    assert watched.observed(draw, 1.0, 1) == watched.observed(draw, 1.0, 2)
    assert watched.observed(draw, 1.0, 1, 0) != watched.observed(draw, 1.0, 1, 1)
    half = observer(plan, paired=0.5)
    differences = [half.observed(draw, 1.0, 2 * n) - half.observed(draw, 1.0, 2 * n + 1) for n in range(1500)]
    assert statistics.pstdev(differences) == pytest.approx(math.sqrt(2 * 0.5) * 0.004, rel=0.08)

"""The fitted response learns harm from rows, and is the prior without any."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import fitting
from benchmarks.search.fitting import fit, prior, read
from benchmarks.search.responses import GAP, Choice, Plan, good, uniform
from tests.hpo import stored


def test_rows_teach_effects(plan: Plan) -> None:
    truth = good(plan, random.Random(5))
    rng = random.Random(6)
    draws = [uniform(plan, rng) for _ in range(600)]
    rows = [(draw, truth.score(draw) + rng.gauss(0, 0.005)) for draw in draws]
    held = [uniform(plan, rng) for _ in range(200)]

    def error(rows: list[fitting.Row]) -> float:
        found = [fit(plan, rows, random.Random(seed)) for seed in range(5)]
        return statistics.mean(abs(one.score(draw) - truth.score(draw)) for one in found for draw in held)

    assert error(rows) < 0.6 * error([])


def test_its_gap_is_that_of_a_good_default(plan: Plan) -> None:
    for seed in range(3):
        assert GAP[0] - 1e-6 <= fit(plan, [], random.Random(seed)).gap() <= GAP[1] + 1e-6


def test_parameters_that_the_space_lacks_are_left_out(plan: Plan) -> None:
    known = [({"adapter/kind": "lora"}, -0.2)]
    more = [({"adapter/kind": "lora", "gone/kind": "x"}, -0.2)]
    draws = [uniform(plan, random.Random(seed)) for seed in range(10)]
    first, second = (fit(plan, rows, random.Random(0)) for rows in (known, more))
    assert [first.score(draw) for draw in draws] == [second.score(draw) for draw in draws]


def test_the_prior_has_a_coefficient_for_each_choice_but_the_default(plan: Plan) -> None:
    coefficients, means, deviations = prior(plan)
    choices = sum(len(leaf.domain.choices) - 1 for key, leaf in plan.keyed.items()
                  if isinstance(good(plan, random.Random(0)).effects[key], Choice))  # fmt: skip
    numbers = len(plan.keyed) - sum(hasattr(leaf.domain, "choices") for leaf in plan.keyed.values())
    assert len(coefficients) == choices + 2 * numbers
    assert np.all(deviations > 0) and len(means) == len(deviations)


def test_rows_of_a_store_are_differences_from_trial_0_at_the_same_milestone(tmp_path: Path) -> None:
    stored.make(tmp_path, "small-1")
    rows = read(str(tmp_path / "small-1"))
    assert [params["adapter.lora/rank"] for params, _ in rows] == [4, 8, 16, 32]
    assert [value for _, value in rows] == pytest.approx([0.125 / 3 * trial for trial in (1, 2, 3, -2)])

"""Scores against scipy and scikit-learn, the overall formula, and the size of the report's evaluation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from minbert.evaluation import FORWARD_SHARE, search_sizes
from minbert.metrics import overall, score


def test_pearson_against_scipy() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-6, 1.0, 1e6):
        x, y = rng.normal(size=50) * scale + 3 * scale, rng.normal(size=50)
        assert score("pearson", x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_an_undefined_correlation_is_zero_and_a_broken_one_nan() -> None:
    assert score("pearson", [2.7] * 9, range(9)) == 0.0
    assert score("pearson", range(9), [1.1] * 9) == 0.0
    assert math.isnan(score("pearson", [1.0, math.nan], [1.0, 2.0]))
    assert math.isnan(score("accuracy", [1.0, math.inf], [1.0, 2.0]))


def test_accuracy_by_hand() -> None:
    assert score("accuracy", [0, 1, 2, 2], [0, 1, 1, 2]) == 0.75


@pytest.mark.parametrize(("metric", "a", "b"), [("f2", [1], [1]), ("accuracy", [], []), ("accuracy", [1, 2], [1])])
def test_bad_input(metric: str, a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="Unknown metric|one length"):
        score(metric, a, b)


def test_overall_is_the_papers_formula() -> None:
    """`multi_extended`, best model: 0.529, 0.902, 0.887 gives 0.791."""
    metrics = {"sst": "accuracy", "qqp": "accuracy", "sts": "pearson"}
    scores = {"sst": 0.529, "qqp": 0.902, "sts": 0.887}
    assert overall(scores, metrics, dict.fromkeys(scores, 1.0)) == pytest.approx(0.791, abs=1e-3)
    assert overall(scores, metrics, {"sst": 1.0, "qqp": 0.0, "sts": 0.0}) == 0.529


@pytest.mark.parametrize("budget", [300, 9000, 27_000, 270_000, 2_000_000])
def test_evaluation_takes_its_share_or_its_minimum(budget: int) -> None:
    sizes, milestones = {"sst": 550, "qqp": 2000, "sts": 431}, [budget // 27, budget // 9, budget // 3, budget]
    chosen, share = search_sizes(sizes, milestones)
    assert all(min(500, sizes[task]) <= chosen[task] <= sizes[task] for task in sizes)
    cost = 4 * sum(chosen.values()) * FORWARD_SHARE
    assert share == pytest.approx(cost / (cost + budget))
    assert share <= 0.15 or all(chosen[task] == min(500, sizes[task]) for task in sizes)
    if budget == 2_000_000:
        assert chosen == sizes

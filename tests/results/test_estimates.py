"""Confidence intervals: compared with scipy, with each other, and with simulations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from results.estimates import (
    INTERVALS,
    Estimate,
    error_of_difference,
    fisher,
    of_difference,
    of_overall,
    of_task,
    resampled,
    widened,
    wilson,
)
from results.scoring import Scoring, Vector
from tests.results.samples import SCORING


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (480, 1000), (1, 38000)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [5, 40, 1000])
def test_fisher_equals_scipy(n: int) -> None:
    generator = np.random.default_rng(n)
    x = generator.normal(size=n)
    y = x + generator.normal(size=n)
    expected = stats.pearsonr(x, y)
    assert fisher(expected.statistic, n) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-9)


def test_intervals_of_few_examples_and_of_extreme_values() -> None:
    assert fisher(0.5, 3) == (-1.0, 1.0)
    assert fisher(1.0, 10) == (1.0, 1.0)
    for interval in INTERVALS.values():
        low, high = interval(0.5, 100)
        wider = interval(0.5, 25)
        assert wider[0] < low < 0.5 < high < wider[1]


def test_coverage_by_simulation() -> None:
    """Of 400 samples, about 95 % of the intervals hold the truth; 3.5 standard errors are 3.8 %."""
    generator = np.random.default_rng(11)
    n, share, r = 150, 0.8, 0.6
    shares = generator.binomial(n, share, 400) / n
    intervals = [wilson(observed, n) for observed in shares]
    assert np.mean([low <= share <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.038)
    inside = []
    for _ in range(400):
        x = generator.normal(size=n)
        y = r * x + np.sqrt(1 - r * r) * generator.normal(size=n)
        low, high = fisher(float(np.corrcoef(x, y)[0, 1]), n)
        inside.append(low <= r <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.038)


def problem(seed: int = 3) -> tuple[list[dict[str, Vector]], dict[str, Vector]]:
    """Three predictors, one of them constant where a correlation is asked for, and labels."""
    generator = np.random.default_rng(seed)
    labels = {"colour": generator.integers(0, 3, 60).astype(float), "length": generator.uniform(0, 5, 40)}
    predictors = [
        {
            "colour": np.where(generator.random(60) < 0.7, labels["colour"], 1.0),
            "length": labels["length"] + generator.normal(0, 1, 40) if place else np.full(40, 2.5),
        }
        for place in range(3)
    ]
    return predictors, labels


def _off_by_one(metric: str, predictions: Vector, labels: Vector) -> float:
    return float(np.mean(np.abs(predictions - labels) <= 1))


OTHER = replace(SCORING, metrics={"colour": "other", "length": "other"}, score=_off_by_one)


@pytest.mark.parametrize("scoring", [SCORING, OTHER], ids=["accuracy and pearson", "another metric"])
def test_matrix_products_equal_the_bootstrap_row_by_row(scoring: Scoring) -> None:
    """The same rows, drawn one resample after the other and one task after the other."""
    predictors, labels = problem()
    generator, expected = np.random.default_rng(7), []
    for _ in range(150):
        rows = {task: generator.integers(0, len(truth), len(truth)) for task, truth in labels.items()}
        chosen = {task: truth[rows[task]] for task, truth in labels.items()}
        drawn = [{task: values[rows[task]] for task, values in each.items()} for each in predictors]
        expected.append([scoring.overall(scoring.scores(each, chosen)) for each in drawn])
    assert resampled(scoring, predictors, labels, 150, 7) == pytest.approx(np.array(expected), abs=1e-12)


def test_a_correlation_of_few_rows_is_defined_as_for_all() -> None:
    """Resamples of three rows often repeat one row, and then have no spread."""
    labels = {"length": np.array([1.0, 2, 4])}
    values = resampled(SCORING, [{"length": np.array([1e6, 1e6 + 1, 1e6 + 3])}], labels, 300, 1)
    assert set(np.round(values[:, 0], 6)) == {0.5, 1.0}


def test_the_bootstrap_agrees_with_the_closed_form_and_repeats() -> None:
    right = {"colour": (np.arange(500) < 400).astype(float)}
    labels = {"colour": np.ones(500)}
    estimate = of_overall(SCORING, right, labels)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.8, 500), abs=0.008)
    assert estimate == of_overall(SCORING, right, labels)


def test_coverage_of_the_bootstrapped_overall() -> None:
    generator = np.random.default_rng(2)
    inside = []
    for seed in range(120):
        right = {"colour": (generator.random(100) < 0.7).astype(float)}
        values = resampled(SCORING, [right], {"colour": np.ones(100)}, 200, seed)
        low, high = np.quantile(values, [0.025, 0.975])
        inside.append(low <= 0.7 <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.07)


def test_an_interval_widens_by_the_spread_over_seeds() -> None:
    estimate = Estimate(0.02, 0.01, 0.04, 100)
    assert widened(estimate, 0.0) == estimate
    wide = widened(estimate, 0.01)
    assert wide.value - wide.low == pytest.approx(np.hypot(0.01, 1.96 * 0.01), rel=1e-3)
    assert wide.high - wide.value == pytest.approx(np.hypot(0.02, 1.96 * 0.01), rel=1e-3)


def test_overall_and_difference() -> None:
    generator = np.random.default_rng(3)
    labels = {"colour": generator.integers(0, 3, 200).astype(float), "length": generator.uniform(0, 5, 100)}
    good = {"colour": labels["colour"].copy(), "length": labels["length"] + generator.normal(0, 1, 100)}
    good["colour"][:60] = 9
    worse = {"colour": good["colour"].copy(), "length": good["length"] + generator.normal(0, 2, 100)}
    worse["colour"][60:90] = 9
    estimate = of_overall(SCORING, good, labels)
    assert estimate.n == 300
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == SCORING.overall(SCORING.scores(good, labels))
    gain = of_difference(SCORING, [good], [worse], labels)
    assert gain.value == pytest.approx(estimate.value - of_overall(SCORING, worse, labels).value)
    assert 0 < gain.low < gain.value < gain.high
    nothing = of_difference(SCORING, [good], [good], labels)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    error = error_of_difference(SCORING, [good], [worse], labels)
    assert error == pytest.approx((gain.high - gain.low) / (2 * 1.96), rel=0.25)
    assert error_of_difference(SCORING, [good, worse], [worse], labels) == pytest.approx(error / 2)
    averaged = of_difference(SCORING, [good, worse], [worse], labels)
    ends = (averaged.value, averaged.low, averaged.high)
    assert ends == pytest.approx((gain.value / 2, gain.low / 2, gain.high / 2)), "scores are averaged, not predictions"
    assert of_task(SCORING, "colour", good["colour"], labels["colour"]).value == 0.7

"""Confidence intervals: compared with scipy, with each other, and with simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from results.estimates import (
    INTERVALS,
    bootstrap,
    error_of_difference,
    fisher,
    of_difference,
    of_overall,
    of_task,
    wilson,
)
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


def test_bootstrap_agrees_with_the_closed_form_and_repeats() -> None:
    right = (np.arange(500) < 400).astype(float)
    interval = bootstrap(lambda index: float(right[index["a"]].mean()), {"a": 500})
    assert interval == pytest.approx(wilson(0.8, 500), abs=0.008)
    assert interval == bootstrap(lambda index: float(right[index["a"]].mean()), {"a": 500})
    assert interval != bootstrap(lambda index: float(right[index["a"]].mean()), {"a": 500}, seed=1)


def test_coverage_of_the_bootstrapped_overall() -> None:
    generator = np.random.default_rng(2)
    inside = []
    for _ in range(120):
        right = (generator.random(100) < 0.7).astype(float)
        low, high = bootstrap(lambda index, right=right: float(right[index["a"]].mean()), {"a": 100}, resamples=200)  # type: ignore[misc]
        inside.append(low <= 0.7 <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.07)


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

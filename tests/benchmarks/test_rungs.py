"""The scores and correlations by which rungs are judged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.rungs import correlation, smooth


def test_the_smooth_score_of_classes_does_not_depend_on_confidence() -> None:
    """Logits that are scaled by any factor have the same likelihood at the best temperature."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200).astype(float)
    logits = generator.normal(size=(200, 3)) + 1.5 * np.eye(3)[labels.astype(int)]

    def chances(factor: float) -> np.ndarray:
        exponents = np.exp(factor * logits)
        return (exponents / exponents.sum(1, keepdims=True)).astype(np.float16)

    scores = [smooth(chances(factor), labels) for factor in (0.5, 1.0, 1.5)]
    assert scores == pytest.approx([scores[1]] * 3, abs=2e-3) and scores[1] > -np.log(3)
    worse = smooth(chances(1.0), generator.permutation(labels))
    assert worse == pytest.approx(-np.log(3), abs=0.05)  # labels that the logits know nothing of


def test_the_smooth_score_of_a_regression_is_its_correlation() -> None:
    values = np.array([0.0, 1.0, 2.0, 4.0], dtype=np.float32)
    assert smooth(values, np.array([1.0, 1.5, 2.0, 3.0])) == pytest.approx(1.0)


def test_a_correlation_has_an_interval_around_it() -> None:
    generator = np.random.default_rng(1)
    quality = generator.normal(size=24)
    noisy = quality + generator.normal(size=24)
    rho, low, high = correlation(noisy, quality)
    assert rho == pytest.approx(spearmanr(noisy, quality).statistic)
    assert low < rho < high < 1

"""The scores and correlations by which rungs are judged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.rungs import correlation, half_of_sst, smooth
from minbert import metrics
from results.scoring import Scoring
from results.tasks import Task


def test_the_smooth_score_of_classes_does_not_depend_on_confidence() -> None:
    """Logits that are scaled by any factor have the same likelihood at the best temperature."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200).astype(float)
    logits = generator.normal(size=(200, 3)) + 1.5 * np.eye(3)[labels.astype(int)]

    def chances(factor: float) -> np.ndarray:
        exponents = np.exp(factor * logits)
        return (exponents / exponents.sum(1, keepdims=True)).astype(np.float16)

    scores = [smooth({"a": (chances(factor), labels)}) for factor in (0.5, 1.0, 1.5)]
    assert scores == pytest.approx([scores[1]] * 3, abs=2e-3) and scores[1] > -np.log(3)
    worse = smooth({"a": (chances(1.0), generator.permutation(labels))})
    assert worse == pytest.approx(-np.log(3), abs=0.05)  # labels that the logits know nothing of


def test_the_smooth_score_of_a_regression_is_its_correlation() -> None:
    values = np.array([0.0, 1.0, 2.0, 4.0], dtype=np.float32)
    assert smooth({"a": (values, np.array([1.0, 1.5, 2.0, 3.0]))}) == pytest.approx(1.0)


def test_half_of_sst_leaves_the_other_tasks_whole() -> None:
    tasks = {"sst": Task("classification", "accuracy", 1.0), "qqp": Task("classification", "accuracy", 3.0)}
    values = np.array([0.9, 0.9, 0.1, 0.1], dtype=np.float16)  # probabilities of class 1
    labels = np.array([1.0, 1.0, 1.0, 0.0])
    score = half_of_sst(Scoring.of(tasks, metrics.score, metrics.overall))
    assert score({"sst": (values, labels), "qqp": (values, labels)}) == pytest.approx((1.0 + 3 * 0.75) / 4)


def test_a_correlation_has_an_interval_around_it() -> None:
    generator = np.random.default_rng(1)
    quality = generator.normal(size=24)
    noisy = quality + generator.normal(size=24)
    rho, low, high = correlation(noisy, quality)
    assert rho == pytest.approx(spearmanr(noisy, quality).statistic)
    assert low < rho < high < 1

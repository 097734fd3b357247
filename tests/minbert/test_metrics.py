"""Scores against scipy and scikit-learn, and the overall formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from minbert.metrics import details, off_by_one, outliers, overall, precision_recall_f1, ranks, score
from minbert.tasks import TASKS


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


@pytest.mark.parametrize("classes", [2, 5])
def test_details_of_classes_against_scikit_learn(classes: int) -> None:
    from sklearn import metrics as reference

    rng = np.random.default_rng(classes)
    labels, predicted = rng.integers(0, classes, 200), rng.integers(0, classes, 200)
    predicted[:80] = labels[:80]
    found = details(TASKS["qqp" if classes == 2 else "sst"], predicted, labels)
    assert found["confusion"] == reference.confusion_matrix(labels, predicted).tolist()
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    if classes == 2:
        expected = reference.precision_recall_fscore_support(labels, predicted, average="binary")[:3]
        assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(expected)
    else:
        matrix = np.array(found["confusion"])
        band = sum(np.trace(matrix, offset) for offset in (-1, 0, 1))
        assert found["off_by_one"] == pytest.approx(band / 200)


def test_a_class_that_never_occurs_scores_zero_not_nan() -> None:
    never = np.zeros(4)
    assert precision_recall_f1(never, np.array([0.0, 1, 1, 0])) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(np.ones(4), never) == (0.0, 0.0, 0.0)
    assert precision_recall_f1(never, never) == (0.0, 0.0, 0.0)
    assert details(TASKS["sst"], never, never)["confusion"][4] == [0] * 5
    assert off_by_one(np.array([0.0, 2, 4]), np.array([1.0, 4, 4])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_against_scipy(ties: bool) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=60), rng.normal(size=60)
    if ties:
        x, y = np.round(x), np.round(y * 2) / 2
    assert ranks(x) == pytest.approx(stats.rankdata(x))
    found = details(TASKS["sts"], x, y)
    assert found["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert details(TASKS["sts"], np.full(60, 2.7), y)["spearman"] == 0.0


def test_outliers_lie_beyond_four_standard_deviations_of_the_residuals() -> None:
    labels = np.linspace(0, 5, 100)
    predicted = labels + np.tile([0.1, -0.1], 50)
    assert outliers(predicted, labels).size == 0
    predicted[17] += 4.0
    assert outliers(predicted, labels).tolist() == [17]
    z = np.abs(stats.zscore(predicted - labels))
    assert np.flatnonzero(z > 4).tolist() == details(TASKS["sts"], predicted, labels)["outliers"]
    assert outliers(labels, labels).size == 0, "no residuals, no outliers"


def test_details_of_predictions_that_are_not_finite_are_the_score_alone() -> None:
    found = details(TASKS["sst"], [math.nan, 1.0], [0, 1])
    assert list(found) == ["accuracy"]
    assert math.isnan(found["accuracy"])


def test_overall_is_the_papers_formula() -> None:
    """`multi_extended`, best model: 0.529, 0.902, 0.887 gives 0.791."""
    metrics = {"sst": "accuracy", "qqp": "accuracy", "sts": "pearson"}
    scores = {"sst": 0.529, "qqp": 0.902, "sts": 0.887}
    assert overall(scores, metrics, dict.fromkeys(scores, 1.0)) == pytest.approx(0.791, abs=1e-3)
    assert overall(scores, metrics, {"sst": 1.0, "qqp": 0.0, "sts": 0.0}) == 0.529

"""Scores of predictions against labels, the overall score of a multitask model, and detailed metrics. Numpy only.

overall = sum_k w_k s_k / sum_k w_k,   s = accuracy   or   (1 + r) / 2 for a correlation r

Detailed metrics: confusion matrix, the share of classes at most one off and outliers beyond four standard deviations
(`multi_extended`, section 6), precision, recall and F1 of the positive class, Spearman's rank correlation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

OUTLIER = 4.0
"""Fewest standard deviations of the residuals that make a prediction an outlier (`multi_extended`, section 6)."""


def accuracy(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Share of predictions equal to their label, in [0, 1]."""
    return float(np.mean(predictions == labels))


def pearson(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Pearson correlation r in [-1, 1]; 0 where it is undefined (constant predictions or labels)."""
    if is_constant(predictions) or is_constant(labels):
        return 0.0
    x, y = predictions - predictions.mean(), labels - labels.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1.0, 1.0))


def is_constant(values: NDArray[np.float64]) -> bool:
    """Whether values [N] have no spread beyond the rounding of their mean, so that no correlation is defined."""
    spread = np.linalg.norm(values - values.mean())
    return bool(spread <= np.finfo(np.float64).eps * np.sqrt(len(values)) * np.abs(values).max())


METRICS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "accuracy": accuracy,
    "pearson": pearson,
}
"""Metrics by name: (predictions [N], labels [N]) -> score."""


def score(metric: str, predictions: ArrayLike, labels: ArrayLike) -> float:
    """Score predictions [N] against labels [N]; NaN where a prediction is not finite.

    Raises ValueError for an unknown metric, unequal lengths or no rows.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric `{metric}`. Expected one of: {', '.join(sorted(METRICS))}.")
    predicted, expected = _vectors(predictions, labels)
    if not np.isfinite(predicted).all():
        return float("nan")
    return METRICS[metric](predicted, expected)


def _vectors(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predictions and labels as float vectors [N]. Raises ValueError for unequal lengths or no rows."""
    predicted = np.asarray(predictions, dtype=np.float64)
    expected = np.asarray(labels, dtype=np.float64)
    if predicted.shape != expected.shape or predicted.ndim != 1 or not len(predicted):
        raise ValueError(
            f"`predictions` and `labels` must be non-empty vectors of one length, "
            f"found shapes {predicted.shape} and {expected.shape}."
        )
    return predicted, expected


def overall(scores: Mapping[str, float], metrics: Mapping[str, str], weights: Mapping[str, float]) -> float:
    """Overall score: weighted mean of the task scores, with correlations mapped from [-1, 1] to [0, 1].

    For accuracy, accuracy and Pearson with equal weights this is the papers' (sst + qqp + (1 + r) / 2) / 3.
    """
    total = sum(weights[task] for task in scores)
    return sum(weights[task] * unit(metrics[task], value) for task, value in scores.items()) / total


def unit(metric: str, value: float) -> float:
    """A score mapped to [0, 1]: an accuracy unchanged, a correlation r as (1 + r) / 2."""
    return value if metric == "accuracy" else (1.0 + value) / 2.0


def confusion(predictions: NDArray[np.float64], labels: NDArray[np.float64], classes: int) -> NDArray[np.int64]:
    """Confusion matrix [C, C]: number of rows of class i (row) that were predicted as class j (column)."""
    pairs = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def off_by_one(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Share of predictions that are at most one class off, in [0, 1]; the classes are ordered."""
    return float(np.mean(np.abs(predictions - labels) <= 1))


def precision_recall_f1(
    predictions: NDArray[np.float64], labels: NDArray[np.float64], positive: float = 1
) -> tuple[float, float, float]:
    """Precision P = tp / (tp + fp), recall R = tp / (tp + fn) and F1 = 2 P R / (P + R) of the positive class.

    Each is 0 where it is undefined.
    """
    predicted, actual = predictions == positive, labels == positive
    hits = int(np.sum(predicted & actual))
    precision, recall = hits / max(1, int(predicted.sum())), hits / max(1, int(actual.sum()))
    return precision, recall, 2 * hits / max(1, int(predicted.sum() + actual.sum()))


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of values [N], from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # the highest rank of each distinct value
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


def spearman(predictions: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Spearman's rank correlation in [-1, 1]: Pearson's r of the ranks; 0 where it is undefined."""
    return pearson(ranks(predictions), ranks(labels))


def outliers(
    predictions: NDArray[np.float64], labels: NDArray[np.float64], beyond: float = OUTLIER
) -> NDArray[np.intp]:
    """Indices of rows whose residual is more than `beyond` standard deviations from the mean residual."""
    residuals = predictions - labels
    return np.flatnonzero(np.abs(residuals - residuals.mean()) > beyond * residuals.std())


class Scored(Protocol):
    """A task, as far as its metrics need it."""

    @property
    def kind(self) -> str:
        """classification or regression."""
        ...

    @property
    def classes(self) -> int: ...

    @property
    def metric(self) -> str: ...


def details(task: Scored, predictions: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """Every metric of predictions [N] against labels [N] of a task, in JSON values.

    Regression: `pearson`, `spearman`, `rmse` and `outliers` (indices of rows). Classification: `accuracy` and
    `confusion` (rows: labels, columns: predictions), `precision`, `recall` and `f1` of class 1 for two classes,
    `off_by_one` for more. Where a prediction is not finite: the task's own metric alone, as NaN.
    """
    predicted, expected = _vectors(predictions, labels)
    values: dict[str, Any] = {task.metric: score(task.metric, predicted, expected)}
    if not np.isfinite(predicted).all():
        return values
    if task.kind == "regression":
        values["spearman"] = spearman(predicted, expected)
        values["rmse"] = float(np.sqrt(np.mean((predicted - expected) ** 2)))
        return {**values, "outliers": outliers(predicted, expected).tolist()}
    if task.classes == 2:
        values |= dict(zip(("precision", "recall", "f1"), precision_recall_f1(predicted, expected), strict=True))
    else:
        values["off_by_one"] = off_by_one(predicted, expected)
    return {**values, "confusion": confusion(predicted, expected, task.classes).tolist()}

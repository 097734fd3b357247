"""Scores of predictions against labels, and the overall score of a multitask model. Numpy only.

overall = sum_k w_k s_k / sum_k w_k,   s = accuracy   or   (1 + r) / 2 for a correlation r
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
    """Whether values [N] have no spread beyond the rounding of their mean: nothing correlates with them."""
    spread = np.linalg.norm(values - values.mean())
    return bool(spread <= np.finfo(np.float64).eps * np.sqrt(len(values)) * np.abs(values).max())


METRICS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]] = {
    "accuracy": accuracy,
    "pearson": pearson,
}


def score(metric: str, predictions: ArrayLike, labels: ArrayLike) -> float:
    """Score predictions [N] against labels [N]; NaN where a prediction is not finite.

    Raises ValueError for an unknown metric, unequal lengths or no rows.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric `{metric}`. Expected one of: {', '.join(sorted(METRICS))}.")
    predicted = np.asarray(predictions, dtype=np.float64)
    expected = np.asarray(labels, dtype=np.float64)
    if predicted.shape != expected.shape or predicted.ndim != 1 or not len(predicted):
        raise ValueError(
            f"`predictions` and `labels` must be non-empty vectors of one length, "
            f"found shapes {predicted.shape} and {expected.shape}."
        )
    if not np.isfinite(predicted).all():
        return float("nan")
    return METRICS[metric](predicted, expected)


def overall(scores: Mapping[str, float], metrics: Mapping[str, str], weights: Mapping[str, float]) -> float:
    """Weighted mean of the task scores, correlations mapped from [-1, 1] to [0, 1] first.

    For accuracy, accuracy and Pearson with equal weights this is the papers' (sst + qqp + (1 + r) / 2) / 3.
    """
    total = sum(weights[task] for task in scores)
    return sum(weights[task] * unit(metrics[task], value) for task, value in scores.items()) / total


def unit(metric: str, value: float) -> float:
    """A score on [0, 1]: an accuracy as it is, a correlation r as (1 + r) / 2."""
    return value if metric == "accuracy" else (1.0 + value) / 2.0

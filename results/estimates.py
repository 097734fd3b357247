"""Confidence intervals (95 %) of scores that are measured on n examples.

    accuracy    Wilson (1927):  (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
    pearson     Fisher (1921):  tanh(atanh r -+ z / sqrt(n - 3))
    other metrics, overall, differences:  percentiles of a bootstrap over examples; each task is resampled separately,
                with a fixed seed

A resample is a weight for each row: how often it was drawn. Accuracy is linear in the weights, and Pearson follows from
weighted moments, so many resamples and predictors are a few matrix products.

The interval of pearson assumes bivariate normality, which bounded scores only approach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.scoring import Scoring, Vector

CONFIDENCE = 0.95
RESAMPLES = 1000
"""Resamples of a bootstrap; the standard error of an end of the interval is then about 2 % of the interval's width."""
ROUGH = 100
"""Resamples of a standard error that is only an input to a decision: it is known to about 7 %."""
SEED = 20240607
"""Seed of a bootstrap: the same predictions give the same interval."""
CHUNK = 100
"""Resamples of one matrix product: bounds its memory to 8 CHUNK N bytes."""

Counts = NDArray[np.uint8]


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval, from n examples."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """The estimate as a JSON object."""
        return asdict(self)


def _quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)


def wilson(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share that was observed on n examples, within [0, 1]."""
    z = _quantile((1 + confidence) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def fisher(r: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Fisher's interval of a correlation that was observed on n examples; [-1, 1] if n < 4."""
    if n < 4:
        return -1.0, 1.0
    if abs(r) >= 1:
        return r, r
    half = _quantile((1 + confidence) / 2) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


INTERVALS: dict[str, Callable[[float, int], tuple[float, float]]] = {"accuracy": wilson, "pearson": fisher}
"""Metric -> closed form of its interval. The intervals of other metrics are bootstrapped."""


@lru_cache(maxsize=4)
def _draws(sizes: tuple[int, ...], resamples: int, seed: int) -> tuple[Counts, ...]:
    """How often each row is drawn, [resamples, N] for each of these numbers of rows N. Rows are drawn separately in
    each, with replacement."""
    generator = np.random.default_rng(seed)
    counts = tuple(np.empty((resamples, size), np.uint8) for size in sizes)
    for resample in range(resamples):
        for size, own in zip(sizes, counts, strict=True):
            drawn = np.bincount(generator.integers(0, size, size), minlength=size)
            own[resample] = np.minimum(drawn, 255)  # a row is drawn once on average, 255 times never
    return counts


def resampled(
    scoring: Scoring,
    predictors: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Vector:
    """Overall of each of P predictors on each of many resamples of the rows, [resamples, P]. A resample has the same
    rows for all predictors."""
    sizes = tuple(len(truth) for truth in labels.values())
    scores = {
        task: _weighted(scoring, task, [predictor[task] for predictor in predictors], truth, counts)
        for (task, truth), counts in zip(labels.items(), _draws(sizes, resamples, seed), strict=True)
    }
    return np.asarray(scoring.combine(scores, scoring.metrics, scoring.weights))


def _weighted(
    scoring: Scoring, task: str, predictions: Sequence[Vector], labels: Vector, counts: Counts
) -> Vector:
    """Scores [resamples, P] of one task, with each row as often as `counts` [resamples, N] says."""
    metric, values = scoring.metrics[task], np.stack(predictions, axis=1)  # [N, P]
    if metric in WEIGHTED:
        return np.concatenate([
            WEIGHTED[metric](values, labels, counts[start : start + CHUNK].astype(np.float64))
            for start in range(0, len(counts), CHUNK)
        ])  # fmt: skip
    rows = [np.repeat(np.arange(len(labels)), times) for times in counts]
    return np.array([[scoring.score(metric, own[each], labels[each]) for own in predictions] for each in rows])


def weighted_accuracy(values: Vector, labels: Vector, weights: Vector) -> Vector:
    """Accuracy [R, P] of predictions [N, P], for weights [R, N] of the rows: linear in the weights."""
    return np.asarray(weights @ (values == labels[:, None]) / weights.sum(axis=1, keepdims=True))


def weighted_pearson(values: Vector, labels: Vector, weights: Vector) -> Vector:
    """Pearson correlation [R, P] of predictions [N, P] with labels, for weights [R, N] of the rows, from weighted
    moments; 0 where it is undefined."""
    x, y = values - values.mean(axis=0), labels - labels.mean()
    n, rounding = weights.sum(axis=1, keepdims=True), 8 * np.finfo(np.float64).eps
    x_mean, y_mean, x_square, y_square = (weights @ each / n for each in (x, y[:, None], x * x, y[:, None] ** 2))
    x_variance, y_variance = x_square - x_mean**2, y_square - y_mean**2
    product = np.sqrt(np.maximum(x_variance, 0) * np.maximum(y_variance, 0))
    constant = (x_variance <= rounding * np.abs(values).max(axis=0) ** 2) | (y_variance <= rounding * y_square)
    covariance = weights @ (x * y[:, None]) / n - x_mean * y_mean
    return np.where(constant, 0.0, np.clip(covariance / np.where(constant, 1.0, product), -1.0, 1.0))


WEIGHTED: dict[str, Callable[[Vector, Vector, Vector], Vector]] = {
    "accuracy": weighted_accuracy,
    "pearson": weighted_pearson,
}
"""Metric -> scores of weighted rows. Other metrics are computed on each resample's rows."""


def of_task(scoring: Scoring, task: str, predictions: Vector, labels: Vector) -> Estimate:
    """One task's score with its interval."""
    metric, n = scoring.metrics[task], len(labels)
    value = scoring.score(metric, predictions, labels)
    if metric in INTERVALS:
        low, high = INTERVALS[metric](value, n)
    else:
        (counts,) = _draws((n,), RESAMPLES, SEED)
        low, high = _percentiles(_weighted(scoring, task, [predictions], labels, counts)[:, 0])
    return Estimate(value, low, high, n)


def of_overall(scoring: Scoring, predictions: Mapping[str, Vector], labels: Mapping[str, Vector]) -> Estimate:
    """The overall score with its interval; n is the number of examples of all tasks together."""
    low, high = _percentiles(resampled(scoring, [predictions], labels)[:, 0])
    return Estimate(scoring.judge(labels)(predictions), low, high, _rows(labels))


def of_predictor(
    scoring: Scoring, predictions: Mapping[str, Vector], labels: Mapping[str, Vector]
) -> dict[str, Any]:
    """The scores of one predictor as a record holds them: `overall` and `tasks`, by task, each as a dict."""
    tasks = {task: of_task(scoring, task, predictions[task], truth).to_dict() for task, truth in labels.items()}
    return {"overall": of_overall(scoring, predictions, labels).to_dict(), "tasks": tasks}


def of_difference(
    scoring: Scoring,
    left: Sequence[Mapping[str, Vector]],
    right: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
) -> Estimate:
    """Mean overall of the predictions `left` minus that of `right`, with its interval. Each holds one predictor, or the
    replicates of one configuration, whose scores are averaged and not their predictions.

    All are scored on the same resampled examples, so the interval is far narrower than those of two scores. It says how
    the difference would vary with other examples, not with other seeds (see `widened`).
    """
    judge = scoring.judge(labels)
    left_value, right_value = (np.mean([judge(each) for each in side]) for side in (left, right))
    low, high = _percentiles(_differences(scoring, left, right, labels, RESAMPLES))
    return Estimate(float(left_value - right_value), low, high, _rows(labels))


def widened(estimate: Estimate, spread: float) -> Estimate:
    """The estimate with an interval that also allows for other seeds: `spread` is the standard deviation over seeds.
    Both errors are taken to be independent, so the squares of their widths add up."""
    wider = _quantile((1 + CONFIDENCE) / 2) * spread
    low = estimate.value - math.hypot(max(0.0, estimate.value - estimate.low), wider)
    high = estimate.value + math.hypot(max(0.0, estimate.high - estimate.value), wider)
    return replace(estimate, low=low, high=high)


def error_of_difference(
    scoring: Scoring,
    left: Sequence[Mapping[str, Vector]],
    right: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
) -> float:
    """Standard error of the difference of `of_difference` over the examples, from ROUGH resamples."""
    return float(np.std(_differences(scoring, left, right, labels, ROUGH), ddof=1))


def _differences(
    scoring: Scoring,
    left: Sequence[Mapping[str, Vector]],
    right: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
    resamples: int,
) -> Vector:
    """The difference of the mean overalls on each resample."""
    values = resampled(scoring, [*left, *right], labels, resamples)
    return np.asarray(values[:, : len(left)].mean(axis=1) - values[:, len(left) :].mean(axis=1))


def _percentiles(values: Vector) -> tuple[float, float]:
    """The interval that holds the middle CONFIDENCE of the resamples."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _rows(labels: Mapping[str, Vector]) -> int:
    """Number of rows of all tasks together."""
    return sum(len(truth) for truth in labels.values())

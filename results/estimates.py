"""Confidence intervals (95 %) of scores that are measured on n examples.

    accuracy    Wilson (1927):  (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
    pearson     Fisher (1921):  tanh(atanh r -+ z / sqrt(n - 3))
    other metrics, overall, differences:  percentiles of a bootstrap over examples; each task is resampled separately,
                with a fixed seed

The interval of pearson assumes bivariate normality, which bounded scores only approach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

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


def bootstrap(
    statistic: Callable[[Mapping[str, NDArray[np.int64]]], float],
    sizes: Mapping[str, int],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile interval of a statistic of row indices by task.

    `sizes`: rows of each task. Each task's rows are drawn separately, with replacement.
    """
    values = _resampled(statistic, sizes, resamples, seed)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled(
    statistic: Callable[[Mapping[str, NDArray[np.int64]]], float], sizes: Mapping[str, int], resamples: int, seed: int
) -> list[float]:
    """The statistic of each of many resamples."""
    generator = np.random.default_rng(seed)
    return [
        statistic({task: generator.integers(0, size, size) for task, size in sizes.items()}) for _ in range(resamples)
    ]


def of_task(scoring: Scoring, task: str, predictions: Vector, labels: Vector) -> Estimate:
    """One task's score with its interval."""
    metric, n = scoring.metrics[task], len(labels)
    value = scoring.score(metric, predictions, labels)
    if metric in INTERVALS:
        low, high = INTERVALS[metric](value, n)
    else:
        low, high = bootstrap(lambda i: scoring.score(metric, predictions[i[task]], labels[i[task]]), {task: n})
    return Estimate(value, low, high, n)


def of_overall(scoring: Scoring, predictions: Mapping[str, Vector], labels: Mapping[str, Vector]) -> Estimate:
    """The overall score with its interval; n is the number of examples of all tasks together."""

    def statistic(index: Mapping[str, NDArray[np.int64]]) -> float:
        return _overall(scoring, predictions, labels, index)

    sizes = {task: len(truth) for task, truth in labels.items()}
    low, high = bootstrap(statistic, sizes)
    return Estimate(statistic(_all_rows(sizes)), low, high, sum(sizes.values()))


def of_difference(
    scoring: Scoring,
    left: Sequence[Mapping[str, Vector]],
    right: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
) -> Estimate:
    """Mean overall of the predictions `left` minus that of `right`, with its interval. Each holds one predictor, or the
    replicates of one configuration, whose scores are averaged and not their predictions.

    All are scored on the same resampled examples, so the interval is far narrower than those of two scores. It says how
    the difference would vary with other examples, not with other seeds.
    """
    statistic = _difference(scoring, left, right, labels)
    sizes = {task: len(truth) for task, truth in labels.items()}
    low, high = bootstrap(statistic, sizes)
    return Estimate(statistic(_all_rows(sizes)), low, high, sum(sizes.values()))


def error_of_difference(
    scoring: Scoring,
    left: Sequence[Mapping[str, Vector]],
    right: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
) -> float:
    """Standard error of the difference of `of_difference` over the examples, from ROUGH resamples."""
    sizes = {task: len(truth) for task, truth in labels.items()}
    return float(np.std(_resampled(_difference(scoring, left, right, labels), sizes, ROUGH, SEED), ddof=1))


def _difference(
    scoring: Scoring,
    left: Sequence[Mapping[str, Vector]],
    right: Sequence[Mapping[str, Vector]],
    labels: Mapping[str, Vector],
) -> Callable[[Mapping[str, NDArray[np.int64]]], float]:
    """Function from row indices by task to the difference of the mean overalls."""

    def mean(members: Sequence[Mapping[str, Vector]], index: Mapping[str, NDArray[np.int64]]) -> float:
        return sum(_overall(scoring, member, labels, index) for member in members) / len(members)

    return lambda index: mean(left, index) - mean(right, index)


def _all_rows(sizes: Mapping[str, int]) -> dict[str, NDArray[np.int64]]:
    """Indices of all rows of each task."""
    return {task: np.arange(size) for task, size in sizes.items()}


def _overall(
    scoring: Scoring,
    predictions: Mapping[str, Vector],
    labels: Mapping[str, Vector],
    index: Mapping[str, NDArray[np.int64]],
) -> float:
    chosen = {task: predictions[task][rows] for task, rows in index.items()}
    return scoring.overall(scoring.scores(chosen, {task: labels[task][rows] for task, rows in index.items()}))

"""Scoring of predictions. The package has no metrics of its own; the caller passes the functions that compute them.

A sweep's description gives metric, weight and kind of each task. The two functions come from the package that trained
the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.tasks import Task

Vector = NDArray[np.float64]
Score = Callable[[str, Vector, Vector], float]
"""(metric, predictions [N], labels [N]) -> score."""
Overall = Callable[[Mapping[str, Any], Mapping[str, str], Mapping[str, float]], Any]
"""(scores, metrics, weights), each by task -> overall. Scores may be arrays, of many predictors at once: it must be
arithmetic that works on them element by element."""


@dataclass(frozen=True)
class Scoring:
    """The tasks of a sweep with the functions that score them. The three mappings are by task."""

    metrics: Mapping[str, str]
    weights: Mapping[str, float]
    kinds: Mapping[str, str]
    """`classification` or `regression`."""
    score: Score
    combine: Overall

    @classmethod
    def of(cls, tasks: Mapping[str, Task], score: Score, overall: Overall) -> Scoring:
        """The scoring that a sweep's tasks declare, computed by `score` and `overall`."""
        return cls(
            metrics={name: task.metric for name, task in tasks.items()},
            weights={name: task.weight for name, task in tasks.items()},
            kinds={name: task.kind for name, task in tasks.items()},
            score=score,
            combine=overall,
        )

    def scores(self, predictions: Mapping[str, Vector], labels: Mapping[str, Vector]) -> dict[str, float]:
        """The score of each task in `labels`."""
        return {task: self.score(self.metrics[task], predictions[task], truth) for task, truth in labels.items()}

    def judge(self, labels: Mapping[str, Vector]) -> Callable[[Mapping[str, Vector]], float]:
        """Function from predictions [N] by task to the overall score against these labels."""
        return lambda predictions: self.overall(self.scores(predictions, labels))

    def overall(self, scores: Mapping[str, float]) -> float:
        """The tasks' scores combined into one number."""
        return float(self.combine(scores, self.metrics, self.weights))

"""Evidence of a report: the predictions that its scores come from, as small as gives exactly the same scores.

    two classes   float16 [n]      the probability of class 1; class 1 is predicted where it is above 1/2
    C classes     float16 [n, C]   the probabilities; the first largest is predicted
    a score       float32 [n]

It holds no row numbers: its rows are the first n of the task's part `search`, in the order of that part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Evidence: TypeAlias = Mapping[str, Array]
"""Evidence by task; empty where a report has none."""


def scores(values: NDArray[np.float64]) -> Array:
    """Evidence [n] of predicted scores [n], which a model computes in float32."""
    return values.astype(np.float32)


def probabilities(values: NDArray[np.float64], chances: NDArray[np.float32]) -> Array:
    """Evidence of predicted classes [n] with their probabilities [n, C].

    Rounding may make another class the first largest. The predicted one then gets the next larger float16.
    """
    rounded, rows, predicted = chances.astype(np.float16), np.arange(len(values)), values.astype(np.int64)
    if chances.shape[1] == 2:
        half, ones = np.float16(0.5), rounded[:, 1]
        above = np.maximum(ones, np.nextafter(half, np.float16(1)))
        return np.where(predicted == 1, above, np.minimum(ones, half))
    changed = rounded.argmax(1) != predicted
    rounded[rows[changed], predicted[changed]] = np.nextafter(rounded[changed].max(1), np.float16(2))
    return rounded

"""Noise of one run: the standard deviation of a configuration's `overall` over seeds.

    s^2 = (w p^2 + sum of squared deviations from the configurations' means) / (w + degrees of freedom)

p (SPREAD) is what was measured before, and w (WEIGHT) is how many degrees of freedom that is worth: a sweep with two
repeats of four configurations has eight of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

SPREAD = 0.008
"""Standard deviation of `overall` over seeds, measured over techniques and tasks at full budget (`docs/log.md`)."""
WEIGHT = 4
"""Degrees of freedom that `SPREAD` counts as."""
Z = 1.96
"""Two means differ for sure if they differ by more than Z standard errors (95 %)."""


def pooled(runs: Iterable[Sequence[float]]) -> float:
    """Noise of one run, from the scores of each configuration's runs. A configuration with one run adds nothing."""
    squares, freedom = WEIGHT * SPREAD**2, WEIGHT
    for values in runs:
        if len(values) > 1:
            mean = sum(values) / len(values)
            squares += sum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom)


def alike(difference: float, runs: int, other: int, noise: float) -> bool:
    """Whether two means, of `runs` and of `other` runs, differ by no more than noise explains."""
    return abs(difference) <= Z * noise * math.sqrt(1 / runs + 1 / other)

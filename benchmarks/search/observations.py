"""Observations: the score that a trial reports at a milestone, from the true score at full budget.

    observed = level(t) + sum over p of part_p (1 + (m_p - 1) w(t)) + noise(t)

t is the share of the budget. w(t) grows from 0 at the full budget to 1 at the lowest rung, 1/9, linearly in log t. A
parameter's multiplier m_p says how much of its effect shows early; it is drawn for each seed, by the family of curves:

rising    scores grow with the budget; most of an effect shows early
crossing  scores grow; some effects have the other sign early, so that curves cross
falling   scores sink from the lowest rung on; most of an effect shows early

Noise has two parts: that of training (a trial, or a replicate that trials share), and that of the scored rows, which
all replicates of one configuration share.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.search.responses import Key, Response

LOWEST = 1 / 9
"""Share of the budget at the lowest rung of `hpo run`."""


@dataclass(frozen=True)
class Family:
    """Curves of one kind."""

    levels: tuple[float, float]
    """Level at the lowest rung and its change per factor e of examples is linear in log t: (at 1/9, at 1)."""
    multiplier: tuple[float, float]
    """Mean and standard deviation of m_p."""


CURVES: Mapping[str, Family] = {
    "rising": Family((0.65, 0.73), (0.75, 0.7)),
    "crossing": Family((0.65, 0.73), (0.5, 1.1)),
    "falling": Family((0.75, 0.73), (0.75, 0.7)),
}
"""Families of curves. Levels of the default are those of `benchmarks/README.md` (0.65 at 1/9, 0.73 at the end)."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the noise; in between they are linear in log t."""

    training: float
    """At full budget, over seeds."""
    rows: float
    """At full budget, of the rows that score."""
    lowest: float
    """At the lowest rung, both parts together."""

    def deviations(self, share: float) -> tuple[float, float]:
        """Deviations of the two parts, of training and of rows, at a share of the budget."""
        full = math.hypot(self.training, self.rows)
        factor = (full + (self.lowest - full) * early(share)) / full
        return self.training * factor, self.rows * factor


NOISES: Mapping[str, Noise] = {
    "none": Noise(1e-12, 0.0, 1e-12),
    "low": Noise(0.004, 0.0, 0.0075),
    # Rows: the paired 95 % interval of a difference on 5,983 rows was 0.0138 wide to each side (`docs/log.md`), a
    # deviation of 0.0070; on the 2,981 rows of `search` 0.0100, which is 0.0070 for each of two trials.
    "measured": Noise(0.008, 0.007, 0.0125),
    "high": Noise(0.016, 0.010, 0.025),
}
"""Noise by name."""


def early(share: float) -> float:
    """w(t): 0 at the full budget, 1 at the lowest rung."""
    return min(1.0, math.log(share) / math.log(LOWEST)) if share < 1 else 0.0


@dataclass
class Observer:
    """Reports of one simulated sweep."""

    response: Response
    family: Family
    noise: Noise
    seed: int
    paired: float = 0.0
    """Share of the variance of training that trials of one replicate have in common."""
    multipliers: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mean, deviation = self.family.multiplier
        for key in self.response.effects:
            self.multipliers[key] = random.Random(f"{self.seed}/early/{key}").gauss(mean, deviation)

    def expected(self, params: Mapping[str, Any], share: float) -> float:
        """Score without noise at a share of the budget."""
        weight, (low, high) = early(share), self.family.levels
        parts = self.response.parts(params)
        shown = sum(part * (1 + (self.multipliers[key] - 1) * weight) for key, part in parts.items())
        return high + (low - high) * weight + shown

    def observed(self, params: Mapping[str, Any], share: float, trial: int, replicate: int = 0) -> float:
        """Score that trial number `trial` reports. Equal arguments give equal scores."""
        training, rows = self.noise.deviations(share)
        own, common = math.sqrt(1 - self.paired), math.sqrt(self.paired)
        return (
            self.expected(params, share)
            + training * (own * self._normal("trial", trial, replicate, share)
                          + common * self._normal("replicate", replicate, share))
            + rows * self._normal("rows", share, *sorted(params.items()))
        )

    def _normal(self, *key: object) -> float:
        """A standard normal number that the key decides."""
        digest = hashlib.blake2b(repr((self.seed, *key)).encode(), digest_size=8).digest()
        return random.Random(int.from_bytes(digest, "big")).gauss(0, 1)

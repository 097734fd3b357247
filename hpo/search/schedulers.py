"""Asynchronous successive halving, stopping type (Li et al. 2020): pure, integer milestones.

A trial that reports at a rung goes on if its value is among the best ceil(n / eta) of the n values that have arrived
there, its own included; ties survive, so the first to arrive always does. Non-finite values sort below all others and
never survive. The last milestone is the budget itself: nothing is left to stop there, it is recorded all the same.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

GRACE = 27
"""The first milestone is by default max_t // 27: with eta 3, three rungs below the full budget."""


def milestones(max_t: int, eta: int = 3, grace: int | None = None) -> tuple[int, ...]:
    """max_t, max_t // eta, max_t // eta^2, ... down to at least `grace` (r), ascending, in examples.

    Integers from the top: a floating logarithm drops the top rung of 243/1/3 and of 24300/100/3.
    """
    for name, value, least in (("budget", max_t, 1), ("eta", eta, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"`{name}` must be an integer of at least {least}, not {value!r}.")
    lowest = max(1, max_t // GRACE) if grace is None else grace
    if isinstance(lowest, bool) or not isinstance(lowest, int) or not 1 <= lowest <= max_t:
        raise ValueError(f"`grace` must be an integer from 1 to the budget of {max_t}, not {grace!r}.")
    found = []
    value = max_t
    while value >= lowest:
        found.append(value)
        value //= eta
    return tuple(reversed(found))


def keep(n: int, eta: int) -> int:
    """How many of n trials survive a rung: ceil(n / eta), in integers."""
    return -(-n // eta)


@dataclass(frozen=True)
class RungRow:
    """One rung for a display; step in examples, values of `overall`."""

    step: int
    reports: int
    """Values that arrived here, diverged ones included."""
    stopped: int
    """Trials that this rung stopped."""
    cutoff: float | None
    """The worst value among the best ceil(reports / eta) so far; None before the first finite one."""
    best: float | None
    diverged: int = 0
    """Trials that diverged on the way here."""


class Rungs:
    """The values that arrived at every milestone."""

    def __init__(self, milestones: Sequence[int], eta: int) -> None:
        self.milestones = tuple(milestones)
        self.eta = eta
        self._values: dict[int, list[float]] = {step: [] for step in self.milestones}
        self._stopped = dict.fromkeys(self.milestones, 0)

    def record(self, step: int, value: float) -> bool:
        """Enter a value at a rung; True: go on. At the last milestone every finite value `survives`."""
        values = self._values[step]
        bisect.insort(values, value if math.isfinite(value) else -math.inf)
        if not math.isfinite(value):
            return False
        survives = step == self.milestones[-1] or value >= values[-keep(len(values), self.eta)]
        self._stopped[step] += not survives
        return survives

    def cutoff(self, step: int) -> float | None:
        """The worst value among the best ceil(n / eta) that have arrived at `step`."""
        values = self._values[step]
        if not values or not math.isfinite(values[-1]):
            return None
        lowest = values[-keep(len(values), self.eta)]
        return lowest if math.isfinite(lowest) else None

    def table(self) -> list[RungRow]:
        """One row a rung, ascending."""
        rows = []
        for step, values in self._values.items():
            finite = [value for value in values if math.isfinite(value)]
            best = finite[-1] if finite else None
            rows.append(RungRow(step, len(values), self._stopped[step], self.cutoff(step), best,
                                len(values) - len(finite)))
        return rows

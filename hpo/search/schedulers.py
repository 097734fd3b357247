"""Schedulers: what a report at a milestone means for its trial. One table at the end, one entry a rule.

asha  asynchronous successive halving, stopping type (Li et al. 2020). A trial passes a rung if its value is among the
      best ceil(n / eta) of the n values that have arrived there, its own included. Ties pass, so the first value at a
      rung always does. Diverged trials count among the n and never pass.
none  every trial uses its full budget. It reports at the milestones all the same, as a training function does under
      Ray Tune's FIFO scheduler: the searcher and displays see its curve, and every report has its checkpoint.

Steps are integers, in training examples. The last milestone is the budget itself: nothing is left to stop there.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from hpo.search.records import Entry, check_integer, from_record
from hpo.search.states import Verdict

ETA = 3
GRACE = 27
"""The first milestone is by default budget // 27: with eta 3, three rungs below the full budget."""


def milestones(budget: int, eta: int = ETA, grace: int | None = None) -> tuple[int, ...]:
    """budget, budget // eta, budget // eta^2, ... down to at least `grace` (r), ascending, in examples.

    Integers from the top: a floating logarithm drops the top rung of 243/1/3 and of 24300/100/3.
    """
    check_integer("budget", budget, 1)
    check_integer("eta", eta, 2)
    lowest = max(1, budget // GRACE) if grace is None else grace
    if isinstance(lowest, bool) or not isinstance(lowest, int) or not 1 <= lowest <= budget:
        raise ValueError(f"`grace` must be an integer from 1 to the budget of {budget}, not {grace!r}.")
    steps = []
    step = budget
    while step >= lowest:
        steps.append(step)
        step //= eta
    return tuple(reversed(steps))


def survivors(n: int, eta: int) -> int:
    """Number of trials out of n that pass a rung: ceil(n / eta), in integers."""
    return -(-n // eta)


@dataclass(frozen=True)
class RungRow:
    """One milestone for a display; values of `overall`."""

    step: int
    """The milestone, in examples."""
    reports: int
    """Values that arrived here, diverged ones included."""
    stopped: int
    """Trials that were stopped here."""
    cutoff: float | None
    """The value that a trial has to reach; None while every finite value passes."""
    best: float | None
    diverged: int = 0
    """Trials that diverged on the way here."""


class Judge(Protocol):
    """A scheduler at work on one sweep: a function of the values it was given, in their order."""

    def report(self, step: int, value: float) -> Verdict:
        """Enter the value of a trial at a milestone (NaN: it diverged) and say what becomes of the trial."""
        ...

    def rows(self) -> list[RungRow]:
        """One row a milestone, ascending."""
        ...


class Scheduler(Entry, Protocol):
    """A frozen dataclass, the record of a scheduler's settings."""

    columns: ClassVar[tuple[str, ...]]
    """Fields of its `RungRow`s that a display shows, in their order."""

    @property
    def rule(self) -> str:
        """The rule in a few words, for somebody who plans a sweep."""
        ...

    def milestones(self, budget: int, least: int = 1) -> tuple[int, ...]:
        """Examples at which a trial reports, ascending; the last is the budget. Where the settings leave it open, none
        is below `least`."""
        ...

    def build(self, milestones: Sequence[int]) -> Judge:
        """A judge that has seen nothing yet."""
        ...

    def expected_examples(self, trials: int, milestones: Sequence[int]) -> int:
        """Examples that so many trials are expected to use together."""
        ...


@dataclass
class _Rung:
    """The values that have arrived at one milestone."""

    finite: list[float] = field(default_factory=list)
    """Ascending."""
    diverged: int = 0
    stopped: int = 0

    @property
    def reports(self) -> int:
        return len(self.finite) + self.diverged

    @property
    def best(self) -> float | None:
        return self.finite[-1] if self.finite else None


class _Judge(ABC):
    """What holds under every scheduler: a diverged trial ends, and so does one at its full budget."""

    def __init__(self, milestones: Sequence[int]) -> None:
        self._rungs = {step: _Rung() for step in milestones}
        self._budget = milestones[-1]

    def report(self, step: int, value: float) -> Verdict:
        rung = self._rungs[step]
        if math.isnan(value):
            rung.diverged += 1
            return Verdict("stop", "diverged", f"non-finite loss or score before the milestone of {step:,} examples")
        bisect.insort(rung.finite, value)
        if step == self._budget:
            return Verdict("stop", "complete", f"full budget of {step:,} examples")
        verdict = self._judge(rung, step, value)
        rung.stopped += verdict.action == "stop"
        return verdict

    @abstractmethod
    def _judge(self, rung: _Rung, step: int, value: float) -> Verdict:
        """The verdict on a finite value below the full budget; the value is in the rung already."""

    @abstractmethod
    def _cutoff(self, rung: _Rung) -> float | None:
        """The value that a trial has to reach at a rung; None while every finite value passes."""

    def rows(self) -> list[RungRow]:
        return [
            RungRow(step, rung.reports, rung.stopped, self._cutoff(rung), rung.best, rung.diverged)
            for step, rung in self._rungs.items()
        ]


class _Halving(_Judge):
    def __init__(self, milestones: Sequence[int], eta: int) -> None:
        super().__init__(milestones)
        self._eta = eta

    def _judge(self, rung: _Rung, step: int, value: float) -> Verdict:
        cutoff = self._cutoff(rung)
        score = f"{value:.4f} at the rung of {step:,} examples"
        if cutoff is None or value >= cutoff:
            return Verdict("continue", None, f"{score} is among the best 1/{self._eta}")
        return Verdict("stop", "pruned", f"{score} is below the cutoff of {cutoff:.4f}")

    def _cutoff(self, rung: _Rung) -> float | None:
        """The worst value among the best ceil(n / eta)."""
        passing = survivors(rung.reports, self._eta)
        return rung.finite[-passing] if 0 < passing <= len(rung.finite) else None


class _NoStopping(_Judge):
    def _judge(self, rung: _Rung, step: int, value: float) -> Verdict:
        return Verdict("continue", None, f"{value:.4f} at {step:,} examples; no trial is stopped early")

    def _cutoff(self, rung: _Rung) -> float | None:
        return None


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, stopping type."""

    name: ClassVar[str] = "asha"
    columns: ClassVar[tuple[str, ...]] = ("reports", "stopped", "cutoff", "best")
    eta: int = ETA
    """Reduction factor: about 1 in eta trials passes each rung, and each rung is at eta times as many examples."""
    grace: int | None = None
    """Lowest number of examples (r) at which a trial may be stopped; None: budget // 27, but at least `least`."""

    def __post_init__(self) -> None:
        check_integer("eta", self.eta, 2)
        if self.grace is not None:
            check_integer("grace", self.grace, 1)

    @property
    def rule(self) -> str:
        return f"about 1 in {self.eta} trials passes each rung"

    def milestones(self, budget: int, least: int = 1) -> tuple[int, ...]:
        return milestones(budget, self.eta, max(budget // GRACE, least) if self.grace is None else self.grace)

    def build(self, milestones: Sequence[int]) -> Judge:
        return _Halving(milestones, self.eta)

    def expected_examples(self, trials: int, milestones: Sequence[int]) -> int:
        """As if exactly one in eta trials passed each rung."""
        total, share, before = 0.0, 1.0, 0
        for step in milestones:
            total += share * (step - before)
            share, before = share / self.eta, step
        return round(trials * total)


@dataclass(frozen=True)
class NoStopping:
    """No early stopping: every trial uses its full budget, and reports at the default milestones of `asha`."""

    name: ClassVar[str] = "none"
    columns: ClassVar[tuple[str, ...]] = ("reports", "best")

    @property
    def rule(self) -> str:
        return "no trial is stopped early"

    def milestones(self, budget: int, least: int = 1) -> tuple[int, ...]:
        return Asha().milestones(budget, least)

    def build(self, milestones: Sequence[int]) -> Judge:
        return _NoStopping(milestones)

    def expected_examples(self, trials: int, milestones: Sequence[int]) -> int:
        return trials * milestones[-1]


SCHEDULERS: Mapping[str, type[Scheduler]] = {entry.name: entry for entry in (Asha, NoStopping)}
"""Every scheduler by its name."""


def scheduler_from(record: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a record such as `{"name": "asha", "eta": 3}`; ValueError where it describes none."""
    return from_record(SCHEDULERS, "scheduler", record)

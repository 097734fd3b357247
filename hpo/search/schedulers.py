"""Schedulers: the rules by which a trial continues or stops after a report. The table SCHEDULERS holds all of them.

asha  asynchronous successive halving, stopping type (Li et al. 2020). A trial passes a rung if its value is among the
      best ceil(n / eta) of the n values that have arrived there, its own included. Ties pass, so the first value at a
      rung always passes. Diverged trials count among the n and never pass.
none  every trial uses its full budget. It reports at the same milestones as under asha, so that searcher and displays
      see its curve and every report has its checkpoint. (Ray Tune's FIFO scheduler works like this.)

A milestone is a number of training examples, an integer; a rung is a milestone at which trials are compared. The last
milestone is the budget: a trial that reaches it is complete.
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
"""Default reduction factor."""
GRACE = 27
"""The first milestone is budget // 27 by default: with eta 3, three rungs below the full budget."""
LATEST = 9
"""The first rung is at most budget // 9: with eta 3, two rungs lie below the full budget."""


def milestones(budget: int, eta: int = ETA, grace: int | None = None) -> tuple[int, ...]:
    """Milestones in examples, ascending: budget, budget // eta, budget // eta^2, ... as long as they reach `grace` (r).

    The budget is divided in integers: with a floating-point logarithm the top rung of budget 243, grace 1, eta 3 and of
    budget 24,300, grace 100, eta 3 is lost.
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
    """Number of trials out of n that pass a rung: ceil(n / eta), computed in integers."""
    return -(-n // eta)


@dataclass(frozen=True)
class RungRow:
    """A milestone as displays show it. Values are overall scores."""

    step: int
    """The milestone, in examples."""
    reports: int
    """Number of values that arrived here, those of diverged trials included."""
    stopped: int
    """Number of trials that were stopped here."""
    cutoff: float | None
    """Lowest value that passes; None while every finite value passes."""
    best: float | None
    """Highest value; None before the first finite one."""
    diverged: int = 0
    """Number of trials that diverged before they reached this milestone."""


class Judge(Protocol):
    """A scheduler's state in one sweep: it decides from the values that it has received, in their order."""

    def report(self, step: int, value: float) -> Verdict:
        """The verdict on a trial whose value (NaN: it diverged) arrives at a milestone. The value is remembered."""
        ...

    def rows(self) -> list[RungRow]:
        """One row a milestone, ascending."""
        ...


class Scheduler(Entry, Protocol):
    """A stopping rule: a frozen dataclass whose fields are its settings."""

    columns: ClassVar[tuple[str, ...]]
    """Fields of `RungRow` that a display shows, in their order."""

    @property
    def rule(self) -> str:
        """The rule in a few words, for a dry run."""
        ...

    def milestones(self, budget: int, least: int = 1, step: int = 1) -> tuple[int, ...]:
        """Examples at which a trial reports, ascending; the last is the budget.

        The first is at least `least`, as long as that is at most a ninth of the budget; it is never below `step`, the
        examples of one optimiser step. The scheduler's own settings may ask for another one.
        """
        ...

    def build(self, milestones: Sequence[int]) -> Judge:
        """A judge that has received no value yet."""
        ...

    def expected_examples(self, trials: int, milestones: Sequence[int]) -> int:
        """Expected number of examples that the trials use together."""
        ...


@dataclass
class _Rung:
    """The values that have arrived at one milestone."""

    finite: list[float] = field(default_factory=list)
    """Values of trials that did not diverge, ascending."""
    diverged: int = 0
    stopped: int = 0

    @property
    def reports(self) -> int:
        return len(self.finite) + self.diverged

    @property
    def best(self) -> float | None:
        return self.finite[-1] if self.finite else None


class _Judge(ABC):
    """The rule of all schedulers: a trial ends when it diverges and when it reaches its full budget."""

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
        """The verdict on a finite value below the full budget; the rung holds the value already."""

    @abstractmethod
    def _cutoff(self, rung: _Rung) -> float | None:
        """Lowest value that passes a rung; None while every finite value passes."""

    def rows(self) -> list[RungRow]:
        return [
            RungRow(step, rung.reports, rung.stopped, self._cutoff(rung), rung.best, rung.diverged)
            for step, rung in self._rungs.items()
        ]


class _Halving(_Judge):
    """The rule of `asha`."""

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
        """The lowest of the best ceil(n / eta) values."""
        passing = survivors(rung.reports, self._eta)
        return rung.finite[-passing] if 0 < passing <= len(rung.finite) else None


class _NoStopping(_Judge):
    """The rule of `none`."""

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
    """Reduction factor: about 1 in eta trials passes each rung, and the next rung is at eta times as many examples."""
    grace: int | None = None
    """Lowest number of examples (r) at which a trial may be stopped; None: what `milestones` is told is needed."""

    def __post_init__(self) -> None:
        check_integer("eta", self.eta, 2)
        if self.grace is not None:
            check_integer("grace", self.grace, 1)

    @property
    def rule(self) -> str:
        return f"about 1 in {self.eta} trials passes each rung"

    def milestones(self, budget: int, least: int = 1, step: int = 1) -> tuple[int, ...]:
        lowest = max(1, budget // GRACE, min(least, budget // LATEST), min(step, budget))
        return milestones(budget, self.eta, lowest if self.grace is None else self.grace)

    def build(self, milestones: Sequence[int]) -> Judge:
        return _Halving(milestones, self.eta)

    def expected_examples(self, trials: int, milestones: Sequence[int]) -> int:
        """Computed as if exactly 1 in eta trials passed each rung."""
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

    def milestones(self, budget: int, least: int = 1, step: int = 1) -> tuple[int, ...]:
        return Asha().milestones(budget, least, step)

    def build(self, milestones: Sequence[int]) -> Judge:
        return _NoStopping(milestones)

    def expected_examples(self, trials: int, milestones: Sequence[int]) -> int:
        return trials * milestones[-1]


SCHEDULERS: Mapping[str, type[Scheduler]] = {entry.name: entry for entry in (Asha, NoStopping)}
"""Every scheduler by its name."""


def scheduler_from(record: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a record such as `{"name": "asha", "eta": 3}`. Raises ValueError if it describes none."""
    return from_record(SCHEDULERS, "scheduler", record)

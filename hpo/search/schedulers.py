"""Schedulers: the rules by which a trial continues or stops after a report. The table SCHEDULERS holds all of them.

asha  asynchronous successive halving, stopping type (Li et al. 2020). A trial goes on from a rung if its rank among the
      n values that have arrived there, its own included, is at most ceil(n / eta). Of equal values the earlier ranks
      better, so a score that most trials share is no ticket. Diverged trials count among the n and never go on. Exempt
      trials, such as trial 0, go on unless they diverge: they are not counted and take no place.
none  every trial uses its full budget. It reports at the same milestones as under asha, so that searcher and displays
      see its curve and every report has its checkpoint. (Ray Tune's FIFO scheduler works like this.)

A milestone is a number of training examples, an integer; a rung is a milestone at which trials are compared. The last
milestone is the budget: a trial that reaches it is complete.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from hpo.search.records import Entry, check_integer, from_record
from hpo.search.states import Verdict

ETA = 3
"""Default reduction factor."""
LATEST = 9
"""The first rung is at most budget // 9: with eta 3, two rungs lie below the full budget, however long training takes
to show anything."""
EXEMPT = (0,)
"""Exempt trials of a sweep unless its launch names more: trial 0, the default configuration."""


def divided(budget: int, eta: int) -> tuple[int, ...]:
    """Every milestone that a budget allows, in examples, ascending: 1 or more, ..., budget // eta, budget.

    The budget is divided in integers: with a floating-point logarithm the top rung of budget 243, grace 1, eta 3 and of
    budget 24,300, grace 100, eta 3 is lost.
    """
    check_integer("budget", budget, 1)
    steps = []
    while budget:
        steps.append(budget)
        budget //= eta
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
    """Number of values that arrived here, those of diverged and of exempt trials included."""
    stopped: int
    """Number of trials that were stopped here."""
    cutoff: float | None
    """The next value goes on if it is higher; None: it goes on in any case."""
    best: float | None
    """Highest value; None before the first finite one."""
    diverged: int = 0
    """Number of trials that diverged before they reached this milestone."""
    exempt: int = 0
    """Number of values that came from exempt trials: no rank counts them."""


class Judge(Protocol):
    """A scheduler's state in one sweep: it decides from the values that it has received, in their order."""

    def report(self, trial: int, step: int, value: float) -> Verdict:
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

    def build(self, milestones: Sequence[int], exempt: Collection[int] = ()) -> Judge:
        """A judge that has received no value yet; `exempt` holds the numbers of exempt trials."""
        ...


@dataclass
class _Rung:
    """The values that have arrived at one milestone."""

    raced: list[float] = field(default_factory=list)
    """Finite values of the trials that are not exempt, ascending."""
    diverged: int = 0
    """Number of trials that diverged and are not exempt."""
    exempt: list[float] = field(default_factory=list)
    """Values of exempt trials; NaN: it diverged."""
    stopped: int = 0

    @property
    def counted(self) -> int:
        """Number of values that ranks count (n)."""
        return len(self.raced) + self.diverged

    def rank(self, value: float) -> int:
        """Rank that a finite value gets if it arrives now: every value that is at least as high was earlier."""
        return len(self.raced) - bisect.bisect_left(self.raced, value) + 1

    def add(self, value: float, exempt: bool) -> None:
        if exempt:
            self.exempt.append(value)
        elif math.isnan(value):
            self.diverged += 1
        else:
            bisect.insort(self.raced, value)

    def row(self, step: int, cutoff: float | None) -> RungRow:
        finite = [value for value in self.exempt if math.isfinite(value)]
        return RungRow(
            step,
            reports=self.counted + len(self.exempt),
            stopped=self.stopped,
            cutoff=cutoff,
            best=max((*self.raced[-1:], *finite), default=None),
            diverged=self.diverged + len(self.exempt) - len(finite),
            exempt=len(self.exempt),
        )


class _Judge(ABC):
    """The rule of all schedulers: a trial ends when it diverges and when it reaches its full budget."""

    def __init__(self, milestones: Sequence[int], exempt: Collection[int] = ()) -> None:
        self._rungs = {step: _Rung() for step in milestones}
        self._budget = milestones[-1]
        self._exempt = frozenset(exempt)

    def report(self, trial: int, step: int, value: float) -> Verdict:
        rung, exempt = self._rungs[step], trial in self._exempt
        if math.isnan(value):
            verdict = Verdict("stop", "diverged", f"non-finite loss or score before the milestone of {step:,} examples")
        elif step == self._budget:
            verdict = Verdict("stop", "complete", f"full budget of {step:,} examples")
        elif exempt:
            reason = f"{value:.4f} at {step:,} examples; trial {trial} is exempt and runs to the end"
            verdict = Verdict("continue", None, reason)
        else:
            verdict = self._judge(rung, step, value)
            rung.stopped += verdict.action == "stop"
        rung.add(value, exempt)
        return verdict

    @abstractmethod
    def _judge(self, rung: _Rung, step: int, value: float) -> Verdict:
        """The verdict on a finite value below the full budget; the rung does not hold the value yet."""

    @abstractmethod
    def _cutoff(self, rung: _Rung) -> float | None:
        """The next value goes on if it is higher; None: it goes on in any case."""

    def rows(self) -> list[RungRow]:
        return [
            rung.row(step, None if step == self._budget else self._cutoff(rung)) for step, rung in self._rungs.items()
        ]


class _Halving(_Judge):
    """The rule of `asha`."""

    def __init__(self, milestones: Sequence[int], exempt: Collection[int], eta: int) -> None:
        super().__init__(milestones, exempt)
        self._eta = eta

    def _judge(self, rung: _Rung, step: int, value: float) -> Verdict:
        rank, n = rung.rank(value), rung.counted + 1
        places = survivors(n, self._eta)
        best = "the best goes on" if places == 1 else f"the best {places} go on"
        reason = f"{value:.4f} at the rung of {step:,} examples is rank {rank} of {n}; {best}"
        return Verdict("continue", None, reason) if rank <= places else Verdict("stop", "pruned", reason)

    def _cutoff(self, rung: _Rung) -> float | None:
        """The lowest value that holds one of the places of the next arrival; None: a place is free."""
        places = survivors(rung.counted + 1, self._eta)
        return rung.raced[-places] if places <= len(rung.raced) else None


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
        """With a grace: the milestones of at least that many examples, whatever `least` and `step` are."""
        every = divided(budget, self.eta)
        if self.grace is None:
            latest = max((each for each in every if each <= budget // LATEST), default=1)
            lowest = max(min(least, latest), min(step, budget))
        elif self.grace <= budget:
            lowest = self.grace
        else:
            raise ValueError(f"`grace` must be an integer from 1 to the budget of {budget}, not {self.grace}.")
        return tuple(each for each in every if each >= lowest)

    def build(self, milestones: Sequence[int], exempt: Collection[int] = ()) -> Judge:
        return _Halving(milestones, exempt, self.eta)


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

    def build(self, milestones: Sequence[int], exempt: Collection[int] = ()) -> Judge:
        return _NoStopping(milestones)  # no trial is an exception where all run to the end


SCHEDULERS: Mapping[str, type[Scheduler]] = {entry.name: entry for entry in (Asha, NoStopping)}
"""Every scheduler by its name."""


def scheduler_from(record: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a record such as `{"name": "asha", "eta": 3}`. Raises ValueError if it describes none."""
    return from_record(SCHEDULERS, "scheduler", record)

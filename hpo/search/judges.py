"""The rules of the schedulers at work in one sweep: each decides from the values that it has received.

A judge ranks a value among those that have arrived at its milestone, as `hpo.search.schedulers` says for each rule.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpo.search.states import Verdict


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
    """The next value goes on if it is higher, under `median` if it is no lower; None: it goes on in any case."""
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


class _RungJudge(ABC):
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
            verdict = self._judge(trial, step, value)
            rung.stopped += verdict.action == "stop"
        rung.add(value, exempt)
        return verdict

    @abstractmethod
    def _judge(self, trial: int, step: int, value: float) -> Verdict:
        """The verdict on a finite value below the full budget; the rung does not hold the value yet."""

    @abstractmethod
    def _cutoff(self, step: int) -> float | None:
        """The cutoff of a milestone below the full budget; see `RungRow`."""

    def rows(self) -> list[RungRow]:
        return [
            rung.row(step, None if step == self._budget else self._cutoff(step)) for step, rung in self._rungs.items()
        ]


class HalvingJudge(_RungJudge):
    """The rule of `asha`."""

    def __init__(self, milestones: Sequence[int], exempt: Collection[int], eta: int) -> None:
        super().__init__(milestones, exempt)
        self._eta = eta

    def _judge(self, trial: int, step: int, value: float) -> Verdict:
        rank, n = self._rungs[step].rank(value), self._rungs[step].counted + 1
        places = survivors(n, self._eta)
        best = "the best goes on" if places == 1 else f"the best {places} go on"
        reason = f"{value:.4f} at the rung of {step:,} examples is rank {rank} of {n}; {best}"
        return Verdict("continue", None, reason) if rank <= places else Verdict("stop", "pruned", reason)

    def _cutoff(self, step: int) -> float | None:
        """The lowest value that holds one of the places of the next arrival; None: a place is free."""
        rung = self._rungs[step]
        places = survivors(rung.counted + 1, self._eta)
        return rung.raced[-places] if places <= len(rung.raced) else None


class _Bracket(HalvingJudge):
    """One bracket of `hyperband`: no trial stops before its first rung, unless it diverges."""

    def __init__(self, milestones: Sequence[int], exempt: Collection[int], eta: int, first: int) -> None:
        super().__init__(milestones, exempt, eta)
        self._first = first

    def _judge(self, trial: int, step: int, value: float) -> Verdict:
        if step < self._first:
            reason = f"{value:.4f} at {step:,} examples; the first rung of its bracket is at {self._first:,}"
            return Verdict("continue", None, reason)
        return super()._judge(trial, step, value)


class HyperbandJudge:
    """The rule of `hyperband`."""

    def __init__(self, milestones: Sequence[int], exempt: Collection[int], eta: int) -> None:
        self._brackets = [_Bracket(milestones, exempt, eta, first) for first in milestones]
        self._ends = list(itertools.accumulate(bracket_shares(len(milestones), eta)))

    def report(self, trial: int, step: int, value: float) -> Verdict:
        return self._brackets[bracket_of(trial, self._ends)].report(trial, step, value)

    def rows(self) -> list[RungRow]:
        """The rows of all brackets together. They have no cutoff: each bracket has its own."""
        return [_together(rows) for rows in zip(*(bracket.rows() for bracket in self._brackets), strict=True)]


def bracket_shares(milestones: int, eta: int) -> list[float]:
    """Share of the trials in each bracket, the one with the lowest first rung first; the last never stops a trial."""
    weights = [eta**rungs / (rungs + 1) for rungs in reversed(range(milestones))]
    return [weight / sum(weights) for weight in weights]


def bracket_of(trial: int, ends: Sequence[float]) -> int:
    """Index of a trial's bracket, from the cumulative shares of the brackets.

    Multiples of the golden ratio spread evenly over [0, 1), so every run of trials has about the brackets' shares.
    """
    return min(bisect.bisect_right(ends, trial * (math.sqrt(5) - 1) / 2 % 1), len(ends) - 1)


def _together(rows: Sequence[RungRow]) -> RungRow:
    """The rows of one milestone as one."""
    return RungRow(
        rows[0].step,
        reports=sum(row.reports for row in rows),
        stopped=sum(row.stopped for row in rows),
        cutoff=None,
        best=max((row.best for row in rows if row.best is not None), default=None),
        diverged=sum(row.diverged for row in rows),
        exempt=sum(row.exempt for row in rows),
    )


class MedianJudge(_RungJudge):
    """The rule of `median`."""

    def __init__(self, milestones: Sequence[int], exempt: Collection[int], startup: int) -> None:
        super().__init__(milestones, exempt)
        self._startup = startup
        self._values: dict[int, list[float]] = {}
        """Trial -> its values so far."""
        self._means: dict[int, list[float]] = {step: [] for step in milestones}
        """Milestone -> the mean of each trial's values up to there."""

    def _judge(self, trial: int, step: int, value: float) -> Verdict:
        values = self._values.setdefault(trial, [])
        values.append(value)
        median, best = self._cutoff(step), max(values)
        self._means[step].append(statistics.fmean(values))
        if median is None:
            reason = f"{value:.4f} at {step:,} examples, among the first {self._startup} there; they go on"
            return Verdict("continue", None, reason)
        reason = f"best value {best:.4f} up to {step:,} examples; the median of the others is {median:.4f}"
        return Verdict("continue", None, reason) if best >= median else Verdict("stop", "pruned", reason)

    def _cutoff(self, step: int) -> float | None:
        """The median of the means; None: too few trials have arrived, or half of them diverged."""
        others = [-math.inf] * self._rungs[step].diverged + self._means[step]
        median = statistics.median(others) if len(others) >= self._startup else -math.inf
        return median if math.isfinite(median) else None


class NoStoppingJudge(_RungJudge):
    """The rule of `none`."""

    def _judge(self, trial: int, step: int, value: float) -> Verdict:
        return Verdict("continue", None, f"{value:.4f} at {step:,} examples; no trial is stopped early")

    def _cutoff(self, step: int) -> float | None:
        return None

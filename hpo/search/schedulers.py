"""Schedulers: the rules by which a trial continues or stops after a report. The table SCHEDULERS holds all of them.

asha       asynchronous successive halving, stopping type (Li et al. 2020). A trial goes on from a rung if its rank
           among the n values that have arrived there, its own included, is at most ceil(n / eta). Of equal values the
           earlier ranks better, so a score that most trials share is no ticket.
hyperband  asynchronous Hyperband (Li et al. 2018, 2020): brackets of asha side by side, each with another first rung,
           for trials whose early values say little. A trial's number decides its bracket, and ranks count the trials of
           one bracket. Bracket s has s rungs below the budget and a share of the trials proportional to
           eta^s / (s + 1), as in Hyperband, so that every bracket may use as many examples.
median     the median stopping rule (Golovin et al. 2017, 3.2.2). A trial stops at a milestone if its best value so far
           is below the median, over the other trials that have arrived there, of the mean of a trial's values up to
           there. Equal values go on.
none       every trial uses its full budget. It reports at the same milestones as under asha, so that searcher and
           displays see its curve and every report has its checkpoint. (Ray Tune's FIFO scheduler works like this.)

Diverged trials count as the lowest values and never go on. Exempt trials, such as trial 0, go on unless they diverge:
they are not counted and take no place. Verdicts depend on the order of the reports alone.

A milestone is a number of training examples, an integer; a rung is a milestone at which trials are compared. The last
milestone is the budget: a trial that reaches it is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from hpo.search.judges import HalvingJudge, HyperbandJudge, Judge, MedianJudge, NoStoppingJudge
from hpo.search.records import Entry, check_integer, from_record
from hpo.search.states import DEFAULT

ETA = 3
"""Default reduction factor."""
LATEST = 9
"""The first rung is at most budget // 9: with eta 3, two rungs lie below the full budget, however long training takes
to show anything."""
EXEMPT = (DEFAULT,)
"""Exempt trials of a sweep unless its launch names more: the default configuration."""


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
        return HalvingJudge(milestones, exempt, self.eta)


@dataclass(frozen=True)
class Hyperband(Asha):
    """Asynchronous Hyperband: asha in brackets, each with another first rung."""

    name: ClassVar[str] = "hyperband"
    columns: ClassVar[tuple[str, ...]] = ("reports", "stopped", "best")

    @property
    def rule(self) -> str:
        return (
            f"about 1 in {self.eta} trials of a bracket passes each of its rungs; the brackets begin at every milestone"
        )

    def build(self, milestones: Sequence[int], exempt: Collection[int] = ()) -> Judge:
        return HyperbandJudge(milestones, exempt, self.eta)


@dataclass(frozen=True)
class Median:
    """Median stopping rule, at the default milestones of `asha`."""

    name: ClassVar[str] = "median"
    columns: ClassVar[tuple[str, ...]] = ("reports", "stopped", "cutoff", "best")
    startup: int = 5
    """Number of trials that must have arrived at a milestone before one is stopped there, as in Optuna's median pruner;
    exempt trials do not count."""
    grace: int | None = None
    """Lowest number of examples at which a trial may be stopped, as of `asha`."""

    def __post_init__(self) -> None:
        check_integer("startup", self.startup, 1)
        if self.grace is not None:
            check_integer("grace", self.grace, 1)

    @property
    def rule(self) -> str:
        return f"after {self.startup} trials at a milestone, one whose best value is below the others' median stops"

    def milestones(self, budget: int, least: int = 1, step: int = 1) -> tuple[int, ...]:
        return Asha(grace=self.grace).milestones(budget, least, step)

    def build(self, milestones: Sequence[int], exempt: Collection[int] = ()) -> Judge:
        return MedianJudge(milestones, exempt, self.startup)


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
        return NoStoppingJudge(milestones)  # no trial is an exception where all run to the end


SCHEDULERS: Mapping[str, type[Scheduler]] = {entry.name: entry for entry in (Asha, Hyperband, Median, NoStopping)}
"""Every scheduler by its name."""


def scheduler_from(record: Mapping[str, Any]) -> Scheduler:
    """The scheduler of a record such as `{"name": "asha", "eta": 3}`. Raises ValueError if it describes none."""
    return from_record(SCHEDULERS, "scheduler", record)

"""Snapshot of a sweep at one moment, for displays: plain data, which `hpo.driver.monitor` makes from durable rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from hpo.search.judges import RungRow
from hpo.search.schedulers import Asha
from hpo.search.states import CLOSED


class Leader(NamedTuple):
    """One of the best trials, at its last report."""

    trial: int
    overall: float
    scores: Mapping[str, float]
    """Task -> score."""
    step: int
    """Milestone of that report."""


class TaskLeader(NamedTuple):
    """The best trial of one task."""

    trial: int
    score: float
    """Its score for the task in its last report."""


class RunningStage(Protocol):
    """Progress of a trial in a stage before training; its text is for displays. See `hpo.worker.progress`."""

    @property
    def kind(self) -> str:
        """mlm, nli or mnrl."""
        ...

    @property
    def total(self) -> int:
        """Optimiser steps of the stage; 0: the trial waits for another trial that computes the same stage."""
        ...


class RunningTrial(NamedTuple):
    """A trial that runs now, at its last report."""

    trial: int
    step: int
    """Last milestone passed; 0 before the first report."""
    examples: int
    """Examples used at that report."""
    overall: float | None
    """Overall score there; None before the first report."""
    repeat_of: int | None = None
    """The trial whose configuration it repeats; None: it is a trial of the search."""


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment."""

    name: str
    counts: Mapping[str, int]
    """Trials by state (`hpo.search.states.STATES`), without repeats."""
    trials_total: int
    """Number of trials of the search."""
    budget_examples_used: int
    """Examples that all trials and repeats have used together."""
    best: list[Leader]
    """The ten best trials, best first by (step, overall)."""
    best_per_task: Mapping[str, TaskLeader]
    rungs: list[RungRow]
    running: list[RunningTrial]
    """Trials that run now, by number."""
    examples_per_second: float
    started: float
    """When the last launch (run, resume or extend) began, in seconds since 1970."""
    elapsed: float
    """Seconds from `started` until now, or until that launch stopped."""
    time_left: float | None
    """Estimated seconds until the end of the search; None: not known yet."""
    durable_rows: int
    """Rows on the disk."""
    phase: str
    """While a driver works on the sweep: starting, searching, repeating (the finalists run again, see
    `hpo.search.repeats`), stopping (running trials write checkpoints), finalising.
    Without a driver: done, stopped (the driver left in order) or interrupted (the driver died); the last two can be
    resumed."""
    activity: str = ""
    """The driver's work at this moment, such as `starting Ray` or `6 of 8 trials have predicted`; empty while it only
    drives trials."""
    messages: tuple[str, ...] = ()
    stages: Mapping[int, RunningStage] = field(default_factory=dict)
    """Trial -> its stage before training. It comes from a file of the trial's worker, all other fields from rows."""
    rung_columns: tuple[str, ...] = Asha.columns
    """Fields of `rungs` that a display shows under the sweep's scheduler."""
    repeats: Mapping[str, int] = field(default_factory=dict)
    """Repeats that have started, by state."""
    objectives: tuple[str, ...] = ()
    """Objectives of the sweep, as they are written; trials are ranked by the first."""
    repeats_total: int = 0
    """Number of repeats, started or to come; 0 while the search runs."""

    @property
    def search_ended(self) -> bool:
        """Whether every trial of the search has ended."""
        return sum(self.counts[state] for state in CLOSED) >= self.trials_total

    @property
    def repeats_ended(self) -> int:
        """Number of repeats that have ended."""
        return sum(self.repeats.get(state, 0) for state in CLOSED)

    @property
    def ended(self) -> bool:
        """Whether every trial and every repeat has ended."""
        return self.search_ended and self.repeats_ended >= self.repeats_total

    @property
    def beginning(self) -> tuple[int, ...]:
        """Running trials before their first report."""
        return tuple(running.trial for running in self.running if running.step == 0)

    def at_rest(self) -> Snapshot:
        """The sweep once no driver works on it: nothing runs, and what ran waits for a resume."""
        counts, repeats = (_at_rest(numbers) for numbers in (self.counts, self.repeats))
        return replace(self, counts=counts, repeats=repeats, running=[], time_left=None)


def _at_rest(numbers: Mapping[str, int]) -> dict[str, int]:
    """Trials by state once nothing runs."""
    return {**numbers, "waiting": numbers.get("waiting", 0) + numbers.get("running", 0), "running": 0}

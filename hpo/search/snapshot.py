"""Snapshot of a sweep at one moment, for displays: plain data, which `hpo.driver.monitor` makes from durable rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from hpo.search.schedulers import Asha, RungRow


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


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment."""

    name: str
    counts: Mapping[str, int]
    """Trials by state (`hpo.search.states.STATES`)."""
    trials_total: int
    budget_examples_used: int
    """Examples that all trials have used together."""
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
    """While a driver works on the sweep: starting, searching, stopping (running trials write checkpoints), finalising.
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

    @property
    def beginning(self) -> tuple[int, ...]:
        """Running trials before their first report."""
        return tuple(running.trial for running in self.running if running.step == 0)

    def at_rest(self) -> Snapshot:
        """The sweep once no driver works on it: nothing runs, and what ran waits for a resume."""
        counts = dict(self.counts)
        counts["waiting"] += counts["running"]
        counts["running"] = 0
        return replace(self, counts=counts, running=[], time_left=None)

"""A sweep at one moment, as displays show it: plain data. `hpo.driver.monitor` makes it from durable rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    best: list[Leader]
    """The ten best trials, best first by (step, overall)."""
    best_per_task: Mapping[str, TaskLeader]
    rungs: list[RungRow]
    running: list[RunningTrial]
    """By number."""
    examples_per_second: float
    started: float
    """Seconds since 1970 at which the last launch (run, resume or extend) began."""
    elapsed: float
    """Seconds from then until now, or until that launch ended."""
    time_left: float | None
    """Seconds, a rough estimate; None: not known yet."""
    durable_rows: int
    phase: str
    """starting, searching, stopping (running trials write checkpoints), finalising; and when no driver works on it:
    done, stopped (its driver ended in order) or interrupted (its driver died), both resumable."""
    activity: str = ""
    """What the driver does at this moment, in words: `starting Ray`, `6 of 8 trials have predicted`; empty while it
    only drives trials."""
    messages: tuple[str, ...] = ()
    stages: Mapping[int, Any] = field(default_factory=dict)
    """Trial -> its stage before training (`hpo.worker.progress.Stage`); the one thing here that is no row."""
    rung_columns: tuple[str, ...] = Asha.columns
    """Fields of `rungs` that the sweep's scheduler shows."""

    @property
    def beginning(self) -> tuple[int, ...]:
        """Trials that run and have not reported yet."""
        return tuple(running.trial for running in self.running if running.step == 0)

"""A sweep at one moment, for displays: computed from durable rows alone, so that nothing shown can be lost again.

`Tally` takes the rows of `trials` and `reports` in the order of their `seq`; the driver feeds it what its writer has
made durable, `hpo status` what it has read from the store. `snapshot` is then a pure function of the tally and the
time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpo.search.schedulers import RungRow, keep

WINDOW = 120.0
"""Seconds over which examples per second are measured."""

STATES = ("running", "complete", "pruned", "diverged", "failed", "waiting")


class Leader(NamedTuple):
    """One of the best trials, at its last report."""

    trial: int
    overall: float
    scores: Mapping[str, float]
    """Task -> score."""
    step: int
    """The milestone of that report."""


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
    """Trials by state: running, complete, pruned, diverged, failed, waiting (to be issued again)."""
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

    @property
    def beginning(self) -> tuple[int, ...]:
        """Trials that run and have not reported yet."""
        return tuple(running.trial for running in self.running if running.step == 0)


@dataclass
class _Trial:
    state: str = "running"
    step: int = 0
    examples: int = 0
    overall: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


class Tally:
    """Counts and bests of a sweep, row by row."""

    def __init__(self, name: str, trials: int, milestones: tuple[int, ...], eta: int) -> None:
        self.name = name
        self.trials = trials
        self._milestones = milestones
        self._eta = eta
        self._trials: dict[int, _Trial] = {}
        self._values: dict[int, dict[int, float]] = {step: {} for step in milestones}
        self._stopped: dict[int, set[int]] = {step: set() for step in milestones}
        self._progress: deque[tuple[float, int, int]] = deque()
        """Time of a report, examples used before it and after it."""
        self._used = 0
        self._rows = 0
        self._expected: deque[tuple[int, Mapping[str, Any]]] = deque()

    def expect(self, seq: int, row: Mapping[str, Any]) -> None:
        """A row that was appended and counts once it is durable."""
        self._expected.append((seq, row))

    def settle(self, durable_seq: int) -> None:
        """Count the rows that have become durable."""
        while self._expected and self._expected[0][0] <= durable_seq:
            self.feed(self._expected.popleft()[1])

    def feed_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self.feed(row)

    def feed(self, row: Mapping[str, Any]) -> None:
        """Count one durable row; rows come in the order of `seq`."""
        self._rows += 1
        trial = self._trials.setdefault(int(row["trial"]), _Trial())
        event = row.get("event")
        if event == "start":
            trial.state = "running"
        elif event == "end":
            state = str(row["state"])
            trial.state = "waiting" if state in ("lost", "paused") else state
        else:
            self._feed_report(int(row["trial"]), trial, row)

    def _feed_report(self, number: int, trial: _Trial, row: Mapping[str, Any]) -> None:
        step, value = int(row["step"]), row.get("overall")
        value = math.nan if value is None or row.get("diverged") else float(value)
        examples = int(row.get("examples") or step)
        before = self._used
        self._used += max(0, examples - trial.examples)
        self._progress.append((float(row["time"]), before, self._used))
        trial.step, trial.examples = step, max(trial.examples, examples)
        trial.overall, trial.scores = value, dict(row.get("scores") or {})
        if step in self._values:
            self._values[step].setdefault(number, value)
            if row.get("verdict") == "stop" and step != self._milestones[-1] and math.isfinite(value):
                self._stopped[step].add(number)

    def snapshot(
        self, phase: str, started: float, now: float, messages: tuple[str, ...] = (), live: bool = True
    ) -> Snapshot:
        """The sweep as the durable rows tell it. `live`: a driver works on it, so that rates mean something."""
        counts = dict.fromkeys(STATES, 0)
        for trial in self._trials.values():
            counts[trial.state] += 1
        rate = self._rate(started, now) if live else 0.0
        return Snapshot(
            name=self.name,
            counts=counts,
            trials_total=self.trials,
            budget_examples_used=self._used,
            best=self._best(),
            best_per_task=self._best_per_task(),
            rungs=[self._rung(step) for step in self._milestones],
            running=[
                RunningTrial(number, trial.step, trial.examples, trial.overall)
                for number, trial in sorted(self._trials.items())
                if trial.state == "running"
            ],
            examples_per_second=rate,
            started=started,
            elapsed=max(0.0, now - started),
            time_left=self._time_left(rate),
            durable_rows=self._rows,
            phase=phase,
            messages=messages,
        )

    def _ranked(self) -> list[tuple[int, _Trial]]:
        scored = [
            (number, trial)
            for number, trial in self._trials.items()
            if trial.overall is not None and math.isfinite(trial.overall) and trial.state not in ("diverged", "failed")
        ]
        return sorted(scored, key=lambda entry: (-entry[1].step, -(entry[1].overall or 0.0), entry[0]))

    def _best(self) -> list[Leader]:
        return [Leader(number, trial.overall or 0.0, trial.scores, trial.step) for number, trial in self._ranked()[:10]]

    def _best_per_task(self) -> dict[str, TaskLeader]:
        best: dict[str, TaskLeader] = {}
        for number, trial in self._ranked():
            for task, score in trial.scores.items():
                if task not in best or score > best[task].score:
                    best[task] = TaskLeader(number, score)
        return best

    def _rung(self, step: int) -> RungRow:
        values = list(self._values[step].values())
        finite = sorted((value for value in values if math.isfinite(value)), reverse=True)
        place = keep(len(values), self._eta) - 1
        cutoff = finite[place] if 0 <= place < len(finite) else None
        best = finite[0] if finite else None
        return RungRow(step, len(values), len(self._stopped[step]), cutoff, best, len(values) - len(finite))

    def _rate(self, started: float, now: float) -> float:
        begin = max(started, now - WINDOW)
        while self._progress and self._progress[0][0] < begin:
            self._progress.popleft()
        if not self._progress or now <= begin:
            return 0.0
        return (self._progress[-1][2] - self._progress[0][1]) / (now - begin)

    def _time_left(self, rate: float) -> float | None:
        """Trials to come are taken to use what closed ones used on average, running ones what they have left of it."""
        closed = [one.examples for one in self._trials.values() if one.state not in ("running", "waiting")]
        if not closed or rate <= 0:
            return None
        mean = sum(closed) / len(closed)
        begun = [one.examples for one in self._trials.values() if one.state in ("running", "waiting")]
        to_come = max(0, self.trials - len(self._trials)) * mean
        return (to_come + sum(max(0.0, mean - examples) for examples in begun)) / rate

"""The monitor: makes the snapshots that displays show. It uses durable rows only, so nothing shown can be lost again.

The driver hands it every row that it appends (`expect`); `settle` counts those that its writer has made durable since.
`hpo status` feeds it the rows of the store. A snapshot depends on these rows and the time only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hpo.driver.ledger import Ledger, TrialEntry
from hpo.launch.record import SweepRecord
from hpo.search.repeats import allowed, most
from hpo.search.schedulers import EXEMPT, Scheduler, scheduler_from
from hpo.search.snapshot import Leader, RunningTrial, Snapshot, TaskLeader
from hpo.search.states import CLOSED, STATES

WINDOW = 120.0
"""Seconds over which examples per second are measured."""
LEADERS = 10
"""Largest number of trials in `Snapshot.best`."""


class Monitor:
    """The durable rows of a sweep of `trials` trials, and the snapshots made from them. `repeats`: replicates of each
    finalist after the search."""

    def __init__(
        self,
        name: str,
        trials: int,
        milestones: tuple[int, ...],
        scheduler: Scheduler,
        exempt: Collection[int] = EXEMPT,
        repeats: int = 0,
        objectives: tuple[str, ...] = (),
    ) -> None:
        self._objectives = objectives
        self._name = name
        self._replicates = repeats
        self._total = trials
        self._milestones = milestones
        self._columns = scheduler.columns
        self._judge = scheduler.build(milestones, exempt)
        self._ledger = Ledger()
        self._progress: deque[tuple[float, int, int]] = deque()
        """For each report: its time, examples used before it, examples used after it."""
        self._expected: deque[tuple[int, Mapping[str, Any]]] = deque()
        """`seq` and row of every appended row that is not durable yet."""

    def expect(self, seq: int, row: Mapping[str, Any]) -> None:
        """Take a row that was appended. It counts once it is durable."""
        self._expected.append((seq, row))

    def settle(self, durable_seq: int) -> list[Mapping[str, Any]]:
        """Count the rows that have become durable, and return them."""
        settled = []
        while self._expected and self._expected[0][0] <= durable_seq:
            settled.append(self._expected.popleft()[1])
            self.feed(settled[-1])
        return settled

    def feed_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count durable rows, in the order of `seq`."""
        for row in rows:
            self.feed(row)

    def feed(self, row: Mapping[str, Any]) -> None:
        """Count one durable row; rows come in the order of `seq`."""
        if row.get("event") is not None:
            self._ledger.feed(row)
            return
        trial, step = int(row["trial"]), int(row["step"])
        used = self._ledger.examples_used
        repeated = trial in self._ledger.trials and step in self._ledger.trials[trial].reports
        self._ledger.feed(row)
        self._progress.append((float(row["time"]), used, self._ledger.examples_used))
        entry = self._ledger.trials.get(trial)
        if entry is None or entry.repeat:  # its start is lost, or no rung knows it
            return
        if not repeated and step in self._milestones:  # the search too judges the first report of (trial, step) only
            self._judge.report(trial, step, self._ledger.trials[trial].reports[step].overall)

    def snapshot(
        self, phase: str, started: float, now: float, messages: tuple[str, ...] = (), live: bool = True
    ) -> Snapshot:
        """The sweep as its durable rows describe it. `live`: a driver works on it, so examples per second are
        measured."""
        trials, ranking, repeats = self._ledger.trials, self._ledger.ranking(), self._ledger.repeats
        to_start = self._ledger.repeats_to_start(self._total, self._milestones[-1], self._replicates)
        rate = self._rate(started, now) if live else 0.0
        return Snapshot(
            name=self._name,
            counts=_by_state(self._ledger.searched.values()),
            trials_total=self._total,
            budget_examples_used=self._ledger.examples_used,
            best=[_leader(number, trials[number]) for number in ranking[:LEADERS]],
            best_per_task=self._best_per_task(ranking),
            rungs=self._judge.rows(),
            rung_columns=self._columns,
            running=[
                self._running(number, trial) for number, trial in sorted(trials.items()) if trial.state == "running"
            ],
            examples_per_second=rate,
            started=started,
            elapsed=max(0.0, now - started),
            time_left=self._time_left(rate),
            durable_rows=self._ledger.rows,
            phase=phase,
            messages=messages,
            repeats=_by_state(repeats.values()),
            objectives=self._objectives,
            repeats_total=len(repeats) + len(to_start),
        )

    def _running(self, number: int, trial: TrialEntry) -> RunningTrial:
        report, repeat_of = trial.last_report, self._ledger.repeat_of(number)
        if report is None:
            return RunningTrial(number, 0, 0, None, repeat_of)
        return RunningTrial(number, report.step, trial.examples, report.overall, repeat_of)

    def _best_per_task(self, ranking: list[int]) -> dict[str, TaskLeader]:
        best: dict[str, TaskLeader] = {}
        for number in ranking:
            for task, score in _leader(number, self._ledger.trials[number]).scores.items():
                if task not in best or score > best[task].score:
                    best[task] = TaskLeader(number, score)
        return best

    def _rate(self, started: float, now: float) -> float:
        """Examples per second in the last `WINDOW` seconds, of this launch only."""
        begin = max(started, now - WINDOW)
        while self._progress and self._progress[0][0] < begin:
            self._progress.popleft()
        if not self._progress or now <= begin:
            return 0.0
        return (self._progress[-1][2] - self._progress[0][1]) / (now - begin)

    def _time_left(self, rate: float) -> float | None:
        """Seconds left, estimated: every trial is assumed to use the mean number of examples of the closed trials, and
        repeats as much as they may."""
        trials, budget = self._ledger.searched, self._milestones[-1]
        closed = [trial.examples for trial in trials.values() if trial.state in CLOSED]
        if not closed or rate <= 0:
            return None
        mean = sum(closed) / len(closed)
        open_trials = [trial.examples for trial in trials.values() if trial.state not in CLOSED]
        to_come = max(0, self._total - len(trials)) * mean
        to_come += sum(max(0.0, mean - examples) for examples in open_trials)
        repeated = [trial.examples for trial in self._ledger.repeats.values() if trial.state not in CLOSED]
        if self._ledger.search_ended(self._total):
            repeats = len(self._ledger.repeats_to_start(self._total, budget, self._replicates))
        else:
            used = sum(trial.examples for trial in trials.values())
            repeats = min(most(self._replicates), allowed(round(used + to_come), budget))
        return (to_come + repeats * budget + sum(max(0, budget - examples) for examples in repeated)) / rate


def monitor_of(record: SweepRecord, trials: int) -> Monitor:
    """The monitor of a recorded sweep that has `trials` trials by now."""
    scheduler = scheduler_from(record.scheduler)
    return Monitor(
        record.name, trials, record.milestones, scheduler, record.exempt, record.repeats, record.objectives
    )


def _leader(number: int, trial: TrialEntry) -> Leader:
    report = trial.last_report
    assert report is not None, "only trials with a report are ranked"
    return Leader(number, report.overall, report.scores, report.step)


def _by_state(trials: Iterable[TrialEntry]) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(STATES, 0)
    for trial in trials:
        counts[trial.state] += 1
    return counts

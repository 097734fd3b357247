"""The monitor: makes the snapshots that displays show. It uses durable rows only, so nothing shown can be lost again.

The driver hands it every row that it appends (`expect`); `settle` counts those that its writer has made durable since.
`hpo status` feeds it the rows of the store. A snapshot depends on these rows and the time only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hpo.driver.ledger import Ledger, TrialEntry
from hpo.search.schedulers import EXEMPT, Scheduler
from hpo.search.snapshot import Leader, RunningTrial, Snapshot, TaskLeader
from hpo.search.states import CLOSED, STATES

WINDOW = 120.0
"""Seconds over which examples per second are measured."""
LEADERS = 10
"""Largest number of trials in `Snapshot.best`."""


class Monitor:
    """The durable rows of a sweep of `trials` trials, and the snapshots made from them."""

    def __init__(
        self,
        name: str,
        trials: int,
        milestones: tuple[int, ...],
        scheduler: Scheduler,
        exempt: Collection[int] = EXEMPT,
    ) -> None:
        self._name = name
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

    def settle(self, durable_seq: int) -> None:
        """Count the rows that have become durable."""
        while self._expected and self._expected[0][0] <= durable_seq:
            self.feed(self._expected.popleft()[1])

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
        if not repeated and step in self._milestones:  # the search too judges the first report of (trial, step) only
            self._judge.report(trial, step, self._ledger.trials[trial].reports[step].overall)

    def snapshot(
        self, phase: str, started: float, now: float, messages: tuple[str, ...] = (), live: bool = True
    ) -> Snapshot:
        """The sweep as its durable rows describe it. `live`: a driver works on it, so examples per second are
        measured."""
        trials, ranking = self._ledger.trials, self._ledger.ranking()
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        for trial in trials.values():
            counts[trial.state] += 1
        rate = self._rate(started, now) if live else 0.0
        return Snapshot(
            name=self._name,
            counts=counts,
            trials_total=self._total,
            budget_examples_used=self._ledger.examples_used,
            best=[_leader(number, trials[number]) for number in ranking[:LEADERS]],
            best_per_task=self._best_per_task(ranking),
            rungs=self._judge.rows(),
            rung_columns=self._columns,
            running=[_running(number, trial) for number, trial in sorted(trials.items()) if trial.state == "running"],
            examples_per_second=rate,
            started=started,
            elapsed=max(0.0, now - started),
            time_left=self._time_left(rate),
            durable_rows=self._ledger.rows,
            phase=phase,
            messages=messages,
        )

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
        """Seconds left, estimated: every trial is assumed to use the mean number of examples of the closed trials."""
        trials = self._ledger.trials
        closed = [trial.examples for trial in trials.values() if trial.state in CLOSED]
        if not closed or rate <= 0:
            return None
        mean = sum(closed) / len(closed)
        open_trials = [trial.examples for trial in trials.values() if trial.state not in CLOSED]
        to_come = max(0, self._total - len(trials)) * mean
        return (to_come + sum(max(0.0, mean - examples) for examples in open_trials)) / rate


def _leader(number: int, trial: TrialEntry) -> Leader:
    report = trial.last_report
    assert report is not None, "only trials with a report are ranked"
    return Leader(number, report.overall, report.scores, report.step)


def _running(number: int, trial: TrialEntry) -> RunningTrial:
    report = trial.last_report
    if report is None:
        return RunningTrial(number, 0, 0, None)
    return RunningTrial(number, report.step, trial.examples, report.overall)

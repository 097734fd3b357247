"""The monitor: makes the snapshots that displays show. It uses durable rows only, so nothing shown can be lost again.

The driver hands it every row that it appends (`expect`); `settle` counts those that its writer has made durable since.
`hpo status` begins with what the store holds (`begin`) and feeds it later rows. A snapshot depends on these rows and
the time only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hpo.driver.ledger import Ledger, TrialEntry
from hpo.launch.record import SweepRecord
from hpo.search.repeats import allowed, most
from hpo.search.schedulers import EXEMPT, Scheduler, scheduler_from
from hpo.search.snapshot import Leader, RunningTrial, Snapshot, TaskLeader

if TYPE_CHECKING:
    from results.fold import Fold
    from results.store import SweepFolder

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

    @property
    def ledger(self) -> Ledger:
        """The trials by the rows counted so far."""
        return self._ledger

    def begin(self, folder: SweepFolder, found: Fold) -> None:
        """Count all rows of a stored sweep, before any other row. Their examples do not count for the rate."""
        from results.reading import chosen, first_per_step

        self._ledger = Ledger.of(folder, found)
        names = ["trial", "step", "overall", "diverged"]
        first = chosen(found.reports.select(names), first_per_step(found.reports))
        columns = (first[name].to_pylist() for name in names)
        for trial, step, overall, diverged in zip(*columns, strict=True):
            if step in self._milestones and trial in self._ledger.searched:
                self._judge.report(trial, step, math.nan if diverged or overall is None else overall)

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
        entry = self._ledger.trials.get(trial)
        repeated = entry is not None and step in entry.steps
        self._ledger.feed(row)
        self._progress.append((float(row["time"]), used, self._ledger.examples_used))
        if entry is None or entry.repeat:  # its start is lost, or no rung knows it
            return
        if not repeated and step in self._milestones:  # the search too judges the first report of (trial, step) only
            self._judge.report(trial, step, math.nan if row["diverged"] else float(row["overall"]))

    def snapshot(
        self, phase: str, started: float, now: float, messages: tuple[str, ...] = (), live: bool = True
    ) -> Snapshot:
        """The sweep as its durable rows describe it. `live`: a driver works on it, so examples per second are
        measured."""
        ledger, repeats = self._ledger, self._ledger.counts(repeats=True)
        to_start = ledger.repeats_to_start(self._total, self._milestones[-1], self._replicates)
        rate = self._rate(started, now) if live else 0.0
        running = {number: entry for number, entry in ledger.open.items() if entry.state == "running"}
        return Snapshot(
            name=self._name,
            counts=ledger.counts(),
            trials_total=self._total,
            budget_examples_used=ledger.examples_used,
            best=[_leader(number, ledger.trials[number]) for number in ledger.standings.trials(LEADERS)],
            best_per_task={
                task: TaskLeader(trial, score) for task, (trial, score) in ledger.standings.best_per_task().items()
            },
            rungs=self._judge.rows(),
            rung_columns=self._columns,
            running=[self._running(number, entry) for number, entry in sorted(running.items())],
            examples_per_second=rate,
            started=started,
            elapsed=max(0.0, now - started),
            time_left=self._time_left(rate),
            durable_rows=ledger.rows,
            phase=phase,
            messages=messages,
            repeats=repeats,
            objectives=self._objectives,
            repeats_total=sum(repeats.values()) + len(to_start),
        )

    def _running(self, number: int, trial: TrialEntry) -> RunningTrial:
        report, repeat_of = trial.last_report, self._ledger.repeat_of(number)
        if report is None:
            return RunningTrial(number, 0, 0, None, repeat_of)
        return RunningTrial(number, report.step, trial.examples, report.overall, repeat_of)

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
        ledger, budget = self._ledger, self._milestones[-1]
        waiting = [entry.examples for entry in ledger.open.values() if not entry.repeat]
        repeating = [entry.examples for entry in ledger.open.values() if entry.repeat]
        used = ledger.examples_used - sum(entry.examples for entry in ledger.repeats.values())
        closed = len(ledger.searched) - len(waiting)
        if not closed or rate <= 0:
            return None
        mean = (used - sum(waiting)) / closed
        to_come = max(0, self._total - len(ledger.searched)) * mean
        to_come += sum(max(0.0, mean - examples) for examples in waiting)
        if ledger.search_ended(self._total):
            repeats = len(ledger.repeats_to_start(self._total, budget, self._replicates))
        else:
            repeats = min(most(self._replicates), allowed(round(used + to_come), budget))
        return (to_come + repeats * budget + sum(max(0, budget - examples) for examples in repeating)) / rate


def monitor_of(record: SweepRecord, trials: int) -> Monitor:
    """The monitor of a recorded sweep that has `trials` trials by now."""
    scheduler = scheduler_from(record.scheduler)
    return Monitor(record.name, trials, record.milestones, scheduler, record.exempt, record.repeats, record.objectives)


def _leader(number: int, trial: TrialEntry) -> Leader:
    report = trial.last_report
    assert report is not None, "only trials with a report are ranked"
    return Leader(number, report.overall, report.scores, report.step)

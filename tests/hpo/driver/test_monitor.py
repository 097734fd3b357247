"""The monitor: a snapshot of durable rows with its rate, its best trials and the time left."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.driver.monitor import WINDOW, Monitor
from hpo.search.schedulers import SCHEDULERS, Asha, NoStopping, Scheduler
from hpo.search.snapshot import Leader, RunningTrial, TaskLeader
from hpo.search.states import STATES
from tests.hpo.simulation import CURVES, MILESTONES, Cluster, Faults, counts, new_sweep


def report(trial: int, step: int, time: float, **changes: Any) -> dict[str, Any]:
    row = {"trial": trial, "attempt": 0, "step": step, "examples": step, "overall": 0.5, "diverged": False}
    return row | {"time": time} | changes


def start(trial: int, attempt: int = 0) -> dict[str, Any]:
    return {"trial": trial, "attempt": attempt, "event": "start", "time": 0.0}


def end(trial: int, state: str) -> dict[str, Any]:
    return {"trial": trial, "attempt": 0, "event": "end", "state": state, "time": 10.0}


def monitor(*rows: dict[str, Any], trials: int = 4) -> Monitor:
    made = Monitor("s", trials, (100, 1000), Asha())
    made.feed_all(rows)
    return made


def test_the_rate_counts_this_launch_and_the_last_minutes_only() -> None:
    shown = monitor(start(0), report(0, 100, 1.0))
    assert shown.snapshot("searching", started=1000.0, now=1010.0).examples_per_second == 0.0
    shown.feed(report(0, 1000, 1020.0))
    assert shown.snapshot("searching", 1000.0, 1030.0).examples_per_second == pytest.approx(900 / 30)
    assert shown.snapshot("searching", 1000.0, 1020.0 + 2 * WINDOW).examples_per_second == 0.0
    assert shown.snapshot("searching", 1000.0, 1030.0, live=False).examples_per_second == 0.0


def test_work_done_twice_counts_once() -> None:
    shown = monitor(start(0), report(0, 100, 1.0), start(0, 1), report(0, 100, 9.0, attempt=1))
    assert shown.snapshot("searching", 0.0, 10.0).budget_examples_used == 100


def test_the_time_left_is_unknown_until_a_trial_has_ended() -> None:
    shown = monitor(start(0), report(0, 100, 10.0), trials=3)
    assert shown.snapshot("searching", 0.0, 10.0).time_left is None
    shown.feed(end(0, "pruned"))
    assert shown.snapshot("searching", 0.0, 10.0).time_left == pytest.approx(2 * 100 / 10)


def test_a_lost_trial_waits() -> None:
    counts = monitor(start(0), end(0, "lost")).snapshot("searching", 0.0, 1.0).counts
    assert tuple(counts) == STATES
    assert counts["waiting"] == 1


def test_a_repeated_report_neither_takes_a_trial_back_nor_enters_a_rung_again() -> None:
    rows = [start(0), report(0, 100, 1.0), report(0, 1000, 2.0, overall=0.6), start(0, 1), report(0, 100, 3.0)]
    shown = monitor(*rows).snapshot("searching", 0.0, 4.0)
    assert shown.running == [RunningTrial(0, 1000, 1000, 0.6)]
    assert [row.reports for row in shown.rungs] == [1, 1]


def test_leaders_come_from_trials_that_have_a_rank() -> None:
    scores = {"sst": 0.4, "sts": 0.6}
    failed = [start(1), report(1, 100, 2.0, overall=0.9, scores={"sst": 0.9}), end(1, "failed")]
    rows = [start(0), report(0, 100, 1.0, scores=scores), *failed, start(2)]
    shown = monitor(*rows).snapshot("searching", 0.0, 3.0)
    assert shown.best == [Leader(0, 0.5, scores, 100)]
    assert shown.best_per_task == {"sst": TaskLeader(0, 0.4), "sts": TaskLeader(0, 0.6)}
    assert shown.running == [RunningTrial(0, 100, 100, 0.5), RunningTrial(2, 0, 0, None)]
    assert shown.beginning == (2,)


@pytest.mark.parametrize("scheduler", [entry() for entry in SCHEDULERS.values()], ids=SCHEDULERS)
def test_the_rungs_shown_are_those_of_the_search(scheduler: Scheduler) -> None:
    exempt = (0, 4)
    sweep = new_sweep(trials=30, scheduler=scheduler, exempt=exempt)
    rows = Cluster(sweep, CURVES[1], Faults(fail=0.03, lose=0.1, pause=0.1, diverge=0.05), seed=3).run()
    shown = Monitor("s", 30, MILESTONES, scheduler, exempt)
    shown.feed_all(row | {"time": 0.0} for row in rows)
    snapshot = shown.snapshot("searching", 0.0, 1.0)
    assert snapshot.rungs == sweep.judge.rows()
    assert snapshot.rungs[0].exempt == (0 if scheduler == NoStopping() else 2)
    assert snapshot.rung_columns == scheduler.columns
    assert {state: number for state, number in snapshot.counts.items() if number} == counts(sweep)
    stopped = sum(row.get("verdict") == "stop" and row["step"] != MILESTONES[-1] and not row["diverged"]
                  for row in rows if row["table"] == "reports")  # fmt: skip
    assert sum(row.stopped for row in snapshot.rungs) == stopped
    assert (stopped == 0) is (scheduler == NoStopping())


def test_repeats_are_counted_apart_and_enter_no_rung() -> None:
    shown = Monitor("s", 4, (100, 1000), NoStopping(), (), repeats=2)
    for trial in range(4):
        shown.feed(start(trial) | {"config_id": f"c{trial}"})
        shown.feed(report(trial, 100, 1.0 + trial, overall=0.5))
        shown.feed(report(trial, 1000, 1.5 + trial, overall=0.5 + trial / 10))
        if trial == 2:
            early = shown.snapshot("searching", 0.0, 10.0)
            assert (early.repeats_total, early.search_ended) == (0, False)
        shown.feed(end(trial, "complete"))
    assert shown.snapshot("repeating", 0.0, 10.0).time_left == pytest.approx(1000 / 400), "a fifth of five is one"
    shown.feed(start(4) | {"origin": "repeat", "config_id": "c3", "replicate": 1})
    shown.feed(report(4, 100, 6.0, overall=0.9))
    snapshot = shown.snapshot("repeating", 0.0, 10.0)
    assert snapshot.running == [RunningTrial(4, 100, 100, 0.9, repeat_of=3)]
    assert (snapshot.counts["complete"], snapshot.counts["running"]) == (4, 0)
    assert (snapshot.repeats["running"], snapshot.repeats_total) == (1, 1)
    assert (snapshot.search_ended, snapshot.ended) == (True, False)
    assert [row.reports for row in snapshot.rungs] == [4, 4]
    assert [leader.trial for leader in snapshot.best] == [3, 2, 1, 0]
    assert snapshot.time_left == pytest.approx(900 / 410)
    shown.feed(end(4, "complete"))
    assert shown.snapshot("repeating", 0.0, 10.0).ended

"""Rows before decisions: what is durable when, and what a failing disk does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.recorder import ALIKE, Recorder
from hpo.driver.weights import Shelf
from hpo.search.snapshot import Tally
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from hpo.worker.job import checkpoint_folder
from tests.hpo.conftest import SPACE

STEPS = (100, 300)


class Rows:
    """A writer in memory that notes what it was asked, and fails when told to."""

    def __init__(self, sweep: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.durable_seq = 0
        self.broken = False
        self.weights: list[list[str]] = []
        """Checkpoints that lay on the disk at each barrier."""
        self._sweep = sweep

    def append(self, table: str, row: dict[str, Any]) -> int:
        if self.broken:
            raise OSError("no space left")
        self.rows.append({"table": table, **row})
        return len(self.rows)

    def barrier(self) -> None:
        self.durable_seq = len(self.rows)
        self.weights.append(sorted(path.name for path in self._sweep.glob("checkpoints/*/*")))


class Bench:
    """A recorder over a pure sweep, without Ray."""

    def __init__(self, folder: Path, trials: int = 4, workers: int = 2, keep: int = 1) -> None:
        self.folder = folder
        self.sweep = Sweep(
            Space(SPACE),
            seed=0,
            trials=trials,
            milestones=STEPS,
            eta=2,
            workers=workers,
            complete=lambda config: config,
        )
        self.writer = Rows(folder)
        self.tally = Tally("s", trials, STEPS, 2)
        self.messages: list[str] = []
        self.recorder = Recorder(self.sweep, self.writer, Shelf(folder, keep), self.tally, self.messages.append)

    def report(self, trial_id: str, step: int, value: float, **marks: Any) -> bool:
        trial, attempt = trial_id.split("-")
        path = checkpoint_folder(self.folder, int(trial)) / f"{attempt}-{step}-{trial}"
        path.mkdir(parents=True)
        report = {"kind": "report", "step": step, "examples": step, "overall": value, "scores": {"sst": value}}
        return self.recorder.result(trial_id, report | {"diverged": False, "checkpoint": str(path)} | marks)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_start_is_durable_before_its_trial_runs(bench: Bench) -> None:
    assignment = bench.recorder.issue()
    assert assignment is not None
    assert assignment.id == "0-0"
    assert bench.writer.durable_seq == len(bench.writer.rows) == 1
    assert bench.recorder.issue() is not None
    assert bench.recorder.issue() is None, "as many are open as there are workers"
    assert not bench.recorder.closed


def test_a_report_that_goes_on_waits_for_its_group_and_a_stop_does_not(bench: Bench) -> None:
    bench.recorder.issue()
    assert bench.report("0-0", 100, 0.5)
    assert bench.writer.durable_seq == 1
    assert not bench.report("0-0", 300, 0.6)
    assert bench.writer.durable_seq == len(bench.writer.rows) == 4
    assert [row.get("state") for row in bench.writer.rows] == [None, None, None, "complete"]


def test_weights_go_after_the_rows_that_no_longer_name_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, workers=3)
    for _ in range(3):
        bench.recorder.issue()
    bench.report("1-0", 100, 0.5)
    bench.report("1-0", 300, 0.6)
    bench.report("2-0", 100, 0.7)
    bench.report("2-0", 300, 0.8)
    ends = [(row["trial"], row["checkpoint"] is not None) for row in bench.writer.rows if row.get("event") == "end"]
    assert ends == [(1, True), (2, True), (1, False)]
    assert "0-300-1" in bench.writer.weights[-1], "at the barrier the displaced weights were still there"
    assert sorted(path.name for path in bench.folder.glob("checkpoints/*/*")) == ["0-300-2"]


def test_a_divergence_is_nan_and_ends_the_trial(bench: Bench) -> None:
    bench.recorder.issue()
    assert not bench.report("0-0", 100, math.nan, diverged=True)
    report, end = bench.writer.rows[-2:]
    assert math.isnan(report["overall"])
    assert (report["diverged"], end["state"], end["checkpoint"]) == (True, "diverged", None)


def failing(reason: str, **marks: bool) -> dict[str, Any]:
    failure = {"kind": "failure", "reason": reason, "error": "trace", "fatal": False, "place": False, "host": "here"}
    return failure | marks


def test_a_fault_of_the_place_pauses_its_trial_and_asks_for_a_stop(bench: Bench) -> None:
    bench.recorder.issue()
    assert not bench.recorder.result("0-0", failing("OSError: no space left", place=True))
    assert bench.recorder.fault == "trial 0 on here: OSError: no space left"
    assert bench.writer.rows[-1]["state"] == "paused"
    assert bench.writer.durable_seq == len(bench.writer.rows)
    assert bench.recorder.issue() is None
    again = bench.sweep.next()
    assert again is not None
    assert (again.trial, again.attempt) == (0, 1), "whoever goes on goes on with it"


def fail_in_turn(bench: Bench, reasons: list[str], report_before: int | None = None) -> None:
    for place, reason in enumerate(reasons):
        assignment = bench.recorder.issue()
        assert assignment is not None
        if place == report_before:
            bench.report(assignment.id, 100, 0.5)
        bench.recorder.result(assignment.id, failing(reason))


def test_failures_alike_ask_for_a_stop(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=20)
    fail_in_turn(bench, ["no such file"] * ALIKE)
    assert bench.recorder.fault == "5 trials in a row failed alike: no such file"


@pytest.mark.parametrize(
    ("reasons", "report_before"),
    [
        (["no such file"] * (ALIKE - 1) + ["another"] * (ALIKE - 1), None),
        (["no such file"] * (2 * ALIKE - 2), ALIKE - 1),
        (["out of memory"] * (2 * ALIKE), None),
    ],
    ids=["two reasons", "a report between", "memory"],
)
def test_failures_of_trials_ask_for_none(tmp_path: Path, reasons: list[str], report_before: int | None) -> None:
    bench = Bench(tmp_path, trials=20)
    fail_in_turn(bench, reasons, report_before)
    assert bench.recorder.fault is None


def test_late_words_of_an_ended_trial_change_nothing(bench: Bench) -> None:
    bench.recorder.issue()
    failure = failing("out of memory", fatal=True)
    assert bench.recorder.result("0-0", failure) is True, "told to go on, so that it exits"
    rows = len(bench.writer.rows)
    bench.recorder.lost("0-0", "its process died", "as it should")
    assert bench.recorder.result("0-0", {"kind": "paused"}) is False
    assert len(bench.writer.rows) == rows


def test_a_lost_trial_is_issued_again_under_another_attempt(bench: Bench) -> None:
    bench.recorder.issue()
    bench.recorder.lost("0-0", "its process died", "all that Ray says")
    again = bench.recorder.issue()
    assert again is not None
    assert again.id == "0-1"
    assert bench.writer.rows[1]["error"] == "all that Ray says"


def test_a_failing_disk_stops_everything(bench: Bench) -> None:
    bench.recorder.issue()
    bench.writer.broken = True
    with pytest.raises(OSError, match="no space left"):
        bench.report("0-0", 100, 0.5)


def test_a_recall_writes_the_ends_that_were_lost(bench: Bench, tmp_path: Path) -> None:
    bench.recorder.issue()
    bench.report("0-0", 100, 0.5)
    bench.report("0-0", 300, 0.6)
    rows = [{"state": None, "reason": None, **row} for row in bench.writer.rows[:-1]]  # the end row did not survive
    other = Bench(tmp_path)
    other.sweep.replay(rows)
    other.recorder.recall(rows)
    [end] = other.writer.rows
    assert (end["trial"], end["state"]) == (0, "complete")
    assert end["checkpoint"].endswith("0-300-0")
    assert Path(end["checkpoint"]).is_dir()


def test_the_tally_counts_durable_rows_alone_and_agrees_with_the_rungs(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    bench.report("0-0", 100, 0.5)
    bench.report("1-0", 100, 0.2)
    bench.tally.settle(2)
    early = bench.tally.snapshot("searching", 0.0, 1.0)
    assert (early.durable_rows, early.counts["running"], early.best) == (2, 2, [])
    bench.tally.settle(bench.writer.durable_seq)
    late = bench.tally.snapshot("searching", 0.0, 1.0)
    assert late.durable_rows == len(bench.writer.rows)
    assert late.rungs == bench.sweep.rung_table()
    assert late.best == [(0, 0.5, {"sst": 0.5}, 100), (1, 0.2, {"sst": 0.2}, 100)]
    assert late.best_per_task == {"sst": (0, 0.5)}
    assert late.counts["pruned"] == 1
    assert late.running == [(0, 100, 100, 0.5)]
    assert late.budget_examples_used == 200


def test_a_lost_trial_that_is_issued_again_is_told(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    bench.recorder.lost("0-0", "worker process 1234 died", "trace")
    assert bench.messages == []
    assert bench.recorder.issue() is not None
    assert bench.messages == ["trial 0 was lost (worker process 1234 died); issued again as attempt 1"]
    bench.recorder.result("1-0", {"kind": "paused"})
    bench.recorder.issue()
    assert len(bench.messages) == 1, "a pause is no loss"


def test_a_trial_whose_driver_died_is_told_as_lost(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    bench.recorder.lost("0-0", "worker process 7 died", "")
    later = Bench(bench.folder)
    later.sweep.replay(bench.writer.rows)
    later.recorder.recall(bench.writer.rows)
    for _ in range(2):
        later.recorder.issue()
    assert later.messages == [
        "trial 0 was lost (worker process 7 died); issued again as attempt 1",
        "trial 1 was lost (its driver died); issued again as attempt 1",
    ]


def test_an_abandoned_trial_is_paused_and_loses_no_attempt(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    bench.recorder.abandon("stopped at once")
    ends = [row for row in bench.writer.rows if row.get("event") == "end"]
    assert [(row["trial"], row["state"], row["reason"]) for row in ends] == [
        (0, "paused", "stopped at once"),
        (1, "paused", "stopped at once"),
    ]
    assert bench.writer.durable_seq == len(bench.writer.rows)
    assert [bench.sweep.records[trial].losses for trial in (0, 1)] == [0, 0]

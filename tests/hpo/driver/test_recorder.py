"""The recorder: rows come before decisions, and a failing disk stops everything."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.cluster.faults import PREEMPTED
from hpo.driver.ledger import Ledger
from hpo.driver.monitor import Monitor
from hpo.driver.placement import DECLINES, Placement
from hpo.driver.places import SAME_FAILURES
from hpo.driver.recorder import Recorder
from hpo.driver.weights import Shelf
from hpo.driver.whole_gpus import WholeGpus
from hpo.search.endings import FIRST_REST
from hpo.search.schedulers import Asha
from hpo.search.searchers import Tpe
from hpo.search.snapshot import Leader, RunningTrial, TaskLeader
from hpo.search.states import configuration_id
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from hpo.worker.job import Assignment
from results.objectives import accepted, objectives_from
from results.places import locate
from tests.hpo.board import MemoryBoard
from tests.hpo.conftest import SPACE
from tests.hpo.files import checkpoint_folder

STEPS = (100, 300)


class MemoryWriter:
    """A writer that keeps its rows in memory, and fails while `broken` is set."""

    def __init__(self, sweep: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.evidence: list[Mapping[str, Any]] = []
        """Evidence of each row."""
        self.durable_seq = 0
        self.due = True
        self.broken = False
        self.weights: list[list[str]] = []
        """Names of the checkpoints on the disk at each barrier."""
        self._sweep = sweep

    def append(self, table: str, row: Mapping[str, Any], evidence: Mapping[str, Any] | None = None) -> int:
        if self.broken:
            raise OSError("no space left")
        self.rows.append({"table": table, **row})
        self.evidence.append(evidence or {})
        return len(self.rows)

    def barrier(self) -> int:
        self.durable_seq = len(self.rows)
        self.weights.append(sorted(path.name for path in self._sweep.glob("checkpoints/*/*")))
        return self.durable_seq


class PromptShelf(Shelf):
    """A shelf that has deleted when `tidy` returns."""

    def tidy(self, ledger: Ledger, trials: Iterable[int] | None = None) -> None:
        super().tidy(ledger, trials)
        assert self.tidied() == []


class Bench:
    """A recorder over a pure sweep, without Ray, in simulated time."""

    def __init__(
        self,
        folder: Path,
        trials: int = 4,
        workers: int = 2,
        keep: int = 1,
        whole_gpus: WholeGpus | None = None,
        **more: Any,
    ) -> None:
        self.folder = folder
        self.now = 0.0
        self.board = MemoryBoard()
        parts: dict[str, Any] = {"searcher": Tpe(), "scheduler": Asha(eta=2), "complete": lambda config: config}
        parts["exempt"] = ()  # every trial is raced
        self.sweep = Sweep(Space(SPACE), seed=0, trials=trials, milestones=STEPS, workers=workers, **parts, **more)
        self.writer = MemoryWriter(folder)
        self.monitor = Monitor("s", trials, STEPS, Asha(eta=2), exempt=())
        self.messages: list[str] = []
        self.placement = Placement(workers, self.board, self.messages.append, clock=lambda: self.now)
        shelf = PromptShelf(locate(folder), keep)
        self.recorder = Recorder(
            self.sweep, self.writer, shelf, self.monitor, self.placement, self.messages.append, whole_gpus
        )

    def result(self, tune_id: str, **values: Any) -> bool:
        """Hand the recorder a result of one attempt; returns whether the attempt continues."""
        trial, attempt = map(int, tune_id.split("-"))
        usual = {"trial": trial, "attempt": attempt, "place": self.board.place_of(tune_id)}
        [verdict] = self.recorder.result(tune_id, [usual | values])
        return verdict

    def report(self, tune_id: str, step: int, value: float, **marks: Any) -> bool:
        trial, attempt = tune_id.split("-")
        path = checkpoint_folder(self.folder, int(trial)) / f"{attempt}-{step}-{trial}"
        path.mkdir(parents=True)
        report = {"kind": "report", "step": step, "examples": step, "overall": value, "scores": {"sst": value}}
        return self.result(tune_id, **report | {"diverged": False, "checkpoint": str(path)} | marks)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_start_is_durable_before_its_trial_runs(bench: Bench) -> None:
    [assignment] = bench.recorder.issue()
    assert assignment.id == "0-0"
    assert bench.writer.durable_seq == len(bench.writer.rows) == 1
    assert [assignment.id for assignment in bench.recorder.issue()] == ["1-0"]
    assert bench.recorder.issue() == [], "as many are open as there are workers"
    assert not bench.recorder.closed


def test_a_start_s_row_holds_the_trial_s_identity_and_its_searcher(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    default, drawn = bench.writer.rows
    assert (default["origin"], default["searcher"]) == ("default", None)
    assert (drawn["origin"], drawn["searcher"]) == ("sampler", "tpe")
    for row in (default, drawn):
        assert (row["config_id"], row["replicate"]) == (configuration_id(json.loads(row["config"])), 0)


def test_a_report_and_its_stored_row_give_the_same_gains_in_further_objectives(tmp_path: Path) -> None:
    """So a resume tells the searcher what it was told."""
    gains = [objective.gain for objective in objectives_from(accepted(("sst",))[1:], ("sst",))]
    bench = Bench(tmp_path, further=gains)
    bench.recorder.issue()
    costs = {"seconds": 20.0, "evaluation_seconds": 4.0, "stage_seconds": 3.0, "trainable_parameters": 7}
    bench.report("0-0", 100, 0.5, **costs, total_parameters=70, peak_memory_bytes=2**20, examples_per_task={"sst": 100})
    (row,) = (row for row in bench.writer.rows if "step" in row)
    told = bench.sweep.records[0].further[100]
    assert told == tuple(gain(row) for gain in gains)
    assert all(map(math.isfinite, told)) and len(told) == 7


def test_a_report_and_an_end_wait_for_their_group(bench: Bench) -> None:
    bench.recorder.issue()
    assert bench.report("0-0", 100, 0.5)
    assert not bench.report("0-0", 300, 0.6)
    assert bench.writer.durable_seq == 1
    assert [row.get("state") for row in bench.writer.rows] == [None, None, None, "complete"]
    assert [assignment.id for assignment in bench.recorder.issue()] == ["1-0"]
    assert bench.writer.durable_seq == len(bench.writer.rows) == 5, "no trial starts before the end of one is durable"


def test_a_start_waits_while_others_work_unless_a_commit_is_due(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=8, workers=4)
    bench.writer.due = False
    assert bench.recorder.issue()[0].id == "0-0", "nobody is at work: it is committed at once"
    assert bench.recorder.issue() == []
    assert [row["trial"] for row in bench.writer.rows] == [0, 1, 2, 3], "all that may start share the commit"
    assert (bench.writer.durable_seq, bench.recorder.closed) == (1, False)
    bench.writer.barrier()  # as the writer's thread does
    assert [bench.recorder.issue()[0].id for _ in range(3)] == ["1-0", "2-0", "3-0"]
    for trial in (0, 1):
        assert not bench.report(f"{trial}-0", 100, math.nan, diverged=True)
        assert bench.recorder.issue() == []
    assert len(bench.writer.weights) == 2, "there was no other commit"
    bench.writer.due = True
    assert bench.recorder.issue()[0].id == "4-0"
    assert bench.writer.durable_seq == len(bench.writer.rows) == 10, "one commit has both ends and both starts"


def test_waiting_starts_are_issued_although_the_search_is_halted(bench: Bench) -> None:
    bench.writer.due = False
    bench.recorder.issue()
    assert bench.recorder.issue() == []
    bench.sweep.halt()
    assert not bench.recorder.closed
    bench.writer.barrier()
    assert [assignment.id for assignment in bench.recorder.issue()] == ["1-0"], "its worker is asked to pause"
    assert bench.recorder.closed


def test_an_abandoned_start_that_waits_is_paused_too(bench: Bench) -> None:
    bench.writer.due = False
    bench.recorder.issue()
    assert bench.recorder.issue() == []
    bench.recorder.abandon("stopped at once")
    ends = [(row["trial"], row["state"]) for row in bench.writer.rows if row.get("event") == "end"]
    assert ends == [(0, "paused"), (1, "paused")]
    bench.sweep.halt()
    assert bench.recorder.issue() == [] and bench.recorder.closed
    assert bench.writer.durable_seq == len(bench.writer.rows)


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
    assert len(list(bench.folder.glob("checkpoints/*/*"))) == 4, "the rows are not durable yet"
    bench.recorder.settle()
    assert "0-300-1" in bench.writer.weights[-1], "at the barrier the displaced weights were still there"
    assert sorted(path.name for path in bench.folder.glob("checkpoints/*/*")) == ["0-300-2"]


def test_a_report_s_evidence_goes_to_the_writer_with_its_row(bench: Bench) -> None:
    bench.recorder.issue()
    evidence = {"sst": [0.5]}
    bench.report("0-0", 100, 0.5, evidence=evidence)
    assert bench.writer.evidence == [{}, evidence]
    bench.report("0-0", 300, math.nan, diverged=True, evidence=evidence)
    assert bench.writer.evidence == [{}, evidence, {}, {}]


def test_evidence_of_an_end_whose_weights_may_be_kept_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the choice of an ensemble would read it from the store again."""
    taken: list[int] = []
    monkeypatch.setattr(Shelf, "take", lambda self, trial, evidence: taken.append(trial))
    seen = {"sst": np.zeros(1, np.float16)}
    for _ in range(2):
        bench.recorder.issue()
    assert bench.report("0-0", 100, 0.5, evidence=seen)
    assert not bench.report("1-0", 100, 0.4, evidence=seen), "pruned"
    assert not bench.report("0-0", 300, 0.6, evidence=seen), "complete"
    assert taken == [1, 0]


def test_a_divergence_is_nan_and_ends_the_trial(bench: Bench) -> None:
    bench.recorder.issue()
    assert not bench.report("0-0", 100, math.nan, diverged=True)
    report, end = bench.writer.rows[-2:]
    assert math.isnan(report["overall"])
    assert (report["diverged"], end["state"], end["checkpoint"]) == (True, "diverged", None)


def failing(reason: str, **marks: Any) -> dict[str, Any]:
    return {"kind": "failure", "reason": reason, "error": "trace", "exits": False, "cause": "refused", **marks}


def test_a_full_disk_pauses_its_trial_and_asks_for_a_stop(bench: Bench) -> None:
    bench.recorder.issue()
    bench.board.places["0-0"] = "here GPU 3"
    assert not bench.result("0-0", **failing("OSError: no space left", cause="disk"))
    assert bench.recorder.fault == "trial 0 on here: OSError: no space left"
    assert bench.writer.rows[-1]["state"] == "paused"
    assert bench.recorder.issue() == []
    again = bench.sweep.next()
    assert again is not None
    assert (again.trial, again.attempt) == (0, 1), "a resume issues it first"


def fail_in_turn(bench: Bench, reasons: list[str], report_before: int | None = None) -> None:
    for place, reason in enumerate(reasons):
        [assignment] = bench.recorder.issue()
        if place == report_before:
            bench.report(assignment.id, 100, 0.5)
        bench.result(assignment.id, **failing(reason, cause="memory" if "memory" in reason else "refused"))
        bench.now += 60.0


def test_failures_alike_ask_for_a_stop(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=20)
    fail_in_turn(bench, ["no such file"] * SAME_FAILURES)
    assert bench.recorder.fault == "5 failures in a row were alike: no such file"


@pytest.mark.parametrize(
    ("reasons", "report_before"),
    [
        (["no such file"] * (SAME_FAILURES - 1) + ["another"] * (SAME_FAILURES - 1), None),
        (["no such file"] * (2 * SAME_FAILURES - 2), SAME_FAILURES - 1),
        (["out of memory"] * SAME_FAILURES, None),
    ],
    ids=["two reasons", "a report between", "memory"],
)
def test_failures_of_trials_ask_for_none(tmp_path: Path, reasons: list[str], report_before: int | None) -> None:
    bench = Bench(tmp_path, trials=20)
    fail_in_turn(bench, reasons, report_before)
    assert bench.recorder.fault is None


def test_late_results_of_an_ended_trial_change_nothing(bench: Bench) -> None:
    bench.recorder.issue()
    failure = failing("out of memory", cause="memory", exits=True)
    assert bench.result("0-0", **failure) is True, "told to continue, so that it exits"
    rows = len(bench.writer.rows)
    bench.recorder.lost("0-0", "its process died", "as it should")
    assert bench.result("0-0", kind="paused") is False
    assert len(bench.writer.rows) == rows


def test_a_lost_trial_is_issued_again_under_another_attempt(bench: Bench) -> None:
    bench.recorder.issue()
    bench.board.places["0-0"] = "a"
    bench.recorder.lost("0-0", "its process died", "all that Ray says")
    lost = bench.writer.rows[1]
    assert (lost["error"], lost["cause"], lost["place"], lost["reached"]) == ("all that Ray says", "place", "a", 0)
    assert [assignment.id for assignment in bench.recorder.issue()] == ["1-0"], "the lost one rests"
    bench.now += FIRST_REST
    assert [assignment.id for assignment in bench.recorder.issue()] == ["0-1"]


def test_a_preempted_node_costs_a_trial_nothing(bench: Bench) -> None:
    bench.recorder.issue()
    bench.recorder.lost("0-0", "its process died", f"The actor died unexpectedly ({PREEMPTED})")
    assert (bench.writer.rows[-1]["state"], bench.writer.rows[-1]["cause"]) == ("paused", "driver")
    assert bench.sweep.records[0].endings.losses == 0


def test_a_machine_that_leaves_costs_its_trials_nothing(tmp_path: Path) -> None:
    """One trial writes its checkpoint in time; one does not, and dies with its machine; one had ended there."""
    bench = Bench(tmp_path, trials=8, workers=4)
    for number in range(4):
        bench.recorder.issue()
        bench.board.places[f"{number}-0"], bench.board.nodes[f"{number}-0"] = "node7", "n" if number < 3 else "m"
    bench.placement.leave({})
    assert bench.board.asked == frozenset()
    bench.placement.leave({"n": "node7"})
    bench.placement.leave({"l": "node8"})
    assert bench.board.asked == {"n", "l"}
    assert bench.messages == [
        f"{host} leaves the cluster: its trials write a checkpoint and go on elsewhere" for host in ("node7", "node8")
    ]
    assert bench.result("0-0", kind="paused", exits=True), "its worker gets no other trial"
    bench.recorder.lost("0-0", "its process died", "it exited")
    assert bench.result("0-0", kind="paused", exits=True), "as a worker that idled"
    bench.recorder.lost("1-0", "its process died", "its node was terminated")
    ends = [row for row in bench.writer.rows if row.get("event") == "end"]
    assert [(row["trial"], row["state"], row["cause"], row["place"]) for row in ends] == [
        (0, "paused", "driver", "node7"), (1, "paused", "driver", "node7")]  # fmt: skip
    assert ends[0]["reason"] == "its machine leaves the cluster"
    assert not bench.placement.quarantined
    assert not bench.result("2-0", kind="paused"), "asked to pause, as every trial"
    bench.recorder.lost("3-0", "its process died", "another node was lost")
    assert (bench.writer.rows[-1]["state"], bench.writer.rows[-1]["cause"]) == ("lost", "place")
    [again] = bench.recorder.issue()
    assert (again.id, again.avoid) == ("0-1", ()), "at once, and nothing is held against the place"


def test_a_lost_trial_s_newest_checkpoint_is_in_its_row(bench: Bench) -> None:
    bench.recorder.issue()
    checkpoint = checkpoint_folder(bench.folder, 0) / "0-77"
    checkpoint.mkdir(parents=True)
    (checkpoint / "done.json").touch()
    bench.result("0-0", **failing("CUDA error: unspecified launch failure", cause="place", exits=True))
    assert bench.writer.rows[-1]["reached"] == 77


def test_a_trial_that_ran_out_of_memory_is_issued_once_more(bench: Bench) -> None:
    bench.recorder.issue()
    bench.result("0-0", **failing("out of memory", cause="memory", exits=True))
    [again] = bench.recorder.issue()
    assert again.id == "0-1"
    bench.result("0-1", **failing("out of memory", cause="memory", exits=True))
    assert bench.writer.rows[-1]["state"] == "failed"


def test_an_error_is_tried_once_more_elsewhere(bench: Bench) -> None:
    for tune_id, place in (("0-0", "a"), ("1-0", "b")):
        bench.recorder.issue()
        bench.board.places[tune_id] = place
    bench.result("0-0", **failing("ValueError: the data differ", cause="raised"))
    [again] = bench.recorder.issue()
    assert (again.id, again.avoid) == ("0-1", ("a",))
    bench.result("0-1", **failing("ValueError: the data differ", cause="raised"), place="b")
    assert (bench.writer.rows[-1]["state"], bench.writer.rows[-1]["place"]) == ("failed", "b")


def test_a_worker_that_declines_gives_its_trial_back_at_no_cost(bench: Bench) -> None:
    for tune_id, place in (("0-0", "a"), ("1-0", "b")):
        bench.recorder.issue()
        bench.board.places[tune_id] = place
    bench.recorder.lost("0-0", "its process died", "")
    for attempt in range(1, DECLINES + 1):
        bench.now += 10.0
        [again] = bench.recorder.issue()
        assert (again.id, again.avoid) == (f"0-{attempt}", ("a",))
        assert bench.result(again.id, kind="declined", place="a") is False, "its place is not in quarantine"
    bench.now += 10.0
    assert bench.recorder.issue()[0].avoid == (), "no other worker was free: now the next one takes it"
    assert bench.sweep.records[0].endings.losses == 1


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
    resumed = Bench(tmp_path)
    resumed.sweep.replay(rows)
    resumed.recorder.recall(rows)
    [end] = resumed.writer.rows
    assert (end["trial"], end["state"]) == (0, "complete")
    assert end["checkpoint"].endswith("0-300-0")
    assert Path(end["checkpoint"]).is_dir()


def test_the_monitor_counts_durable_rows_alone_and_agrees_with_the_search(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    bench.report("0-0", 100, 0.5)
    bench.report("1-0", 100, 0.2)
    bench.monitor.settle(2)
    early = bench.monitor.snapshot("searching", 0.0, 1.0)
    assert (early.durable_rows, early.counts["running"], early.best) == (2, 2, [])
    bench.monitor.settle(bench.writer.barrier())
    late = bench.monitor.snapshot("searching", 0.0, 1.0)
    assert late.durable_rows == len(bench.writer.rows)
    assert late.rungs == bench.sweep.judge.rows()
    assert late.best == [Leader(0, 0.5, {"sst": 0.5}, 100), Leader(1, 0.2, {"sst": 0.2}, 100)]
    assert late.best_per_task == {"sst": TaskLeader(0, 0.5)}
    assert late.counts["pruned"] == 1
    assert late.running == [RunningTrial(0, 100, 100, 0.5)]
    assert late.budget_examples_used == 200


def test_a_lost_trial_that_is_issued_again_is_a_message(bench: Bench) -> None:
    for _ in range(2):
        bench.recorder.issue()
    bench.recorder.lost("0-0", "worker process 1234 died", "trace")
    assert bench.messages == []
    bench.now += FIRST_REST
    assert [assignment.id for assignment in bench.recorder.issue()] == ["0-1"]
    assert bench.messages == ["trial 0 was lost (worker process 1234 died); issued again as attempt 1"]
    bench.result("1-0", kind="paused")
    bench.recorder.issue()
    assert len(bench.messages) == 1, "a pause is no loss"


def test_a_trial_whose_driver_died_is_reported_as_lost(bench: Bench) -> None:
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
        "trial 1 was lost (its launch broke off); issued again as attempt 1",
    ]
    assert [later.sweep.records[trial].endings.losses for trial in (0, 1)] == [1, 0]


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
    assert [bench.sweep.records[trial].endings.losses for trial in (0, 1)] == [0, 0]


def test_a_tune_trial_that_carries_two_attempts_gets_a_verdict_for_each(tmp_path: Path) -> None:
    """The recorder issues one attempt at a time; the one of this test joins two attempts into a pair."""

    class Pairs(Recorder):
        def issue(self) -> list[Assignment]:
            pair = [*super().issue(), *super().issue()]
            self._open[pair[0].id] |= self._open.pop(pair[1].id)
            return pair

    bench = Bench(tmp_path, workers=4)
    recorder = Pairs(bench.sweep, bench.writer, Shelf(locate(tmp_path), 1), bench.monitor, bench.placement)
    pairs = [recorder.issue() for _ in range(2)]
    assert [[assignment.id for assignment in pair] for pair in pairs] == [["0-0", "1-0"], ["2-0", "3-0"]]
    assert recorder.running == ("0-0", "2-0")

    def report(step: int, *values: float) -> list[dict[str, Any]]:
        report = {"attempt": 0, "kind": "report", "place": "here", "step": step, "diverged": False}
        return [{"trial": trial, "overall": value, **report}
                for trial, value in enumerate(values)]  # fmt: skip

    assert recorder.result("0-0", report(100, 0.5, 0.2)) == [True, False], "the rung stops the second"
    assert recorder.running == ("0-0", "2-0")
    assert recorder.result("0-0", report(300, 0.6, 0.9)) == [False, False], "a late result changes nothing"
    assert recorder.running == ("2-0",)
    recorder.lost("2-0", "its process died", "all that Ray says")
    assert recorder.running == ()
    states = [(row["trial"], row["state"]) for row in bench.writer.rows if row.get("event") == "end"]
    assert states == [(1, "pruned"), (0, "complete"), (2, "lost"), (3, "lost")]

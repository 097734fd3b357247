"""The adapters to Ray Tune with a desk for tests: a Tune trial that carries two trials, and exceptions of our code.

No cluster: the adapters are called as Tune calls them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune import ProgressReporter
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import TrialScheduler

from hpo.driver.tune import keep_starting_processes, remembering, scheduler, search_algorithm, silent_reporter
from hpo.worker.job import Assignment, Job, assignments_from_json
from hpo.worker.worker import EVIDENCE, RESULT

PAIR = [Assignment(4, 0, {"x": 1}, 5), Assignment(5, 2, {"x": 2}, 6)]


class DeskOfTwo:
    """A desk that issues one Tune trial with two trials. `stop`: the trials that its verdicts stop."""

    def __init__(self) -> None:
        self.pairs = [PAIR]
        self.stop: set[int] = set()
        self.results: list[tuple[str, list[int]]] = []
        self.lost_ids: list[str] = []

    @property
    def closed(self) -> bool:
        return not self.pairs

    def issue(self) -> Sequence[Assignment]:
        return self.pairs.pop() if self.pairs else []

    def result(self, tune_id: str, results: Sequence[Mapping[str, Any]]) -> Sequence[bool]:
        assert [result["evidence"]["sst"][0] for result in results] == [result["trial"] for result in results]
        self.results.append((tune_id, [result["trial"] for result in results]))
        return [result["trial"] not in self.stop for result in results]

    def lost(self, tune_id: str, reason: str, error: str) -> None:
        self.lost_ids.append(tune_id)


def results(*trials: int) -> dict[str, Any]:
    reports = [{"trial": trial, "attempt": 0, "kind": "report"} for trial in trials]
    return {RESULT: json.dumps(reports), EVIDENCE: [{"sst": np.full(2, trial)} for trial in trials]}


def test_one_tune_trial_carries_two_assignments_under_the_id_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.experiment.Trial", lambda name, **fields: SimpleNamespace(**fields))
    search = search_algorithm(DeskOfTwo(), Job(str(tmp_path), (1, 3)), [])
    search.add_configurations([SimpleNamespace(run_identifier="run", storage=None)])
    trial = search.next_trial()
    assert trial.trial_id == "4-0"
    assert assignments_from_json(trial.config["assignments"]) == PAIR
    assert search.is_finished()
    assert search.next_trial() is None


def test_a_stop_of_one_leaves_the_other() -> None:
    desk = DeskOfTwo()
    judge, trial = scheduler(desk, []), SimpleNamespace(trial_id="4-0")
    answers = []
    for stop in (set(), {4}, {4, 5}):
        desk.stop = stop
        answers.append(judge.on_trial_result(None, trial, results(4, 5)))
    assert answers == [TrialScheduler.CONTINUE, TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert desk.results == [("4-0", [4, 5])] * 3


def controller_with(finished: bool) -> Any:
    """What the adapters use of Tune's controller."""
    return SimpleNamespace(
        _pending_trials_list=["it runs now", "its process starts", "waits for resources", "newer"],
        _pending_trials={"its process starts", "waits for resources", "newer"},
        _trial_to_actor={"it runs now": 1, "its process starts": 2, "waits for resources": 3, "begins": 4},
        _actor_manager=SimpleNamespace(_live_actors_to_ray_actors_resources={1: (), 2: (), 4: ()}),
        _resetting_trials={"begins"},
        _search_alg=SimpleNamespace(is_finished=lambda: finished),
    )


def test_the_next_trial_is_the_oldest_for_which_no_process_starts() -> None:
    judge, controller = scheduler(DeskOfTwo(), []), controller_with(finished=False)
    wrapper = SimpleNamespace(_tune_controller=controller)
    assert judge.choose_trial_to_run(wrapper) == "waits for resources"
    controller._pending_trials = {"its process starts"}
    assert judge.choose_trial_to_run(wrapper) is None


def test_a_free_worker_takes_no_trial_whose_process_starts_unless_no_other_will_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TuneController, "_maybe_reuse_cached_actor", lambda self, trial: True)
    keep_starting_processes()
    keep_starting_processes()
    reuse = TuneController._maybe_reuse_cached_actor
    searching, finished = controller_with(finished=False), controller_with(finished=True)
    trials = ("its process starts", "begins", "waits for resources", "newer")
    assert [reuse(searching, trial) for trial in trials] == [False, True, True, True]
    assert reuse(finished, "its process starts")


def test_a_dead_process_is_reported_by_the_id_of_its_tune_trial() -> None:
    desk = DeskOfTwo()
    scheduler(desk, []).on_trial_error(None, SimpleNamespace(trial_id="4-0", error_file=None))
    assert desk.lost_ids == ["4-0"]


def test_an_exception_of_our_code_is_remembered() -> None:
    faults: list[BaseException] = []
    with pytest.raises(KeyError), remembering(faults):
        raise KeyError("x")
    assert [type(fault) for fault in faults] == [KeyError]


def test_tune_itself_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """In a notebook its report would clear the cell, and our display with it."""
    reporter = silent_reporter()
    assert isinstance(reporter, ProgressReporter), "else Tune takes its own"
    assert not reporter.should_report([], done=True)
    reporter.report([], True)
    assert capsys.readouterr().out == ""

"""Reasons to stop: the time, a request in the store, signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpo.cluster.pause import Board
from hpo.cluster.resources import Resources
from hpo.driver import generations
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.driver.running import Running
from hpo.driver.screen import Screen
from hpo.driver.selection import Needed, Pending, recorded
from hpo.driver.stopping import Halt, StopNow, request_stop
from hpo.launch.prepare import prepare
from hpo.launch.record import job_of
from hpo.worker.job import Job
from results.places import locate
from results.store import Store
from tests.hpo.conftest import launch
from tests.hpo.files import stop_file


def test_no_reason_is_none(tmp_path: Path) -> None:
    assert Halt(locate(tmp_path), None).reason is None


def test_the_time_leaves_room_for_checkpoints(tmp_path: Path) -> None:
    halt = Halt(locate(tmp_path), 1.0)
    assert halt.reason is None
    time.sleep(0.92)
    assert halt.reason == "the time is up"


def test_a_request_is_taken_once_and_an_old_one_not_at_all(tmp_path: Path) -> None:
    request_stop(locate(tmp_path))
    halt = Halt(locate(tmp_path), None)
    assert halt.reason is None, "the request was for an earlier driver"
    request_stop(locate(tmp_path))
    halt._next_look = 0.0
    assert halt.reason == "stop was requested"
    assert not stop_file(tmp_path).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_in_order_and_the_second_at_once(tmp_path: Path, number: signal.Signals) -> None:
    halt = Halt(locate(tmp_path), None)
    before = signal.getsignal(number)
    with halt.signals():
        os.kill(os.getpid(), number)
        assert halt.reason == f"{number.name} arrived"
        with pytest.raises(StopNow):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A running launch of a new sweep, without a cluster, that was asked to stop."""
    plan = prepare(launch(tmp_path))
    folder = Store(tmp_path).create("s", plan.begun(Resources()).to_json())
    generation = generations.claim(folder.folder)
    job = job_of(plan.record, folder.folder, Resources(), trainer=plan.trainer, pause_key="key")
    with folder.writer(generation.number) as writer:
        launched = Running(plan, folder, writer, generation, job, Screen(plan, None))
        launched._halt = SimpleNamespace(reason="stop was requested")  # type: ignore[assignment]
        yield launched
    generation.end()


def test_trials_that_never_pause_are_left_behind(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[str] = []
    monkeypatch.setattr("hpo.driver.running.PATIENCE", 0.05)
    monkeypatch.setattr(Board, "raise_flag", lambda board: raised.append(board._key))
    running._turn(1, list)
    assert raised == ["key"]
    assert running._sweep.halted
    running._turn(1, list)
    time.sleep(0.06)
    with pytest.raises(StopNow):
        running._turn(1, list)


def test_a_stop_does_not_wait_for_a_trial_that_no_machine_holds(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Board, "raise_flag", lambda board: None)
    assert running._recorder.issue()
    running._turn(1, list)
    running._turn(1, list)
    with pytest.raises(StopNow):
        running._turn(0, list)
    end = running._folder.events()[-1]
    assert (end["state"], end["cause"], end["reason"]) == ("paused", "driver", "stopped before it began")


def test_a_request_that_came_after_this_generation_began_is_heard(tmp_path: Path) -> None:
    generation = generations.claim(locate(tmp_path))
    try:
        request_stop(locate(tmp_path))
        assert Halt(locate(tmp_path), None, since=generation.began).reason == "stop was requested"
        request_stop(locate(tmp_path))
        os.utime(stop_file(tmp_path), (generation.began - 1,) * 2)
        assert Halt(locate(tmp_path), None, since=generation.began).reason is None
    finally:
        generation.end()


def test_the_time_counts_from_the_beginning_of_the_launch(tmp_path: Path) -> None:
    assert Halt(locate(tmp_path), 60.0, started=time.monotonic() - 59).reason == "the time is up"


@pytest.mark.parametrize(("remaining", "state"), [(0, "done"), (1, "stopped")])
def test_a_stop_after_the_last_prediction_is_no_stop_and_an_earlier_one_says_why(
    running: Running, monkeypatch: pytest.MonkeyPatch, remaining: int, state: str
) -> None:
    """The launch was asked to stop when every trial had ended and some predictions remain."""
    running._sweep = SimpleNamespace(finished=True)  # type: ignore[assignment]
    why = [f"{running._halt.reason}: no more predictions; the next launch makes the others"]

    pending = [Pending(KeptWeights(0, 0, "checkpoints/0/0-900"), "held")] * remaining

    def finalise(job: Job, given: Any, on_turn: Callable[[int], bool], *_: object) -> dict[int, str]:
        assert (given, job.pause_key) == (pending, "key")
        assert on_turn(remaining) is False
        assert on_turn(remaining) is False
        return {}

    monkeypatch.setattr("hpo.driver.finalise.finalise", finalise)
    monkeypatch.setattr("hpo.driver.selection.select", lambda *arguments: None)
    monkeypatch.setattr("hpo.driver.selection.needed", lambda *arguments: Needed([0], pending))
    assert running._finish() == state
    assert running._screen.messages == (why if remaining else [])


def test_a_trial_that_cannot_predict_is_tried_once_and_the_choice_is_made_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running._sweep = SimpleNamespace(finished=True)  # type: ignore[assignment]
    tried: list[int] = []

    def needed(folder: Any, ledger: Any, selection: Any, choice: Any, without: set[int]) -> Needed:
        chosen = [trial for trial in (0, 3, 2) if trial not in without][:2]
        pending = [Pending(KeptWeights(trial, 0, "0-900"), "held") for trial in chosen if trial not in tried]
        return Needed(chosen, pending)

    def finalise(job: Job, given: list[Pending], *_: object) -> dict[int, str]:
        tried.extend(entry.weights.trial for entry in given)
        return {3: "trial 3 could not predict"} if tried[-1] == 3 else {}

    monkeypatch.setattr("hpo.driver.finalise.finalise", finalise)
    monkeypatch.setattr("hpo.driver.selection.select", lambda *arguments: None)
    monkeypatch.setattr("hpo.driver.selection.needed", needed)
    assert running._finish() == "done"
    assert tried == [0, 3, 2]
    found = recorded(running._folder, Ledger(running._folder.events()))
    assert found is not None
    assert (found.trials, found.failed) == ([0, 2], [3])
    assert running._screen.messages == ["trial 3 could not predict"]


def test_a_flag_that_cannot_be_removed_is_a_message(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(board: Board) -> None:
        raise ConnectionError("Ray is gone")

    monkeypatch.setattr(Board, "clear", gone)
    running._clear_board()
    assert running._screen.messages == ["the pause flag could not be removed: ConnectionError: Ray is gone"]

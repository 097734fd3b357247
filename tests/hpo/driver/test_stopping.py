"""Reasons to stop: the time, a request in the store, signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpo.driver import generations
from hpo.driver import session as driver
from hpo.driver.stopping import STOP_FILE, Halt, Now, request_stop
from hpo.launch.prepare import prepare
from tests.hpo.conftest import launch


def test_no_reason_is_none(tmp_path: Path) -> None:
    assert Halt(tmp_path, None).reason is None


def test_the_time_leaves_room_for_checkpoints(tmp_path: Path) -> None:
    halt = Halt(tmp_path, 1.0)
    assert halt.reason is None
    time.sleep(0.92)
    assert halt.reason == "the time is up"


def test_a_request_is_taken_once_and_an_old_one_not_at_all(tmp_path: Path) -> None:
    request_stop(tmp_path)
    halt = Halt(tmp_path, None)
    assert halt.reason is None, "the request was for an earlier driver"
    request_stop(tmp_path)
    halt._next_look = 0.0
    assert halt.reason == "stop was requested"
    assert not (tmp_path / STOP_FILE).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_and_two_demand(tmp_path: Path, number: signal.Signals) -> None:
    halt = Halt(tmp_path, None)
    before = signal.getsignal(number)
    with halt.signals():
        os.kill(os.getpid(), number)
        assert halt.reason == f"{number.name} arrived"
        with pytest.raises(Now):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_trials_that_never_pause_are_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = driver.Session(prepare(launch(tmp_path)), 8, None)
    raised: list[str] = []
    monkeypatch.setattr(driver, "PATIENCE", 0.05)
    monkeypatch.setattr(driver.pause, "raise_flag", raised.append)
    session._generation = SimpleNamespace(superseded=False)
    session._halt = SimpleNamespace(reason="stop was requested")  # type: ignore[assignment]
    session._job = SimpleNamespace(pause_key="key")  # type: ignore[assignment]
    session._sweep = session._plan.sweep(1, 8)
    session._recorder = SimpleNamespace(fault=None, running=())  # type: ignore[assignment]
    session._turn()
    assert raised == ["key"]
    assert session._sweep.halted
    session._turn()
    time.sleep(0.06)
    with pytest.raises(Now):
        session._turn()


def test_a_request_that_came_after_this_generation_began_is_heard(tmp_path: Path) -> None:
    generation = generations.claim(tmp_path)
    try:
        request_stop(tmp_path)
        assert Halt(tmp_path, None, since=generation.began).reason == "stop was requested"
        request_stop(tmp_path)
        os.utime(tmp_path / STOP_FILE, (generation.began - 1,) * 2)
        assert Halt(tmp_path, None, since=generation.began).reason is None
    finally:
        generation.end()


def test_the_time_counts_from_the_beginning_of_the_launch(tmp_path: Path) -> None:
    assert Halt(tmp_path, 60.0, started=time.monotonic() - 59).reason == "the time is up"


def finishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> str:
    """How a launch ends that was asked to stop when every trial had ended and `jobs` predictions remain."""
    session = driver.Session(prepare(launch(tmp_path)), 8, None)
    session._generation = SimpleNamespace(superseded=False)
    session._halt = SimpleNamespace(reason="stop was requested")  # type: ignore[assignment]
    session._job = SimpleNamespace(folder=str(tmp_path / "s"))  # type: ignore[assignment]
    session._sweep = SimpleNamespace(finished=True)  # type: ignore[assignment]
    session._recorder = SimpleNamespace(kept=list)  # type: ignore[assignment]

    def finalise(store: str, name: str, job: Any, kept: Any, resources: Any, on_turn: Any) -> list[str]:
        assert (Path(store), name) == (tmp_path, "s")
        if jobs:
            assert on_turn(0, jobs) is False
        return []

    monkeypatch.setattr("hpo.driver.finalise.finalise", finalise)
    return session._finish()


def test_a_stop_after_the_last_job_is_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finishing(tmp_path, monkeypatch, jobs=0) == "done"
    assert finishing(tmp_path, monkeypatch, jobs=1) == "stopped"


def test_a_flag_that_cannot_be_dropped_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(key: str) -> None:
        raise ConnectionError("Ray is gone")

    session = driver.Session(prepare(launch(tmp_path)), 8, None)
    session._job = SimpleNamespace(pause_key="key")  # type: ignore[assignment]
    monkeypatch.setattr("hpo.cluster.pause.drop_flag", gone)
    session._drop_flag()
    assert session.messages == ["the pause flag could not be taken back: ConnectionError: Ray is gone"]

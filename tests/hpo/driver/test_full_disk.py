"""A disk that fills up: the launch stops, can be resumed, and says how, no matter which file it was writing."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from hpo.cluster.connection import Cluster
from hpo.driver.ledger import KeptWeights
from hpo.driver.predictors import Round, Task
from hpo.driver.recorder import Recorder
from hpo.driver.selection import Pending
from hpo.worker.job import Job
from results import files
from results.store import Store
from tests.hpo.board import MemoryBoard
from tests.hpo.cli import hpo

OPTIONS = ("--base", "tiny", "--trials", "3", "--budget", "128", "--grace", "64", "--workers", "1", "--name", "s")


class Disk:
    """The disk of the store. It is full after `room` more files."""

    def __init__(self, genuine: Callable[[str, bytes], None]) -> None:
        self.room = 10**6
        self._genuine = genuine

    def write(self, path: str, content: bytes) -> None:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        self._genuine(path, content)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A cluster without Ray, whose only worker reports at every milestone, and a disk that may fill up."""
    filling = Disk(files._write_synced)

    @contextlib.contextmanager
    def connect(address: str | None) -> Iterator[Cluster]:
        yield Cluster(True, 1, 0, None)

    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_write_synced", filling.write)
    monkeypatch.setattr("hpo.driver.session.connect", connect)
    monkeypatch.setattr("hpo.driver.tune.fit", fit)
    monkeypatch.setattr("hpo.driver.finalise.finalise", lambda *arguments: {})
    monkeypatch.setattr("hpo.driver.running.Board", NoBoard)
    return filling


class NoBoard(MemoryBoard):
    """A launch whose workers are heard from by their results alone."""

    def __init__(self, key: str) -> None:
        super().__init__()

    def sign_of_life(self, tune_id: str) -> None:
        return None

    def clear(self) -> None:
        pass


def fit(recorder: Recorder, job: Any, resources: Any, on_turn: Callable[..., object], name: str) -> None:
    while assignments := recorder.issue():
        [assignment] = assignments
        for step in job.milestones:
            on_turn(1, list)
            report = {
                "trial": assignment.trial,
                "attempt": assignment.attempt,
                "kind": "report",
                "place": "here",
                "step": step,
                "examples": step,
                "overall": 0.5,
                "diverged": False,
                "paused": False,
                "scores": {"sst": 0.5},
            }
            if recorder.result(assignment.id, [report]) == [False]:
                break


def rows(store: Path) -> list[tuple[Any, ...]]:
    events = Store(store).open("s").events()
    return [(row["seq"], row["trial"], row.get("event"), row.get("step")) for row in events]


def test_a_disk_that_is_full_before_there_is_a_sweep_is_bad_input(tmp_path: Path, disk: Disk) -> None:
    disk.room = 0
    done = hpo("run", "quickstart", *OPTIONS, store=tmp_path / "runs")
    assert done.exit_code == 2, done.output
    assert "No space left on device; free some space" in done.stderr
    assert Store(tmp_path / "runs").sweeps() == []


def test_a_disk_that_fills_up_stops_the_launch_and_costs_nothing(tmp_path: Path, disk: Disk) -> None:
    """Every resume finds room for four more files, the first two of them its own generation's."""
    store = tmp_path / "runs"
    disk.room = 1  # the description of the sweep
    command: tuple[str, ...] = ("run", "quickstart", *OPTIONS)
    acknowledged: list[tuple[Any, ...]] = []
    stops = 0
    for _ in range(40):
        done = hpo(*command, store=store)
        durable = rows(store)
        assert durable[: len(acknowledged)] == acknowledged, "durable rows stay"
        acknowledged = durable
        if done.exit_code == 0:
            break
        text = " ".join(done.stdout.split())
        assert done.exit_code == 3, done.output
        assert "No space left on device" in text
        headline = next(line for line in done.stdout.splitlines() if line.startswith("s is stopped"))
        assert "running" not in headline, "what ran waits for a resume"
        assert f"Go on with: hpo resume s --store {store}" in text
        assert "Traceback" not in done.output
        command, stops = ("resume", "s"), stops + 1
        disk.room = 4
    assert stops > 3
    ends = [row for row in acknowledged if row[2] == "end"]
    assert {row[1] for row in ends} == {0, 1, 2}


def test_a_generation_that_cannot_be_claimed_is_resumable_too(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "generations")

    monkeypatch.setattr("hpo.driver.generations.claim", full)
    done = hpo("run", "quickstart", *OPTIONS, store=tmp_path)
    assert done.exit_code == 3, done.output
    assert "Go on with: hpo resume s" in done.stdout


def test_another_error_keeps_its_traceback(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("hpo.driver.tune.fit", broken)
    done = hpo("run", "quickstart", *OPTIONS, store=tmp_path)
    assert isinstance(done.exception, PermissionError)


def test_a_disk_that_fills_up_while_a_trial_predicts_stops_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(reference: object) -> None:
        raise RayTaskError("predict", "a traceback", reference)  # type: ignore[arg-type, no-untyped-call]

    pending = Pending(KeptWeights(0, 0, "checkpoints/0/0-900"), "held")
    monkeypatch.setattr("ray.get", get)
    full = OSError(errno.ENOSPC, "full")
    predictions = Round(Job(str(tmp_path), (900,)), [], lambda message: None)
    predictions._busy[full] = Task(None, pending, 0, 0.0)
    with pytest.raises(OSError, match="full"):
        predictions._collect(full)

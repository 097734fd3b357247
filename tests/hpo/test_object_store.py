"""A sweep in an object store: S3, played by moto's server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpo.driver import generations
from hpo.driver.generations import BusyError
from hpo.driver.ledger import Ledger
from hpo.driver.stopping import Halt, request_stop
from hpo.driver.weights import EndRow, Shelf
from hpo.worker import checkpoints, logs, trainer
from hpo.worker.job import Assignment, Job
from hpo.worker.logs import TrialLog
from hpo.worker.paths import checkpoint_folder
from hpo.worker.progress import StageFile, stages_of
from minbert.training.checkpoints import TrialCheckpointError
from results.files import Folder
from results.places import locate
from tests.minbert.configs import configure
from tests.minbert.conftest import make_corpus
from tests.results.places import Fault, Place, Proxy


@pytest.fixture
def sweep(s3: Place) -> Folder:
    return locate(s3.uri).child("s")


@pytest.fixture
def job(sweep: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    return Job(sweep.path, (100, 200), str(make_corpus(tmp_path / "corpus")), base="tiny")


def assignment(attempt: int = 0) -> Assignment:
    return Assignment(0, attempt, configure("adapter/kind=lora", "dropout/hidden=0.2").to_dict(), seed=1)


def test_an_interrupted_trial_ends_as_one_on_a_disk_that_was_not(
    job: Job, sweep: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Job(str(tmp_path / "s"), job.milestones, job.data, base=job.base)
    *_, whole = trainer.train(disk, assignment(), lambda: False)
    steps = iter([False] * 3 + [True])
    *_, paused = trainer.train(job, assignment(), lambda: next(steps))
    folder = checkpoint_folder(sweep, 0)
    assert paused.paused
    assert checkpoints.complete(folder) == [paused.checkpoint.rpartition("/")[2]]
    assert paused.checkpoint.startswith(f"{sweep.path}/checkpoints/0/0-")
    *_, last = trainer.train(job, assignment(1), lambda: False)
    assert (last.scores, last.checkpoint_sha256) == (whole.scores, whole.checkpoint_sha256)
    assert folder.folders() == ["1-200"], "older checkpoints are deleted"
    old = tmp_path / "cache" / "checkpoints" / "old"
    old.mkdir(parents=True)
    (old / "done.json").touch()
    os.utime(old / "done.json", (1e9, 1e9))
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "1")
    copy = checkpoints.local(folder, "1-200")
    assert not old.exists(), "a copy that is new makes room for itself"
    assert sorted(path.name for path in copy.iterdir()) == ["done.json", "trial.json", "weights.safetensors"]
    weights = (copy / "weights.safetensors").read_bytes()
    assert weights == Path(whole.checkpoint, "weights.safetensors").read_bytes()


def test_a_checkpoint_that_was_half_uploaded_is_none(job: Job, sweep: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = trainer.train(job, assignment(), lambda: False)
    assert next(reports).step == 100
    folder = checkpoint_folder(sweep, 0)
    genuine = type(folder).upload

    def fails(place: Any, name: str, source: Path) -> None:
        if name == "trial.json":
            raise OSError("the network is gone")
        genuine(place, name, source)

    monkeypatch.setattr(type(folder), "upload", fails)
    with pytest.raises(OSError, match="the network is gone"):
        next(reports)
    assert folder.folders() == ["0-100", "0-200"]
    assert checkpoints.complete(folder) == ["0-100"], "the checkpoint before stays"
    with pytest.raises(TrialCheckpointError, match=r"0-200 is not a complete trial checkpoint: done.json is missing"):
        checkpoints.local(folder, "0-200")


def test_losing_weights_go_in_a_thread_and_kept_ones_lose_their_state_of_training(sweep: Folder) -> None:
    ledger, shelf = Ledger(), Shelf(sweep, keep=1)
    for trial, value in ((1, 0.1), (2, 0.3)):
        ledger.feed({"trial": trial, "attempt": 0, "event": "start"})
        for step in (100, 300):
            folder = checkpoint_folder(sweep, trial).child(f"0-{step}")
            for name in ("weights.safetensors", "optimizer.safetensors", "done.json"):
                folder.write(name, b"{}")
            row = {"trial": trial, "attempt": 0, "step": step, "overall": value, "diverged": False}
            ledger.feed(row | {"checkpoint": folder.path})
        for end in shelf.end_rows(ledger, EndRow(trial, 0, "complete", "", folder.path)):
            ledger.feed({"event": "end", **vars(end)})
    assert shelf.reached(2) == 300
    shelf.tidy(ledger)
    assert shelf.tidied() == []
    assert sweep.child("checkpoints").folders() == ["2"]
    kept = checkpoint_folder(sweep, 2)
    assert (kept.folders(), kept.child("0-300").names()) == (["0-300"], ["done.json", "weights.safetensors"])


def test_weights_that_cannot_be_deleted_are_named(sweep: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, ledger = Shelf(sweep, keep=1), Ledger()
    def refuses(folder: Folder, name: str) -> None:
        raise PermissionError(13, "permission denied", f"{folder.path}/{name}")

    monkeypatch.setattr("hpo.driver.weights.delete", refuses)
    checkpoint_folder(sweep, 1).child("0-1").write("done.json", b"{}")
    ledger.feed({"trial": 1, "attempt": 0, "event": "start"})
    ledger.feed({"trial": 1, "attempt": 0, "event": "end", "state": "failed", "reason": "", "checkpoint": None})
    shelf.tidy(ledger)
    assert shelf.tidied() == [f"{sweep.path}/checkpoints/1: permission denied"]
    assert shelf.tidied() == []
    monkeypatch.setattr("hpo.driver.weights.delete", None)
    shelf.tidy(ledger)
    shelf.tidy(ledger, [])
    with pytest.raises(TypeError, match="not callable"):
        shelf.tidied()


def test_one_driver_a_sweep(sweep: Folder) -> None:
    first = generations.claim(sweep, trials=12)
    with pytest.raises(BusyError, match=rf"'s' is being worked on by process {os.getpid()}"):
        generations.claim(sweep)
    request_stop(sweep)
    assert Halt(sweep, None, since=first.began).reason == "stop was requested"
    assert not sweep.exists("stop-request")
    first.end()
    assert generations.active(sweep) is None
    assert generations.total_trials(8, sweep) == 12
    second = generations.claim(sweep)
    assert second.number == 2
    second.end()


def test_a_heartbeat_makes_a_claim_young(sweep: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "BEAT", 0.1)
    generation = generations.claim(sweep)
    folder = sweep.child("generations")
    end = time.monotonic() + 30
    while folder.changed("000001.json") <= generation.began:
        assert time.monotonic() < end, "no heartbeat came"
        time.sleep(0.1)
    assert json.loads(folder.read("000001.json"))["pid"] == os.getpid(), "a heartbeat changes nothing else"
    generation.end()


def test_a_log_grows_while_its_trial_runs_and_over_attempts(sweep: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "UPLOAD", 0.05)
    folder, log = sweep.child("logs"), TrialLog(sweep, 0)
    for text in (b"first\n", b"second\n"):
        log.open()
        os.write(1, text)
        end = time.monotonic() + 30
        while not (folder.exists("0.log") and text in folder.read("0.log")) and time.monotonic() < end:
            time.sleep(0.02)
        log.close()
        assert folder.read("0.log").endswith(text)
    assert folder.read("0.log") == b"first\nsecond\n"


def test_the_progress_of_a_stage_is_seen(sweep: Folder) -> None:
    file = StageFile(sweep, 3)
    file("mlm", 2, 10)
    assert {trial: tuple(stage) for trial, stage in stages_of(sweep, [2, 3]).items()} == {3: ("mlm", 2, 10)}
    file.close()
    assert stages_of(sweep, [3]) == {}


def hpo(store: str, *command: str, rc: int = 0) -> str:
    """Run a command in a process of its own; returns its standard output."""
    whole = [sys.executable, "-m", "hpo", *command, "--store", store]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_on_s3_survives_requests_that_fail_and_a_killed_driver(
    s3: Place, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real training, real Ray, command by command; the store refuses one request in ten."""
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    count = iter(range(10**9))
    proxy.faults.append(Fault(lambda method, path: next(count) % 10 == 9, forward=False, status=503, times=10**9))
    size = ["--trials", "4", "--budget", "40000", "--workers", "2", "--repeats", "0"]
    command = [sys.executable, "-m", "hpo", "run", "quickstart", "--base", "tiny", *size]
    command += ["--name", "s", "--store", s3.uri]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    folder = checkpoint_folder(locate(s3.uri).child("s"), 0)
    end = time.monotonic() + 200
    while not checkpoints.complete(folder) and time.monotonic() < end and driver.poll() is None:
        time.sleep(0.5)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert checkpoints.complete(folder), driver.stdout and driver.stdout.read()
    hpo(s3.uri, "resume", "s")
    status = json.loads(hpo(s3.uri, "status", "s", "--json"))
    assert status["phase"] == "done"
    assert "resuming from" in hpo(s3.uri, "logs", "s", "0")
    best = json.loads(hpo(s3.uri, "top", "s", "--json"))[0]["trial"]
    hpo(s3.uri, "predict", "s", "--trial", str(best), "--out", str(tmp_path / "predictions"))
    assert len(list((tmp_path / "predictions").iterdir())) == 6
    hpo(s3.uri, "export", "s", str(best), str(tmp_path / "model"))
    assert (tmp_path / "model" / "model.safetensors").is_file()
    hpo(s3.uri, "ensemble", "s", "--method", "top-k", "--size", "2", "--name", "two")
    hpo(s3.uri, "gc")
    hpo(s3.uri, "rm", "s", "--yes")
    assert locate(s3.uri).folders() == []



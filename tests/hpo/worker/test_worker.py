"""The worker: results of a step, errors, logs, and that a used process trains as a new one."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from hpo.cluster.connection import Cluster
from hpo.cluster.processes import host
from hpo.cluster.resources import Resources
from hpo.worker import worker
from hpo.worker.job import Assignment, Job, assignments_from_json, assignments_to_json
from hpo.worker.logs import TrialLog
from hpo.worker.worker import EVIDENCE, RESULT, Worker, results_of
from results.fences import CLAIMS, claim_name
from results.places import locate
from tests.hpo.conftest import calls, script
from tests.minbert.configs import configure

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = pytest.mark.timeout(400)

CONFIG = configure().to_dict()


def settings(job: Job, trial: int = 0, attempt: int = 0, config: dict[str, Any] | None = None) -> dict[str, str]:
    assignment = Assignment(trial, attempt, config or CONFIG, seed=5 + trial)
    return {"job": job.to_json(), "assignments": assignments_to_json([assignment])}


def fake_job(folder: Path) -> Job:
    return Job(str(folder), (100, 300), trainer="tests.hpo.fakes")


@pytest.fixture
def trainable(tmp_path: Path) -> Iterator[Worker]:
    trainable = Worker(config=settings(fake_job(tmp_path)))
    yield trainable
    trainable.cleanup()


def step(trainable: Worker) -> dict[str, Any]:
    result: dict[str, Any]
    [result] = results_of(trainable.step())
    return result


def test_a_job_and_its_assignments_survive_json(tmp_path: Path) -> None:
    values = {"data": "d", "base": "tiny", "report_rows": ({"sst": 5}, {"sst": 9}), "memory_limit": 7}
    job = Job(str(tmp_path), (1, 3), resources=Resources(3, 2, 0.5), **values)
    assert Job.from_json(job.to_json()) == job
    assignments = [Assignment(3, 1, CONFIG, 9, alone=True, avoid=("a", "b GPU 1")), Assignment(4, 0, CONFIG, 10)]
    assert assignments_from_json(assignments_to_json(assignments)) == assignments
    assert assignments[0].id == "3-1"


def test_setup_and_reset_write_nothing(tmp_path: Path, trainable: Worker) -> None:
    assert trainable.reset_config(settings(fake_job(tmp_path), trial=1)) is True
    assert list(tmp_path.iterdir()) == []
    assert step(trainable)["step"] == 100
    assert calls(tmp_path)[0][0] == 1


def test_a_step_is_a_report_and_none_says_done(tmp_path: Path, trainable: Worker) -> None:
    for milestone in (100, 300):
        result = trainable.step()
        assert set(result) == {RESULT, EVIDENCE}
        assert "evidence" not in json.loads(result[RESULT])[0]
        [report] = results_of(result)
        assert report["evidence"].keys() == {"sst", "qqp", "sts"}
        assert (report["kind"], report["step"], report["pid"]) == ("report", milestone, os.getpid())
        assert (report["trial"], report["attempt"]) == (0, 0)


def test_an_exception_becomes_a_failure_with_its_traceback(tmp_path: Path, trainable: Worker) -> None:
    script(tmp_path, {0: {"kind": "raise", "at": 0}})
    result = step(trainable)
    assert (result["kind"], result["exits"], result["cause"]) == ("failure", False, "raised")
    assert result["place"] == host()
    assert result["reason"] == "ValueError: a fault from the script"
    assert "in _fail" in result["error"]


def test_a_machine_without_the_sweep_s_store_fails_and_writes_nothing(tmp_path: Path) -> None:
    """The path may be there, with what an earlier driver left or was copied: the newest driver's claim tells."""
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / claim_name(1)).touch()
    (tmp_path / "sweep.json").touch()
    before = sorted(tmp_path.rglob("*"))
    job = replace(fake_job(tmp_path), generation=2)
    trainable = Worker(config=settings(job))
    result = step(trainable)
    assert (result["kind"], result["cause"], result["exits"]) == ("failure", "place", False)
    assert result["reason"] == (
        f"FileNotFoundError: {host()} does not reach the sweep's store: {tmp_path}/generations/000002.json, which the "
        "driver has written, is not there. Mount the store at the same path as on the driver's machine"
    )
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / CLAIMS / claim_name(2)).touch()
    trainable.reset_config(settings(job))
    assert step(trainable)["step"] == 100
    trainable.cleanup()


def test_training_that_ends_too_early_is_a_failure(tmp_path: Path, trainable: Worker) -> None:
    step(trainable)
    step(trainable)
    assert "without a report at its last milestone" in step(trainable)["reason"]


def test_after_running_out_of_memory_the_next_step_exits(trainable: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object) -> Iterator[object]:
        raise MemoryError
        yield

    monkeypatch.setattr("tests.hpo.fakes.train", train)
    exits: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", exits.append)
    result = step(trainable)
    assert (result["reason"], result["exits"], result["cause"]) == ("out of memory", True, "memory")
    trainable.step()
    assert exits == [worker.EXIT_CODE]


def test_a_pause_before_the_beginning_needs_no_model(
    tmp_path: Path, trainable: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "_pause", Asked())
    result = step(trainable)
    assert (result["kind"], result["exits"]) == ("paused", False)
    assert list(tmp_path.iterdir()) == []


class Asked:
    """A `Poll` that was asked to pause: after so many calls, and because the node leaves or not."""

    def __init__(self, calls: int = 0, leaves: bool = False) -> None:
        self._calls, self._why = calls, leaves

    def __call__(self) -> bool:
        self._calls -= 1
        return self._calls < 0

    @property
    def leaves(self) -> bool:
        return self._why and self._calls < 0


@pytest.mark.parametrize("calls", [0, 3])
def test_a_worker_whose_node_leaves_pauses_its_trial_and_exits(
    trainable: Worker, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", exits.append)
    monkeypatch.setattr(trainable, "_pause", Asked(calls, leaves=True))
    result = step(trainable)
    assert (result["kind"], result.get("paused"), result["exits"]) == (
        ("report", True, True) if calls else ("paused", None, True)
    )
    assert exits == []
    monkeypatch.setattr(trainable, "_pause", Asked(9))
    trainable.step()
    assert exits == [worker.EXIT_CODE]


def test_an_assignment_is_declined_where_its_trial_was_lost_and_at_a_closed_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(worker, "IDLE", 0.0)
    closed: list[tuple[str, str]] = []
    monkeypatch.setattr(worker, "is_closed", lambda *asked: asked in closed)
    job = replace(fake_job(tmp_path), resources=Resources(gpus_per_trial=1.0))
    here = f"{host()} GPU 3"
    for avoid, kind in (((f"{host()} GPU 30", "b"), "report"), ((here,), "declined"), ((host(),), "declined")):
        trainable = Worker(config=settings(job) | {"assignments": assignments_to_json([
            Assignment(0, 0, CONFIG, 5, avoid=avoid)])})  # fmt: skip
        result = step(trainable)
        assert (result["kind"], result["place"]) == (kind, here)
        trainable.cleanup()
    closed.append(("", here))
    trainable = Worker(config=settings(job))
    assert [step(trainable)["kind"] for _ in range(3)] == ["declined"] * 3
    closed.clear()
    assert step(trainable)["kind"] == "declined", "its trial was given back"
    trainable.reset_config(settings(job, trial=1))
    assert step(trainable)["kind"] == "report"
    trainable.cleanup()
    assert [call[0] for call in calls(tmp_path)] == [0, 1]


def test_a_trial_alone_gets_a_whole_gpu(tmp_path: Path) -> None:
    shared = replace(fake_job(tmp_path), resources=Resources(gpus_per_trial=0.25))
    assert [shared.for_trial(alone).resources.gpus_per_trial for alone in (False, True)] == [0.25, 1.0]
    for gpus in (0.0, 2.0):
        job = replace(shared, resources=Resources(gpus_per_trial=gpus))
        assert job.for_trial(alone=True) == job


def test_a_log_holds_all_output_and_the_streams_are_restored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = TrialLog(locate(tmp_path), 0)
    for _ in range(2):
        log.open()
        os.write(1, b"printed\n")
        os.write(2, b"written\n")
        logging.getLogger("some.library").info("logged")
        log.close()
        log.close()
        os.write(1, b"outside\n")
    text = (tmp_path / "logs" / "0.log").read_text()
    assert [text.count(word) for word in ("printed", "written", "INFO some.library: logged")] == [2, 2, 2]
    assert "outside" not in text
    assert capfd.readouterr().out == "outside\noutside\n"


def test_a_used_worker_trains_as_a_fresh_one(ray_cluster: Cluster, tmp_path: Path) -> None:
    """Trained for real, bit for bit: nothing of trial 0 (LoRA, dropout, batch size) is left when trial 1 begins."""
    lora = configure("adapter/kind=lora", "adapter/rank=4", "dropout/hidden=0.3", "batch_size/sst=8").to_dict()
    rows = ({"sst": 20}, {"sst": 40})
    jobs = [Job(str(tmp_path / name), (96, 192), base="tiny", report_rows=rows) for name in ("used", "fresh")]

    @ray.remote(num_cpus=1)
    def fresh() -> list[Any]:
        trainable = Worker(config=settings(jobs[1], 1))
        return [trainable.step() for _ in range(2)]

    @ray.remote(num_cpus=1)
    def used() -> list[Any]:
        trainable = Worker(config=settings(jobs[0], 0, config=lora))
        trainable.step()
        trainable.reset_config(settings(jobs[0], 1))
        return [trainable.step() for _ in range(2)]

    results = ray.get([used.remote(), fresh.remote()])
    from_used, from_fresh = ([json.loads(result[RESULT])[0] for result in steps] for steps in results)
    assert [report.get("error") for report in from_used] == [None, None]
    for name in ("overall", "scores", "losses", "examples", "checkpoint_sha256"):
        assert [report[name] for report in from_used] == [report[name] for report in from_fresh], name

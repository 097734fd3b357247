"""The worker: what a step returns, what stays warm, what a trial leaves behind."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from safetensors import SafetensorError
from safetensors.torch import save_file

from hpo.cluster.connection import Cluster
from hpo.cluster.resources import Resources
from hpo.worker import worker
from hpo.worker.job import Assignment, Job, assignments_from_json, assignments_to_json
from hpo.worker.logs import TrialLog
from hpo.worker.worker import RESULT, Worker, is_fatal, is_of_the_place, is_out_of_memory
from tests.hpo.conftest import calls, script
from tests.minbert.configs import configure

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(400)]

CONFIG = configure().to_dict()


def settings(job: Job, trial: int = 0, attempt: int = 0, config: dict[str, Any] | None = None) -> dict[str, str]:
    assignment = Assignment(trial, attempt, config or CONFIG, seed=5 + trial)
    return {"job": job.to_json(), "assignments": assignments_to_json([assignment])}


def fake_job(folder: Path) -> Job:
    return Job(str(folder), (100, 300), trainer="tests.hpo.fakes")


@pytest.fixture
def trainable(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(config=settings(fake_job(tmp_path)))
    yield made
    made.cleanup()


def step(trainable: Worker) -> dict[str, Any]:
    result: dict[str, Any]
    [result] = json.loads(trainable.step()[RESULT])
    return result


def test_a_job_and_an_assignment_survive_their_journey(tmp_path: Path) -> None:
    about = {"data": "d", "base": "tiny", "search_sizes": {"sst": 5}, "memory_limit": 7}
    job = Job(str(tmp_path), (1, 3), resources=Resources(3, 2, 0.5), **about)
    assignment = Assignment(3, 1, CONFIG, 9)
    assert Job.from_json(job.to_json()) == job
    other = Assignment(4, 0, CONFIG, 10)
    assert assignments_from_json(assignments_to_json([assignment, other])) == [assignment, other]
    assert assignment.id == "3-1"


def test_setting_up_and_resetting_touch_nothing(tmp_path: Path, trainable: Worker) -> None:
    assert trainable.reset_config(settings(fake_job(tmp_path), trial=1)) is True
    assert list(tmp_path.iterdir()) == []
    assert step(trainable)["step"] == 100
    assert calls(tmp_path)[0][0] == 1


def test_a_step_is_a_report_and_none_says_done(tmp_path: Path, trainable: Worker) -> None:
    for milestone in (100, 300):
        result = trainable.step()
        assert set(result) == {RESULT}
        [report] = json.loads(result[RESULT])
        assert (report["kind"], report["step"], report["pid"]) == ("report", milestone, os.getpid())
        assert (report["trial"], report["attempt"]) == (0, 0)


def test_an_exception_becomes_a_failure_with_its_traceback(tmp_path: Path, trainable: Worker) -> None:
    script(tmp_path, {0: {"kind": "raise", "at": 0}})
    result = step(trainable)
    assert (result["kind"], result["fatal"], result["place"]) == ("failure", False, False)
    assert result["reason"] == "ValueError: a fault from the script"
    assert "in _fail" in result["error"]


def full_disk() -> list[BaseException]:
    plain = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("the checkpoint could not be written")
    wrapped.__cause__ = plain
    errors: list[BaseException] = [plain, wrapped]
    try:
        with Path("/dev/full").open("wb") as device:  # as a checkpoint's JSON meets it
            device.write(b"x" * 2**16)
    except OSError as error:
        errors.append(error)
    errors.append(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    return errors


def test_contract_safetensors_tells_the_number_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match=rf"\(os error {errno.ENOENT}\)"):
        save_file({}, tmp_path / "absent" / "file")


@pytest.mark.parametrize("error", full_disk(), ids=lambda error: type(error).__name__)
def test_a_full_disk_is_not_the_trial_s_fault(error: BaseException) -> None:
    assert is_of_the_place(error)


@pytest.mark.parametrize("error", [ValueError("28"), FileNotFoundError(errno.ENOENT, "x"), OSError("os error 28")])
def test_what_may_be_the_trial_s_own_fault(error: BaseException) -> None:
    assert not is_of_the_place(error)


def test_training_that_ends_too_early_is_a_failure(tmp_path: Path, trainable: Worker) -> None:
    step(trainable)
    step(trainable)
    assert "without a report at its last milestone" in step(trainable)["reason"]


def test_after_running_out_of_memory_the_next_step_leaves(trainable: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def out(*_: object) -> Iterator[object]:
        raise MemoryError
        yield

    monkeypatch.setattr("tests.hpo.fakes.train", out)
    left: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", left.append)
    result = step(trainable)
    assert (result["reason"], result["fatal"]) == ("out of memory", True)
    trainable.step()
    assert left == [worker.EXIT_CODE]


def test_a_pause_before_the_beginning_needs_no_model(
    tmp_path: Path, trainable: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "_pause", lambda: True)
    assert step(trainable)["kind"] == "paused"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "memory", "fatal"),
    [
        (MemoryError(), True, True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4096 bytes"), True, True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("The size of tensor a (3) must match"), False, False),
        (ValueError("out of memory lane"), False, False),
    ],
)
def test_errors_are_told_apart(error: BaseException, memory: bool, fatal: bool) -> None:
    assert (is_out_of_memory(error), is_fatal(error)) == (memory, fatal)


def test_a_log_takes_all_that_is_printed_and_gives_the_streams_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = TrialLog(tmp_path / "logs" / "0.log")
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
    """Bitwise, on the real core: nothing of trial 0 (LoRA, dropout, batch size) is left when trial 1 begins."""
    other = configure("adapter/kind=lora", "adapter/rank=4", "dropout/hidden=0.3", "batch_size/sst=8").to_dict()
    jobs = [Job(str(tmp_path / name), (96, 192), base="tiny", search_sizes={"sst": 20}) for name in ("used", "fresh")]

    @ray.remote(num_cpus=1)
    def fresh() -> list[Any]:
        trainable = Worker(config=settings(jobs[1], 1))
        return [trainable.step() for _ in range(2)]

    @ray.remote(num_cpus=1)
    def used() -> list[Any]:
        trainable = Worker(config=settings(jobs[0], 0, config=other))
        trainable.step()
        trainable.reset_config(settings(jobs[0], 1))
        return [trainable.step() for _ in range(2)]

    both = ray.get([used.remote(), fresh.remote()])
    first, second = ([json.loads(result[RESULT])[0] for result in results] for results in both)
    assert [report.get("error") for report in first] == [None, None]
    for name in ("overall", "scores", "losses", "examples", "checkpoint_sha256"):
        assert [report[name] for report in first] == [report[name] for report in second], name

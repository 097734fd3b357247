"""Final predictions on a cluster that has less room than asked for, and with actors that hang, die or fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from hpo.cluster.connection import Cluster
from hpo.cluster.resources import Resources
from hpo.driver import predictors
from hpo.driver.finalise import finalise
from hpo.driver.ledger import KeptWeights
from hpo.driver.predictors import RETRIES, Predictor, Round, Task
from hpo.driver.selection import Pending
from hpo.worker.job import Job
from results.predictions import predicted
from results.store import Store, SweepFolder
from tests.hpo.stored import record

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = pytest.mark.timeout(400)


def made(store: Path, trials: int) -> tuple[SweepFolder, list[Pending]]:
    """A sweep with kept weights of the fake trainer, and a prediction to make with each."""
    folder = Store(store).create("s", record("s", trials).to_json())
    pending = []
    for trial in range(trials):
        path = folder.path / "checkpoints" / str(trial) / "0-900"
        path.mkdir(parents=True)
        (path / "done.json").write_text(json.dumps({"overall": 0.5}))
        pending.append(Pending(KeptWeights(trial, 0, str(path)), "held"))
    return folder, pending


def job_for(folder: SweepFolder, workers: int) -> Job:
    return Job(str(folder.path), (900,), trainer="tests.hpo.fakes", resources=Resources(workers))


@ray.remote
class Other:
    """Somebody else's actor."""

    def here(self) -> None:
        pass


def occupy(cpus: int) -> Any:
    """An actor that holds CPUs of the cluster, as a lost host would."""
    other = Other.options(num_cpus=cpus).remote()  # type: ignore[attr-defined]
    ray.get(other.here.remote())
    return other


def test_one_cpu_of_two_makes_all_predictions(ray_cluster: Cluster, tmp_path: Path) -> None:
    folder, pending = made(tmp_path, 3)
    other = occupy(1)
    try:
        assert finalise(job_for(folder, workers=2), pending, lambda left: True, lambda message: None) == {}
    finally:
        ray.kill(other)
    assert predicted(folder).keys() == {0, 1, 2}


def test_a_full_cluster_is_waited_for_with_a_message(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictors, "LOOK", 0.5)
    folder, pending = made(tmp_path, 1)
    other, messages = occupy(2), []

    def tell(message: str) -> None:
        messages.append(message)
        ray.kill(other)

    assert finalise(job_for(folder, workers=2), pending, lambda left: True, tell) == {}
    assert messages[0] == (
        "the final predictions wait for a worker to start: it needs 1 CPU on one machine, and 0 CPUs are free in all"
    )
    assert predicted(folder).keys() == {0}


def test_a_prediction_that_hangs_is_given_to_another_actor(ray_cluster: Cluster, tmp_path: Path) -> None:
    folder, pending = made(tmp_path, 1)
    slow = folder.path / "slow_predictions.json"
    slow.write_text("3600")
    messages: list[str] = []

    def tell(message: str) -> None:
        messages.append(message)
        slow.unlink(missing_ok=True)

    def on_turn(left: int) -> bool:
        return True

    assert finalise(job_for(folder, workers=1), pending, on_turn, tell, limit=3.0) == {}
    assert messages[0] == "the prediction of trial 0 has taken 0 minutes: its worker is killed"
    assert predicted(folder).keys() == {0}


class Stage:
    """A round whose actors and answers are made up: an answer is an exception, or None."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, workers: int) -> None:
        entries = [Pending(KeptWeights(trial, 0, "0-900"), "held") for trial in range(trials)]
        self.round = Round(Job(str(tmp_path), (900,), resources=Resources(workers)), entries, lambda message: None)
        self.killed: list[int] = []
        self.answers: dict[int, Exception | None] = {}
        self._references = 0
        monkeypatch.setattr(ray, "get", self._get)
        monkeypatch.setattr(ray, "kill", self.killed.append)

    def actor(self, answer: Callable[[int], Exception | None]) -> SimpleNamespace:
        def predict(trial: int, *_: object) -> int:
            self._references += 1
            self.answers[self._references] = answer(trial)
            return self._references

        return SimpleNamespace(predict=SimpleNamespace(remote=predict))

    def _get(self, reference: int) -> None:
        if error := self.answers[reference]:
            raise error

    def tasks(self) -> list[Task]:
        return list(self.round._busy.values())

    def collect(self, task: Task) -> None:
        [reference] = [reference for reference, other in self.round._busy.items() if other is task]
        self.round._collect(reference)


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("predict", f"Traceback\n{cause!r}", cause)  # type: ignore[no-untyped-call]


def test_a_faulty_place_keeps_its_actor_without_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, trials=2, workers=2)
    broken = stage.actor(lambda trial: task_error(RuntimeError("CUDA error: uncorrectable ECC error")))
    healthy = stage.actor(lambda trial: None)
    for actor in (broken, healthy):
        stage.round._hand_out(actor)
    for actor in (broken, healthy, healthy):
        stage.collect(next(task for task in stage.tasks() if task.actor is actor))
    assert stage.round._kept == [broken]
    assert (stage.round._todo, stage.tasks(), stage.round._problems) == ([], [], {})
    assert stage.killed == [healthy], "it ended after the last prediction"


def test_an_error_is_the_trial_s_and_a_death_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, trials=2, workers=1)
    monkeypatch.setattr(stage.round, "_start_actors", lambda: None)
    damaged = {0: task_error(ValueError("the checkpoint is damaged")), 1: ActorDiedError()}
    for _ in range(RETRIES + 1):
        stage.round._hand_out(stage.actor(damaged.get))
        while stage.tasks():
            stage.collect(stage.tasks()[0])
    assert stage.round._problems == {
        0: "trial 0 could not predict: ValueError('the checkpoint is damaged')",
        1: "trial 1 could not predict: The actor died unexpectedly before finishing this task.",
    }


class Stuck(Predictor):
    """An actor that hangs while it opens the store, unless a file `healthy` is there."""

    def __init__(self, job: str, store: str, name: str) -> None:
        if not (Path(store) / "healthy").exists():
            time.sleep(3600)
        super().__init__(job, store, name)


def test_an_actor_that_hangs_while_it_starts_is_replaced(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictors, "LOOK", 0.2)
    monkeypatch.setattr(predictors, "START", 0.5)
    monkeypatch.setattr(predictors, "Predictor", Stuck)
    folder, pending = made(tmp_path, 1)
    messages: list[str] = []

    def tell(message: str) -> None:
        if "wait for a worker" not in message:  # its process needs a moment
            messages.append(message)
            (tmp_path / "healthy").touch()
            monkeypatch.setattr(predictors, "START", 300.0)

    assert finalise(job_for(folder, workers=1), pending, lambda left: True, tell) == {}
    assert messages == ["a worker for the final predictions did not start in 0 minutes: it is killed"]
    assert predicted(folder).keys() == {0}


def test_a_cluster_where_no_actor_can_live_is_given_up(ray_cluster: Cluster, tmp_path: Path) -> None:
    _, pending = made(tmp_path / "here", 2)
    job = Job(str(tmp_path / "elsewhere" / "s"), (900,), trainer="tests.hpo.fakes", resources=Resources(2))
    problems = finalise(job, pending, lambda left: True, lambda message: None)
    assert problems.keys() == {0, 1}
    assert "could not predict: " in problems[0]

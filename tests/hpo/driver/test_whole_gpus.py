"""A trial that ran out of memory on a shared GPU gets a whole one, or an answer in bounded time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from hpo.cluster.connection import Cluster
from hpo.cluster.machines import Room
from hpo.cluster.resources import Resources
from hpo.driver import session, tune, whole_gpus
from hpo.driver.whole_gpus import PATIENCE, QUIET, WholeGpus
from results.store import Store
from tests.hpo.conftest import calls, launch, script
from tests.hpo.driver.test_recorder import Bench

HALF = Resources(2, 1, 0.5)


class Wait:
    """An attempt that waits on a machine where half a GPU is free."""

    def __init__(self, resources: Resources = HALF) -> None:
        self.messages: list[str] = []
        self.placed: set[str] = set()
        room = Room(((4.0, 1.0),), ((3.0, 0.5),))
        self.gpus = WholeGpus(resources, lambda: room, self.messages.append)

    def follow(self, now: float) -> str | None:
        return self.gpus.follow(lambda: self.placed, now)


def test_a_wait_says_for_what_and_ends_after_its_time() -> None:
    wait = Wait()
    assert wait.gpus.needed(out_of_memory=True)
    assert not wait.gpus.needed(out_of_memory=False)
    wait.gpus.started("7-1")
    assert [wait.follow(now) for now in (5.0, 5.0 + QUIET)] == [None, None]
    assert wait.messages == []
    assert [wait.follow(now) for now in (6.0 + QUIET, 5.0 + PATIENCE)] == [None, None]
    assert wait.messages == [
        "attempt 7-1 waits for a GPU to itself, as its trial ran out of memory: it needs 1 CPU and 1 GPU on one "
        "machine, and 3 CPUs and 0.5 GPUs are free in all; no other trial starts meanwhile, for at most 30 minutes"
    ]
    assert wait.follow(6.0 + PATIENCE) == "7-1"
    wait.gpus.ended("7-1")
    assert wait.gpus.waiting is None
    assert not wait.gpus.needed(out_of_memory=True)
    assert wait.messages[1:] == [
        "attempt 7-1 got no GPU to itself in 30 minutes: in this launch, trials that run out of memory are tried again "
        "on shared GPUs from now on"
    ]


def test_the_time_in_which_another_one_has_the_gpu_does_not_count() -> None:
    wait = Wait()
    wait.gpus.started("1-1")
    wait.placed = {"1-1", "4-0"}
    assert wait.follow(0.0) is None
    assert wait.gpus.waiting is None, "it has its GPU"
    wait.gpus.started("2-1")
    for now in (0.0, PATIENCE, 2 * PATIENCE):
        assert wait.follow(now) is None
    wait.gpus.ended("1-1")
    wait.placed = {"4-0"}
    assert wait.follow(3 * PATIENCE - 1) is None
    assert wait.follow(3 * PATIENCE + 1) == "2-1"


@pytest.mark.parametrize("gpus", [0.0, 1.0, 2.0])
def test_who_shares_no_gpu_waits_for_none(gpus: float) -> None:
    assert not Wait(Resources(2, 1, gpus)).gpus.needed(out_of_memory=True)


def out_of_memory(bench: Bench, tune_id: str) -> None:
    bench.board.places[tune_id] = "here GPU 0"
    bench.result(tune_id, kind="failure", cause="memory", reason="out of memory", error="", exits=True)


def test_no_other_trial_starts_before_the_one_that_waits(tmp_path: Path) -> None:
    wait = Wait()
    bench = Bench(tmp_path, trials=8, workers=3, whole_gpus=wait.gpus)
    first = [bench.recorder.issue()[0] for _ in range(3)]
    out_of_memory(bench, "1-0")
    [again] = bench.recorder.issue()
    assert (again.id, again.alone, again.avoid) == ("1-1", True, ())
    bench.report("0-0", 300, 0.5)
    assert bench.recorder.issue() == []
    wait.placed = {"1-1", "2-0"}
    wait.follow(0.0)
    assert [assignment.id for assignment in bench.recorder.issue()] == ["3-0"]
    assert not any(assignment.alone for assignment in first)


def test_an_attempt_that_is_taken_back_costs_its_trial_nothing_and_is_shared_again(tmp_path: Path) -> None:
    wait = Wait()
    bench = Bench(tmp_path, workers=2, whole_gpus=wait.gpus)
    for _ in range(2):
        bench.recorder.issue()
    out_of_memory(bench, "0-0")
    bench.writer.due = False
    assert [[a.id for a in bench.recorder.issue()] for _ in range(2)] == [[], []], "its row is not durable yet"
    wait.follow(0.0)
    assert wait.follow(PATIENCE + 1) == "0-1"
    bench.recorder.take_back("0-1", "no GPU to itself")
    bench.writer.due = True
    [again] = bench.recorder.issue()
    assert (again.id, again.alone) == ("0-2", False)
    rows = [(row["attempt"], row["state"], row["reason"]) for row in bench.writer.rows if row.get("event") == "end"]
    assert rows == [(0, "lost", "out of memory"), (1, "paused", "no GPU to itself")]
    out_of_memory(bench, "0-2")
    assert bench.sweep.records[0].state == "failed"


def test_a_trial_without_a_process_leaves_tune_s_queue() -> None:
    """And with it the place that Tune keeps for its worker: workers of other trials would not be kept."""
    trials = {name: SimpleNamespace(trial_id=name) for name in ("1-1", "2-0")}
    left: list[Any] = []
    controller = SimpleNamespace(
        _trial_to_actor={}, _actor_manager=SimpleNamespace(_live_actors_to_ray_actors_resources={}, num_live_actors=0),
        _pending_trials=list(trials.values()), _staged_trials=[trials["1-1"]],
        stop_trial=left.append, _unstage_trial_with_resources=left.append,
    )  # fmt: skip
    judge = tune.scheduler(SimpleNamespace(), [])  # type: ignore[arg-type]
    judge._controller = controller
    turn = tune.turn_callback(lambda held, placed: ["1-1"], judge, [])
    turn.on_step_begin(0, [])
    assert left == [trials["1-1"]] * 2


@ray.remote
class Other:
    """Somebody else's actor."""

    def here(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("others", [1.0, 1.5])
def test_out_of_memory_on_a_shared_gpu_is_tried_alone_amid_a_search(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: float
) -> None:
    """Of the cluster's two GPUs, which are numbers, another job has one, or one and a half: then none becomes free."""
    monkeypatch.setattr("hpo.launch.prepare.local_gpus", lambda: 2)
    monkeypatch.setattr(whole_gpus, "QUIET", 0.2)
    if others > 1:
        monkeypatch.setattr(whole_gpus, "PATIENCE", 4.0)
    actors = [Other.options(num_cpus=0, num_gpus=part).remote() for part in (1.0, others - 1) if part]  # type: ignore
    ray.get([actor.here.remote() for actor in actors])
    try:
        script(tmp_path / "s", {1: {"kind": "memory", "at": 0, "attempts": [0]}}, slow=0.1)
        outcome = session.run(launch(tmp_path, trials=8, workers=2, gpus_per_trial=0.5, scheduler="none", grace=None))
    finally:
        for actor in actors:
            ray.kill(actor)
    assert outcome.state == "done"
    messages = [message for message in outcome.snapshot.messages if "a GPU to itself" in message]
    assert messages[0].startswith("attempt 1-1 waits for a GPU to itself"), outcome.snapshot.messages
    rows = [row for row in Store(tmp_path).open("s").events() if row.get("event") == "end"]
    assert [row["state"] for row in rows if row["trial"] != 1] == ["complete"] * 7
    states = [(row["attempt"], row["state"]) for row in rows if row["trial"] == 1]
    began = [call[0] for call in calls(tmp_path / "s")]
    if others > 1:
        assert states == [(0, "lost"), (1, "paused"), (2, "complete")]
    else:
        assert states == [(0, "lost"), (1, "complete")]
        assert max(place for place, trial in enumerate(began) if trial == 1) <= 4, "not at the end of the search"

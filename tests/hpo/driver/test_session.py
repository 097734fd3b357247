"""Whole sweeps on Ray with a trainer that needs no model: what runs, what is recorded, which weights are kept."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.connection import Cluster
from hpo.cluster.resources import ResourceRequest
from hpo.driver import session, tune
from hpo.driver.ledger import Ledger
from hpo.driver.quarantines import quarantines
from hpo.driver.selection import still_needed
from hpo.driver.stopping import Halt
from hpo.driver.watchdog import START, Watchdog
from hpo.search.snapshot import Snapshot
from hpo.worker.job import Job
from hpo.worker.worker import EVIDENCE, RESULT, Worker
from results.candidates import last_evidence
from results.store import Store
from tests.hpo.conftest import FAKES, calls, launch, script
from tests.hpo.fakes import SPLITS

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = pytest.mark.timeout(400)


def ends(store: Path, name: str = "s") -> dict[int, str]:
    """State of every trial by its last end row."""
    rows = Store(store).open(name).events()
    return {row["trial"]: row["state"] for row in rows if row.get("event") == "end"}


def test_a_sweep_runs_records_and_predicts(ray_cluster: Cluster, tmp_path: Path) -> None:
    snapshots: list[Snapshot] = []
    outcome = session.run(launch(tmp_path, workers=2, keep=2), snapshots.append)
    assert outcome.state == "done"
    folder = Store(tmp_path).open("s")
    states = ends(tmp_path)
    assert sorted(states) == list(range(8))
    assert set(states.values()) <= {"complete", "pruned"}
    assert "complete" in states.values()

    final = outcome.snapshot
    assert final.phase == "done"
    assert final.durable_rows == len(folder.events())
    assert sum(final.counts.values()) == 8
    assert [row.step for row in final.rungs] == [100, 300, 900]
    assert final.rungs[0].reports == 8
    assert snapshots[0].phase == "starting"
    assert {"searching", "done"} <= {snapshot.phase for snapshot in snapshots}
    assert "Ray" in snapshots[0].activity, "a launch says what it does before it searches"
    assert {snapshot.activity for snapshot in snapshots if snapshot.phase in ("searching", "done")} == {""}
    activities = {snapshot.activity for snapshot in snapshots if snapshot.phase == "finalising"}
    assert activities
    activities -= {"choosing the trials that predict"}
    assert all(re.fullmatch(r"[0-7] of [1-7] trials have predicted", activity) for activity in activities), activities

    checkpoints = {row["trial"]: row["checkpoint"] for row in folder.events() if row.get("event") == "end"}
    kept = sorted(trial for trial, checkpoint in checkpoints.items() if checkpoint)
    assert {0, *(leader.trial for leader in final.best[:2])} <= set(kept), "the best two, and the baseline"
    assert len(kept) <= 4, "and members of an ensemble, together at most twice as many as asked for"
    assert sorted(int(path.name) for path in (tmp_path / "s" / "checkpoints").iterdir()) == kept
    assert all((Path(checkpoints[trial]) / "done.json").is_file() for trial in kept)

    needs = still_needed(folder, Ledger(folder.events()), choose=False)
    assert needs is not None, "the launch recorded its choice"
    assert not needs.pending
    chosen = needs.trials
    assert 0 in chosen
    assert set(chosen) <= set(kept)
    predictions = folder.read("predictions")
    assert set(predictions["trial"].to_pylist()) == set(chosen), "nothing is predicted in vain"
    assert set(predictions["split"].to_pylist()) == {"held"}
    assert predictions.num_rows == len(chosen) * 3 * len(SPLITS["held"])
    reported = {row["trial"] for row in folder.events() if row["table"] == "reports"}
    assert last_evidence(folder).keys() == reported


def test_workers_look_for_the_claim_of_their_own_driver(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    class NoLaunch:
        def __init__(self, *parts: object) -> None:
            jobs.extend(part for part in parts if isinstance(part, Job))

        def run(self) -> str:
            return "stopped"

    monkeypatch.setattr(session, "Running", NoLaunch)
    session.run(launch(tmp_path))
    session.resume(str(tmp_path), "s", FAKES)
    assert [job.generation for job in jobs] == [1, 2]
    for job in jobs:
        Job.from_json(job.to_json()).check_store()
    (tmp_path / "s").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="does not reach the sweep's store"):
        jobs[0].check_store()


def test_tune_keeps_no_evidence(ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = tune.turn_callback
    results: list[dict[str, Any]] = []
    saved: list[bytes] = []

    def look(trials: Any, **info: Any) -> None:
        results.extend(trial.last_result for trial in trials)
        saved.extend("".join(trial.get_json_state()).encode() for trial in trials)
        saved.extend(path.read_bytes() for path in Path(trials[0].local_experiment_path).rglob("*") if path.is_file())

    def watched(*arguments: Any) -> Any:
        callback = genuine(*arguments)
        callback.on_experiment_end = look
        return callback

    monkeypatch.setattr(tune, "turn_callback", watched)
    session.run(launch(tmp_path, trials=3))
    assert len(results) == 3
    assert all(RESULT in result and EVIDENCE not in result for result in results)
    assert any(RESULT.encode() in content for content in saved)
    assert not any(EVIDENCE.encode() in content for content in saved)


def test_rows_say_what_happened(ray_cluster: Cluster, tmp_path: Path) -> None:
    session.run(launch(tmp_path, trials=3, settings=("dropout/hidden=0.25",)))
    rows = Store(tmp_path).open("s").events()
    starts = [row for row in rows if row.get("event") == "start"]
    assert [row["trial"] for row in starts] == [0, 1, 2]
    assert [row["origin"] for row in starts] == ["default", "sampler", "sampler"]
    assert all(json.loads(row["config"])["dropout"]["hidden"] == 0.25 for row in starts)
    assert "optimizer/encoder_lr" in json.loads(starts[1]["params"])
    report = next(row for row in rows if row["table"] == "reports")
    assert report["step"] == 100
    assert report["scores"].keys() == {"sst", "sts"}
    assert report["verdict"] == "continue"
    assert report["flags"] == ["constant:sts"]
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert "training trial 1 from 0" in (tmp_path / "s" / "logs" / "1.log").read_text()


def test_one_worker_and_one_seed_give_the_same_trials(ray_cluster: Cluster, tmp_path: Path) -> None:
    def story(name: str, seed: int) -> list[tuple[object, ...]]:
        session.run(launch(tmp_path, name=name, seed=seed, trials=6))
        keys = ("trial", "attempt", "event", "state", "params", "seed", "step", "overall", "verdict")
        return [tuple(row.get(key) for key in keys) for row in Store(tmp_path).open(name).events()]

    first = story("a", 3)
    assert story("b", 3) == first
    assert story("c", 4) != first


def test_a_finished_sweep_resumes_to_itself(ray_cluster: Cluster, tmp_path: Path) -> None:
    first = session.run(launch(tmp_path, trials=3))
    before = calls(tmp_path / "s")
    again = session.resume(str(tmp_path), "s", FAKES)
    assert again.state == "done"
    assert again.snapshot.best == first.snapshot.best
    assert calls(tmp_path / "s") == before


def test_extending_goes_on_as_a_longer_sweep_would_have(ray_cluster: Cluster, tmp_path: Path) -> None:
    session.run(launch(tmp_path, name="long", trials=7))
    session.run(launch(tmp_path, name="short", trials=4))
    outcome = session.resume(str(tmp_path), "short", replace(FAKES, trials=7))
    assert outcome.snapshot.trials_total == 7

    def story(name: str) -> list[tuple[object, ...]]:
        rows = Store(tmp_path).open(name).events()
        keys = ("trial", "event", "params", "step", "overall", "verdict")
        # Which weights are kept for how long may differ: the short sweep did not know how many were to come.
        return [tuple(row.get(key) for key in keys) for row in rows]

    assert story("short") == story("long")
    with pytest.raises(ValueError, match="has 7 trials, a total of 5 would be fewer"):
        session.resume(str(tmp_path), "short", replace(FAKES, trials=5))


def test_faults_end_their_trial_alone(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(
        tmp_path / "s",
        {
            1: {"kind": "refuse", "at": 0},  # at the first milestone: no rung can stop it before
            2: {"kind": "diverge", "at": 0},
            3: {"kind": "exit", "at": 0},
            4: {"kind": "kill", "at": 0, "attempts": [0]},
        },
    )
    outcome = session.run(launch(tmp_path, grace=300, eta=3, workers=2, trials=6))
    assert outcome.state == "done"
    states = ends(tmp_path)
    assert (states[1], states[2], states[3]) == ("failed", "diverged", "failed")
    assert {states[0], states[4], states[5]} <= {"complete", "pruned"}
    rows = Store(tmp_path).open("s").events()
    failed = next(row for row in rows if row["trial"] == 1 and row.get("event") == "end")
    assert failed["reason"] == "ConfigError: a refusal from the script"
    assert "in _fail" in failed["error"]
    assert "a refusal from the script" in (tmp_path / "s" / "logs" / "1.log").read_text()
    assert outcome.snapshot.counts["failed"] == 2
    assert outcome.snapshot.counts["diverged"] == 1


def test_a_full_disk_stops_the_launch_and_costs_no_trial(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", {1: {"kind": "disk", "at": 0, "attempts": [0]}})
    outcome = session.run(launch(tmp_path, trials=3))
    assert outcome.state == "stopped"
    assert outcome.snapshot.counts["failed"] == 0
    assert any("No space left on device: 'checkpoints': no new trials" in line for line in outcome.snapshot.messages)
    outcome = session.resume(str(tmp_path), "s", replace(FAKES, resources=ResourceRequest(workers=8)))
    assert outcome.state == "done"
    assert "8 trials were to run at a time: this machine has room for 2" in outcome.snapshot.messages
    assert outcome.snapshot.counts["failed"] == 0


def test_a_killed_worker_is_replaced_from_the_newest_checkpoint(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", {0: {"kind": "kill", "at": 1, "attempts": [0]}})
    session.run(launch(tmp_path, trials=2))
    started = [call[:3] for call in calls(tmp_path / "s") if call[0] == 0]
    assert started == [(0, 0, 0), (0, 1, 100)]
    rows = [row for row in Store(tmp_path).open("s").events() if row["trial"] == 0 and row.get("event") == "end"]
    assert rows[0]["state"] == "lost"
    assert rows[0]["reason"].startswith("worker process ")
    assert rows[-1]["state"] == "complete"


def test_a_hung_trial_is_killed_and_issued_again(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.driver.watchdog.LOOK", 0.5)
    monkeypatch.setattr("hpo.driver.watchdog.LONGEST", 4.0)
    script(tmp_path / "s", {1: {"kind": "hang", "at": 0, "attempts": [0]}})
    outcome = session.run(launch(tmp_path, trials=2))
    assert outcome.state == "done"
    assert any("attempt 1-0 has shown no sign of life" in line for line in outcome.snapshot.messages)
    rows = [row for row in Store(tmp_path).open("s").events() if row["trial"] == 1 and row.get("event") == "end"]
    assert rows[0]["state"] == "lost"
    assert rows[-1]["state"] in ("complete", "pruned")


class Stuck(Worker):
    """A worker that hangs before its first sign of life: while its process starts (trial 0), and when it takes its next
    trial (trial 1). It writes a file `stuck` then."""

    def _assign(self, config: dict[str, Any]) -> None:
        super()._assign(config)
        if self._assignment.trial < 2 and self._assignment.attempt == 0:
            (Path(self._job.folder) / "stuck").touch()
            time.sleep(3600)


def test_a_worker_that_hangs_before_its_first_sign_is_killed_and_its_trial_issued_again(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = tmp_path / "s" / "stuck"

    class Impatient(Watchdog):
        """A watchdog whose limit for the start is over as soon as a worker is stuck, and not before."""

        start_limit = property(lambda self: 0.0 if stuck.exists() else START)

        def look(self, running: Iterable[str], now: float) -> tuple[dict[str, float], list[str]]:
            silent, hung = super().look(running, now)
            if hung:
                stuck.unlink()
            return silent, hung

    monkeypatch.setattr("hpo.driver.watchdog.LOOK", 0.2)
    monkeypatch.setattr("hpo.driver.running.Watchdog", Impatient)
    monkeypatch.setattr("hpo.driver.tune.Worker", Stuck)
    monkeypatch.setattr("hpo.driver.placement.rest", lambda losses: 0.0)
    outcome = session.run(launch(tmp_path, trials=2))
    assert outcome.state == "done"
    rows = [row for row in Store(tmp_path).open("s").events() if row.get("event") == "end"]
    lost = [(row["trial"], row["attempt"], row["cause"]) for row in rows if row["state"] == "lost"]
    assert lost == [(0, 0, "place"), (1, 0, "place")]
    assert set(ends(tmp_path).values()) <= {"complete", "pruned"}
    assert [call[:2] for call in calls(tmp_path / "s")] == [(0, 1), (1, 1)]


@pytest.mark.slow
def test_a_trial_that_kills_every_worker_fails_after_its_last_retry(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", {1: {"kind": "kill", "at": 0}})
    outcome = session.run(launch(tmp_path, trials=3))
    assert [call[:2] for call in calls(tmp_path / "s") if call[0] == 1] == [(1, 0), (1, 1), (1, 2)]
    assert ends(tmp_path)[1] == "failed"
    assert outcome.snapshot.counts["failed"] == 1


def test_a_trial_without_memory_fails_alone_and_its_process_leaves(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", {1: {"kind": "memory", "at": 0}})
    session.run(launch(tmp_path, trials=4, workers=2))
    states = ends(tmp_path)
    assert states[1] == "failed"
    assert {states[0], states[2], states[3]} <= {"complete", "pruned"}
    rows = Store(tmp_path).open("s").events()
    ended = [row for row in rows if row["trial"] == 1 and row.get("event") == "end"]
    assert [(row["state"], row["cause"], row["reason"]) for row in ended] == [
        ("lost", "memory", "out of memory"),
        ("failed", "memory", "out of memory"),
    ]
    attempts = [(pid, trial) for trial, _, _, pid in calls(tmp_path / "s")]
    left = [place for place, (_, trial) in enumerate(attempts) if trial == 1]
    assert len({attempts[place][0] for place in left}) == 2
    for place in left:
        assert attempts[place][0] not in {pid for pid, _ in attempts[place + 1 :]}, "no trial began in it afterwards"


def test_an_error_of_an_attempt_costs_its_trial_nothing_and_failed_trials_can_be_tried_again(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    script(tmp_path / "s", {0: {"kind": "raise", "at": 1, "attempts": [0]}, 1: {"kind": "refuse", "at": 0}})
    outcome = session.run(launch(tmp_path, trials=2))
    assert ends(tmp_path) == {0: "complete", 1: "failed"}
    assert [call[:3] for call in calls(tmp_path / "s")] == [(0, 0, 0), (0, 1, 100), (1, 0, 0)]
    script(tmp_path / "s")
    assert session.resume(str(tmp_path), "s", FAKES).state == "done", "nothing is left to do"
    assert ends(tmp_path)[1] == "failed"
    outcome = session.resume(str(tmp_path), "s", replace(FAKES, retry_failed=True))
    assert outcome.state == "done"
    assert "failed trials are tried again: 1" in outcome.snapshot.messages
    assert ends(tmp_path)[1] in ("complete", "pruned")
    assert outcome.snapshot.counts["failed"] == 0
    assert session.resume(str(tmp_path), "s", replace(FAKES, retry_failed=True)).state == "done"


@pytest.mark.slow
def test_a_broken_gpu_gets_no_more_trials_and_is_named(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests' GPUs are numbers: every trial on GPU 1 meets a device error, after which its process leaves."""
    monkeypatch.setattr("hpo.launch.prepare.local_gpus", lambda: 2)
    script(tmp_path / "s", slow=2.0)
    (tmp_path / "s" / "broken.json").write_text(json.dumps("1"))

    def observer(snapshot: Snapshot) -> None:
        if any("no more trials" in message for message in snapshot.messages):
            script(tmp_path / "s")

    outcome = session.run(launch(tmp_path, trials=8, workers=2, gpus_per_trial=1.0), observer)
    assert outcome.state == "done"
    assert set(ends(tmp_path).values()) <= {"complete", "pruned"}
    [(place, reason)] = outcome.quarantined.items()
    assert place.endswith(" GPU 1")
    assert reason == "2 trials failed there alike: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert f"{place} gets no more trials in this launch: {reason}" in outcome.snapshot.messages
    rows = [row for row in Store(tmp_path).open("s").events() if row.get("state") == "lost"]
    assert [(row["cause"], row["place"]) for row in rows] == [("place", place)] * 2
    [known] = quarantines(Store(tmp_path).open("s").folder)
    assert (known.place, known.reason) == (place, reason), "the store keeps it"
    assert known.end is not None and known.end > known.begin


def test_time_stops_a_sweep_and_resume_ends_it(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halts: list[Halt] = []

    class Watched(Halt):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            halts.append(self)

    def observer(snapshot: Snapshot) -> None:
        assert snapshot.time_left is not None
        assert snapshot.time_left <= 3600.0
        if snapshot.budget_examples_used:
            halts[0]._deadline = 0.0  # the hour is over, independent of how long the first worker took to start

    monkeypatch.setattr("hpo.driver.running.Halt", Watched)
    script(tmp_path / "s", {0: {"kind": "wait", "at": 1, "attempts": [0]}})
    outcome = session.run(launch(tmp_path, trials=4, time=3600.0), observer)
    assert outcome.state == "stopped"
    assert outcome.snapshot.phase == "stopped"
    assert any("the time is up: no new trials" in message for message in outcome.snapshot.messages), outcome.snapshot
    assert not any("the display failed" in message for message in outcome.snapshot.messages)
    assert outcome.snapshot.counts["running"] == 0
    script(tmp_path / "s")
    outcome = session.resume(str(tmp_path), "s", FAKES)
    assert outcome.state == "done"
    trained = [call[:2] for call in calls(tmp_path / "s")]
    assert len(trained) == len(set(trained)), "no attempt began twice"
    paused = [row["trial"] for row in Store(tmp_path).open("s").events() if row.get("state") == "paused"]
    assert paused == [0]
    began = next(call for call in calls(tmp_path / "s") if call[:2] == (0, 1))
    assert began[2] > 100, "it went on from the checkpoint that the pause had written"


def test_a_display_that_fails_ends_no_sweep(ray_cluster: Cluster, tmp_path: Path) -> None:
    def observer(snapshot: Snapshot) -> None:
        raise RuntimeError("no terminal")

    outcome = session.run(launch(tmp_path, trials=2), observer)
    assert outcome.state == "done"
    assert "the display failed and is off: RuntimeError: no terminal" in outcome.snapshot.messages

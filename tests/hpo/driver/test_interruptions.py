"""Drivers that are killed, stopped, or started twice: nothing is lost, nothing runs twice, no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from hpo.cluster import membership
from hpo.cluster.connection import Cluster
from hpo.cluster.processes import process_start
from hpo.driver import session
from hpo.driver.generations import BusyError
from hpo.driver.stopping import request_stop
from hpo.search.snapshot import Snapshot
from results.places import locate
from results.store import Store
from tests.hpo.conftest import FAKES, calls, launch, script

ROOT = Path(__file__).resolve().parents[3]

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = pytest.mark.timeout(400)

WAITING = {0: {"kind": "wait", "at": 1, "attempts": [0]}}
"""Trial 0 reports once, then it waits for the pause."""


def wait(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def descendants(pid: int) -> dict[int, float]:
    """Descendants of process `pid` with their start times, without Ray's two idle agents: after their cluster was
    killed, they outlive a raylet by a minute while they try to report it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    processes, front = {}, [pid]
    while front:
        parent = front.pop()
        for child, its_parent in parents.items():
            if its_parent == parent and not is_agent(child) and (started := process_start(child)) is not None:
                processes[child] = started
                front.append(child)
    return processes


def is_agent(pid: int) -> bool:
    try:
        return b"Agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def gone(processes: dict[int, float]) -> bool:
    return all(process_start(pid) != started for pid, started in processes.items())


@contextmanager
def driver(action: str, store: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A driver with a cluster of its own; no process of it outlives the test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    command = [sys.executable, "-m", "tests.hpo.drive", action, str(store), json.dumps(options)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        remaining = descendants(process.pid)
        process.kill()
        process.wait()
        wait(lambda: gone(remaining), 60, f"the end of processes {sorted(remaining)}")


def reports(store: Path) -> list[dict[str, Any]]:
    if not (store / "s" / "sweep.json").exists():
        return []
    return [row for row in Store(store).open("s").events() if row["table"] == "reports"]


def events(store: Path) -> set[tuple[int, str]]:
    """(trial, event) of every start and end that is in the store."""
    if not (store / "s" / "sweep.json").exists():
        return set()
    return {(row["trial"], row["event"]) for row in Store(store).open("s").events() if "event" in row}


def story(store: Path) -> dict[object, object]:
    """Values, end and parameters of every trial, independent of its number of attempts."""
    rows = Store(store).open("s").events()
    reported = [row for row in rows if row["table"] == "reports"]
    values = {(row["trial"], row["step"]): (row["overall"], row["verdict"]) for row in reported}
    ends = {row["trial"]: row["state"] for row in rows if row.get("event") == "end"}
    params = {row["trial"]: row["params"] for row in rows if row.get("event") == "start"}
    return {"values": values, "ends": ends, "params": params}


def test_a_killed_driver_is_resumed_as_if_nothing_had_been(ray_cluster: Cluster, tmp_path: Path) -> None:
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    script(broken / "s", {3: {"kind": "hang", "at": 0, "attempts": [0]}})
    with driver("run", broken, trials=5) as process:
        wait(lambda: (3, "start") in events(broken), 200, "the start of trial 3")
        with pytest.raises(BusyError, match=f"worked on by process {process.pid}"):
            session.resume(str(broken), "s", FAKES)
        children = descendants(process.pid)
        process.kill()
        assert process.communicate()[0] == "", "Ray's own output stays out"
        wait(lambda: gone(children), 60, f"the end of processes {sorted(children)}")
    finished = {row["trial"] for row in Store(broken).open("s").events() if row.get("state") in ("complete", "pruned")}
    assert finished
    before = len(calls(broken / "s"))

    script(broken / "s")
    resumed = session.resume(str(broken), "s", FAKES)
    assert resumed.state == "done"
    again = calls(broken / "s")[before:]
    assert not finished & {call[0] for call in again}, "no finished trial runs again"
    assert again[0][:2] == (3, 1), f"the unfinished trial is issued again: {again[0]}"

    reference = session.run(launch(unbroken, trials=5))
    assert story(broken) == story(unbroken)
    assert resumed.snapshot.rungs == reference.snapshot.rungs


def test_sigterm_pauses_and_resume_goes_on(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", WAITING)
    with driver("run", tmp_path, trials=3) as process:
        wait(lambda: reports(tmp_path), 200, "a report")
        children = descendants(process.pid)
        process.terminate()
        output, _ = process.communicate(timeout=110)
        assert process.returncode == 3, output
        assert output == "stopped\n"
        wait(lambda: gone(children), 60, f"the end of processes {sorted(children)}")
    rows = Store(tmp_path).open("s").events()
    open_trials = {row["trial"] for row in rows if row.get("event") == "start"}
    assert open_trials == {row["trial"] for row in rows if row.get("event") == "end"}, "every start has its end"
    before = calls(tmp_path / "s")
    script(tmp_path / "s")
    assert session.resume(str(tmp_path), "s", FAKES).state == "done"
    assert [row["trial"] for row in rows if row.get("state") == "paused"] == [0]
    trial, _, examples, _ = calls(tmp_path / "s")[len(before)]
    assert (trial, examples > 100) == (0, True), "it went on from the checkpoint that the pause had written"


def test_sigterm_to_the_whole_group_pauses(ray_cluster: Cluster, tmp_path: Path) -> None:
    """`timeout`, Slurm and containers signal the whole group: here once during training and once during prediction."""
    sweep = tmp_path / "s"
    script(sweep, WAITING)
    (sweep / "slow_predictions.json").write_text("3600")
    begun: list[Callable[[], object]] = [lambda: reports(tmp_path), (sweep / "predicting").exists]
    for action, phase in zip(("run", "resume"), begun, strict=True):
        with driver(action, tmp_path, **({"trials": 3} if action == "run" else {})) as process:
            wait(phase, 200, f"the phase to interrupt after {action}")
            os.killpg(process.pid, signal.SIGTERM)
            output, _ = process.communicate(timeout=50)  # before Ray gives a lost cluster up, after 60 s
            assert (process.returncode, output) == (3, "stopped\n")
        script(sweep)
    (sweep / "slow_predictions.json").unlink()
    outcome = session.resume(str(tmp_path), "s", FAKES)
    assert outcome.state == "done"
    assert outcome.snapshot.counts["complete"] + outcome.snapshot.counts["pruned"] == 3
    assert not any("lost" in message for message in outcome.snapshot.messages)


@pytest.mark.slow
def test_two_signals_leave_a_hung_trial_behind(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", {1: {"kind": "hang", "at": 0, "attempts": [0]}})
    with driver("run", tmp_path, trials=3) as process:
        wait(lambda: (tmp_path / "s" / "calls.log").exists() and len(calls(tmp_path / "s")) == 2, 200, "trial 1")
        children = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does: every process of the group
        time.sleep(1.5)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 3, output
        wait(lambda: gone(children), 60, f"the end of processes {sorted(children)}")
    outcome = session.resume(str(tmp_path), "s", FAKES)
    assert outcome.state == "done"
    assert outcome.snapshot.counts["complete"] + outcome.snapshot.counts["pruned"] == 3


def test_a_stop_request_in_the_store_stops(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", WAITING)

    def observer(snapshot: Snapshot) -> None:
        if snapshot.phase == "searching" and snapshot.budget_examples_used:
            request_stop(locate(tmp_path / "s"))

    outcome = session.run(launch(tmp_path, trials=3), observer)
    assert outcome.state == "stopped"
    assert any("stop was requested" in message for message in outcome.snapshot.messages)
    assert outcome.snapshot.counts["waiting"] == 1


def test_a_driver_whose_host_the_cluster_has_given_up_leaves(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends the job of such a driver, so it would wait for ever."""
    script(tmp_path / "s", slow=1.0)
    monkeypatch.setattr(membership, "LOOK", 0.5)
    nodes = ray.nodes

    def observer(snapshot: Snapshot) -> None:
        if snapshot.phase == "searching" and snapshot.counts["running"]:
            monkeypatch.setattr(ray, "nodes", lambda: [{**node, "Alive": False} for node in nodes()])

    outcome = session.run(launch(tmp_path, trials=3), observer)
    monkeypatch.undo()
    assert outcome.state == "stopped"
    assert any("the cluster has given up" in message for message in outcome.snapshot.messages)
    script(tmp_path / "s")
    assert session.resume(str(tmp_path), "s", FAKES).state == "done"
    assert not any(row["state"] == "lost" for row in Store(tmp_path).open("s").events() if row.get("event") == "end")


@pytest.mark.slow
def test_a_driver_that_was_taken_over_leaves(ray_cluster: Cluster, tmp_path: Path) -> None:
    script(tmp_path / "s", slow=0.5)
    with driver("run", tmp_path, trials=3) as process:
        wait(lambda: reports(tmp_path), 200, "a report")
        process.send_signal(signal.SIGSTOP)
        script(tmp_path / "s")
        assert session.resume(str(tmp_path), "s", replace(FAKES, takeover=True)).state == "done"
        rows = Store(tmp_path).open("s").events()
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 1
        assert "Superseded" in output
    assert Store(tmp_path).open("s").events() == rows

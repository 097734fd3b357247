"""A machine that is told to go: its trials write a checkpoint in time and go on elsewhere, at no cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpo.cluster import departures
from hpo.cluster.departures import Departures
from hpo.cluster.processes import scratch
from results.store import Store
from tests.hpo.conftest import calls, script
from tests.hpo.driver.test_interruptions import WAITING, driver, events, reports, wait
from tests.hpo.machines import living, machines

PATIENCE = 240
"""Seconds that Ray gives the machine of the test to leave; it should need far fewer."""


def test_nodes_that_leave_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, leaving, hosts = [0.0], {"a"}, {"a": "node7", "b": "node8", "c": "node9"}
    monkeypatch.setattr(departures, "leaving_nodes", lambda: leaving)
    monkeypatch.setattr(departures, "hosts_of", lambda nodes: {node: hosts[node] for node in nodes})
    found = Departures(lambda: now[0])
    assert found.new() == {"a": "node7"}
    leaving |= {"b"}
    assert found.new() == {}, "it looks once in a second"
    now[0] += departures.LOOK
    assert found.new() == {"b": "node8"}
    leaving.clear()
    now[0] += departures.LOOK

    def away() -> None:
        raise RuntimeError("the head is busy")

    monkeypatch.setattr(departures, "leaving_nodes", away)
    assert found.new() == {}
    monkeypatch.setattr(departures, "leaving_nodes", lambda: {"c"})
    now[0] += departures.LOOK
    assert found.new() == {"c": "node9"}


@contextmanager
def machine(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A machine with one CPU, started as people do it: its process is told to go by SIGTERM."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    ray = Path(sys.executable).with_name("ray")
    with scratch() as folder:
        command = [ray, "start", "--block", f"--address={address}", "--num-cpus=1", "--num-gpus=0",
                   f"--object-store-memory={80 * 2**20}", f"--temp-dir={folder}"]  # fmt: skip
        settings = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(PATIENCE), "RAY_USAGE_STATS_ENABLED": "0",
                    "RAY_worker_niceness": "0"}  # fmt: skip
        process = subprocess.Popen(command, env=kept | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_that_is_told_to_go_costs_its_trial_nothing(tmp_path: Path) -> None:
    sweep = tmp_path / "s"
    script(sweep, WAITING)
    with machines() as cluster, machine(cluster.address) as leaving:
        wait(lambda: len(living(cluster.address)) == 2, 120, "the machine")
        with driver("run", tmp_path, address=cluster.address, trials=2, workers=1) as process:
            wait(lambda: reports(tmp_path), 300, "a report")
            cluster("add 1 0")
            began = time.monotonic()
            leaving.send_signal(signal.SIGTERM)
            leaving.wait()
            assert time.monotonic() - began < PATIENCE / 2, "it waits for the checkpoint, not for the time to pass"
            first = next(row for row in Store(tmp_path).open("s").events() if row.get("event") == "end")
            assert (first["trial"], first["state"], first["cause"]) == (0, "paused", "driver")
            assert first["reason"] == "its machine leaves the cluster"
            output, _ = process.communicate(timeout=400)
            assert output.splitlines()[-1] == "done", output
    begun = calls(sweep)
    assert begun[0][:3] == (0, 0, 0)
    again = next(call for call in begun if call[:2] == (0, 1))
    assert again[2] > 100, "it goes on from the checkpoint that it wrote before it left"
    assert again[3] != begun[0][3]
    ends = [row for row in Store(tmp_path).open("s").events() if row.get("event") == "end"]
    assert {row["state"] for row in ends} == {"paused", "complete"}
    assert sum(row["state"] == "paused" for row in ends) == 1, "nothing else was begun on the machine that left"
    assert {(0, "end"), (1, "end")} <= events(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_does_not_wait_for_a_trial_whose_machine_has_left(tmp_path: Path) -> None:
    """As when a whole cluster is taken down: machines leave while the driver is asked to stop."""
    script(tmp_path / "s", WAITING)
    with machines() as cluster, machine(cluster.address) as leaving:
        wait(lambda: len(living(cluster.address)) == 2, 120, "the machine")
        with driver("run", tmp_path, address=cluster.address, trials=2, workers=1) as process:
            wait(lambda: reports(tmp_path), 300, "a report")
            leaving.send_signal(signal.SIGTERM)
            leaving.wait()
            wait(lambda: starts(tmp_path) == [(0, 0), (0, 1)], 60, "the trial's next start")
            process.terminate()
            output, _ = process.communicate(timeout=PATIENCE)
            assert (process.returncode, output) == (3, "stopped\n")
    ends = [row for row in Store(tmp_path).open("s").events() if row.get("event") == "end"]
    assert [(row["attempt"], row["state"], row["reason"]) for row in ends] == [
        (0, "paused", "its machine leaves the cluster"), (1, "paused", "stopped before it began")]  # fmt: skip


def starts(store: Path) -> list[tuple[int, int]]:
    return [(row["trial"], row["attempt"]) for row in Store(store).open("s").events() if row.get("event") == "start"]

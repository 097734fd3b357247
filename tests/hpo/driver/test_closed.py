"""Nodes that cannot run trials when a launch begins get none; the others run the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.driver.placement import Placement
from hpo.search.endings import Ending
from results.store import Store
from tests.hpo.board import MemoryBoard
from tests.hpo.conftest import calls, script
from tests.hpo.driver.test_interruptions import driver
from tests.hpo.machines import machines
from tests.minbert.conftest import make_corpus

SILENT = """
import os, time
parent = os.getppid()
if b"default_worker" in open("/proc/self/cmdline", "rb").read():
    while os.getppid() == parent:  # the raylet
        time.sleep(1)
"""
"""A node whose Python never comes up, as where a file system hangs."""

WITHOUT_DATA = """
import errno, os
with open({log!r}, "a") as log:
    log.write(f"{{os.getpid()}}\\n")
scandir = os.scandir
def without(path="."):
    if path == {data!r}:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    return scandir(path)
os.scandir = without
"""
"""A node that does not see the data folder; it logs its processes."""


def test_a_closed_place_stays_closed_and_the_last_open_one_is_never_in_quarantine() -> None:
    board, messages = MemoryBoard(), list[str]()
    board.places = {"0-0": "good", "1-0": "good"}
    placement = Placement(2, board, messages.append, clock=lambda: 0.0, closed={"silent": "gives no answer"})
    assert placement.quarantined == {"silent": "gives no answer"}
    lost = Ending("place", "its process died", "good")
    for trial in range(3):
        placement.ended(trial, lost, losses=1, final=False, running=board.places)
    assert placement.quarantined == {"silent": "gives no answer"}
    assert messages == []
    board.places["2-0"] = "another"
    placement.ended(3, lost, losses=1, final=False, running=board.places)
    assert placement.quarantined.keys() == board.closed == {"silent", "good"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_runs_on_the_nodes_that_can_run_trials(tmp_path: Path) -> None:
    """Of three nodes one gives no answer and one lacks the data: without their exclusion a trial on the first would
    hang for half an hour."""
    data, log = make_corpus(tmp_path / "data", train=64, dev=24), tmp_path / "processes"
    for name, text in {"silent": SILENT, "without": WITHOUT_DATA.format(log=str(log), data=str(data))}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(text)
    script(tmp_path / "runs" / "s")
    with machines() as cluster:
        cluster("add 1 0")
        cluster(f"add 4 0 PYTHONPATH={tmp_path / 'silent'}")
        cluster(f"add 4 0 PYTHONPATH={tmp_path / 'without'}")
        options = {"address": cluster.address, "data": str(data), "trials": 6, "patience": 60.0}
        with driver("run", tmp_path / "runs", **options, workers=3) as process:
            output, _ = process.communicate(timeout=600)
    *_, first, second, state = output.splitlines()
    assert state == "done", output
    assert sorted(line.partition(") ")[2] for line in (first, second)) == [
        "gives no answer within 60 s", f"has no folder {data}"
    ]  # fmt: skip
    rows = Store(tmp_path / "runs").open("s").events()
    assert not [row for row in rows if row.get("state") == "lost"]
    others = {int(line) for line in log.read_text().split()}
    assert {call[3] for call in calls(tmp_path / "runs" / "s")}.isdisjoint(others)

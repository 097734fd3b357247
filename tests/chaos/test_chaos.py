"""The chaos test itself: its draws, its checks, and a short run of it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.worker.job import TRAINER
from tests.chaos.faults import KINDS, draw
from tests.chaos.promises import PROMISES, WHAT, Evidence
from tests.conftest import ROOT
from tests.hpo import inline
from tests.hpo.conftest import launch


def test_faults_are_drawn_from_the_seed_and_every_kind_comes_as_often() -> None:
    number = 4 * len(KINDS)
    draws = draw(7, number, KINDS)
    assert draws == draw(7, number, KINDS)
    assert draws != draw(8, number, KINDS)
    assert Counter(fault.kind for fault in draws) == dict.fromkeys(KINDS, 4)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A sweep without faults, with the notes that its drivers and workers would have made."""
    folder = inline.run(launch(tmp_path_factory.mktemp("store"), trainer=TRAINER, trials=2, budget=128, grace=64))
    rows = folder.events()
    appended = [{name: row.get(name) for name in (*WHAT, "generation", "seq")} for row in rows]
    begun = [{"trial": row["trial"], "attempt": row["attempt"]} for row in rows if row.get("event") == "start"]
    last = {"generation": rows[-1]["generation"], "seq": rows[-1]["seq"]}
    return Evidence(folder, 2, rows, appended, [last], begun, frozenset())


def change(evidence: Evidence, **changes: Any) -> Evidence:
    """The evidence with other values in the last end row."""
    last = max(number for number, row in enumerate(evidence.rows) if row.get("event") == "end")
    return replace(evidence, rows=[{**row, **changes} if n == last else row for n, row in enumerate(evidence.rows)])


def restart(evidence: Evidence) -> Evidence:
    """The evidence with a start after the end of its trial."""
    start = next(row for row in evidence.rows if row.get("event") == "start")
    later = {**start, "attempt": 1, "seq": 99}
    return replace(evidence, rows=[*evidence.rows, later])


def shift(evidence: Evidence) -> Evidence:
    """The evidence with a slightly better score in every report."""
    rows = [row if row["table"] != "reports" else {**row, "overall": row["overall"] + 1e-9} for row in evidence.rows]
    return replace(evidence, rows=rows)


BREAK: dict[str, list[Callable[[Evidence], Evidence]]] = {
    "every trial is accounted for": [lambda evidence: replace(evidence, trials=3)],
    "every acknowledged row is stored exactly once": [
        lambda evidence: replace(evidence, rows=evidence.rows[1:]),
        lambda evidence: replace(evidence, rows=[*evidence.rows, evidence.rows[0]]),
        lambda evidence: change(evidence, attempt=7),
    ],
    "no finished trial ran twice": [
        restart,
        lambda evidence: replace(evidence, begun=[*evidence.begun, evidence.begun[0]]),
        lambda evidence: replace(evidence, begun=[*evidence.begun, {"trial": 0, "attempt": 5}]),
    ],
    "no healthy trial failed": [
        lambda evidence: change(evidence, state="failed", reason="ValueError"),
        lambda evidence: change(evidence, state="diverged"),
        lambda evidence: replace(evidence, poisoned=frozenset({0})),
    ],
    "the best score is reproduced by another run": [shift],
}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_broken_promise_is_found(intact: Evidence, promise: str) -> None:
    check = PROMISES[promise]
    assert check(intact) == []
    for break_it in BREAK[promise]:
        assert check(break_it(intact))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("more", [(), ("--s3",), ("--plain",)], ids=["disk", "s3", "plain"])
def test_a_short_run_with_every_kind_of_fault_keeps_all_promises(tmp_path: Path, more: tuple[str, ...]) -> None:
    options = ("--trials", "24", "--faults", "12", "--hosts", "2", "--logs", str(tmp_path), *more)
    command = [sys.executable, "-m", "tests.chaos", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

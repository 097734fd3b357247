"""Sweeps of an hour: the old default, the time limit, answers of stored sweeps, and the table."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import hours
from benchmarks.common import configuration
from benchmarks.defaults import OLD
from hpo.driver.answer import of_sweep
from minbert.config import Config
from minbert.tasks import run_tasks
from results.store import Store
from tests.hpo import inline
from tests.hpo.conftest import launch


def test_the_settings_make_the_old_default_of_the_present_one() -> None:
    assert configuration(*hours.old_settings()) == Config.from_dict(OLD, run_tasks(None)) != configuration()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep and one of the default alone, by the fake trainer."""
    store = tmp_path_factory.mktemp("store")
    inline.run(launch(store, name="full-0", trials=7, repeats=1))
    inline.run(launch(store, name="old-0", trials=1))
    return store


@pytest.mark.parametrize("predicted", [True, False])
def test_a_sweep_is_answered_whether_held_was_predicted_before(
    predicted: bool, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hours, "BUDGET", 900)
    monkeypatch.setattr("hpo.launch.record.TRAINER", "tests.hpo.fakes")
    decision = of_sweep(Store(str(store)).open("full-0"))
    assert decision is not None and decision.held is not None
    copy = shutil.copytree(store, tmp_path / "copy")
    if not predicted:
        shutil.rmtree(copy / "full-0" / "predictions")
    row = hours.swept(copy, "full-0", "old-0")
    assert (row["answer"], row["nearest"]) == (decision.answer.trial, decision.held.trial)
    assert row["difference"] == decision.held.difference.to_dict()
    value = hours.mean(row["default_held"] if row["answer"] == 0 else row["held"])
    assert row["against_old"]["value"] == pytest.approx(value - row["old_held"][0])
    assert row["ended"] and row["minutes"] > 0


@pytest.mark.parametrize(
    ("minutes", "code", "command"),
    [(None, 0, "resume full-0"), (60.0, 3, "resume full-0 --time 2400s"), (20.5, 3, "")],
)
def test_a_sweep_is_resumed_for_the_rest_of_its_minutes(
    minutes: float | None, code: int, command: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def run(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        called.append(" ".join(arguments[3:]))
        return subprocess.CompletedProcess(arguments, code)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(hours, "busy_minutes", lambda folder: 40.0)  # of two workers
    hours.launch("full-0", store, "full", minutes=minutes)
    assert called == [f"{command} --store {store}"] * bool(command)


def test_only_a_launch_with_a_limit_may_stop_before_its_end(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda arguments, **_: subprocess.CompletedProcess(arguments, 3))
    with pytest.raises(subprocess.CalledProcessError):
        hours.launch("new", store, "quickstart")


ALONE = [{"kind": "alone", "seed": seed, "search": search, "held": held, "minutes": 10.0}
         for seed, search, held in ((102, 0.9, 0.1), (100, 0.5, 0.7), (101, 0.6, 0.5))]  # fmt: skip


def test_the_best_run_alone_is_chosen_on_search_among_those_that_fit() -> None:
    assert hours.best_alone(ALONE, 4.9) is None
    for minutes, seed, runs in ((5.0, 100, 1), (14.9, 101, 2), (60.0, 102, 3)):
        best = hours.best_alone(ALONE, minutes)
        assert best is not None and (best["seed"], best["runs"]) == (seed, runs)


def test_the_table_counts_the_default_as_no_gain() -> None:
    def row(seed: int, answer: int, gain: float) -> dict[str, Any]:
        difference = {"value": gain, "low": gain - 0.01, "high": gain + 0.01}
        old = {"value": 0.02 + gain * (answer != 0), "low": 0.01, "high": 0.03}
        return {"kind": "sweep", "seed": seed, "answer": answer, "nearest": 5, "probability": 0.8, "held": [0.6 + gain],
                "default_held": [0.58, 0.62], "difference": difference, "against_old": old, "ended": seed == 0,
                "minutes": 10.0}  # fmt: skip

    first, second, pooled = hours.table([row(1, 0, 0.03), row(0, 5, 0.04), *ALONE]).splitlines()[2:]
    assert "| seed 0 | 10 | trial 5 |" in first and "| 0.6400 | +0.0400 | +0.0400 (+0.0300 .. +0.0500) |" in first
    assert first.endswith("| 0.5000 (2) | +0.1400 |")
    assert "| seed 1 | 10, stopped | the default |" in second and "| 0.6000 | +0.0000 | +0.0300 (+0.0200" in second
    assert pooled.startswith("| mean |")
    assert all(f"| {value} ±" in pooled for value in ("+0.0200", "+0.0400", "+0.1200"))

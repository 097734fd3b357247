"""From a worker in a stage to whoever looks: a file that is there as long as the stage is, and is never in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.monitor import Monitor
from hpo.search.schedulers import Asha
from hpo.search.snapshot import Snapshot
from hpo.worker import progress, trainer
from hpo.worker.job import Assignment, Job
from hpo.worker.progress import Stage, StageFile, stage_file, stages_of
from tests.minbert.configs import configure


def looked(sweep: Path, **reported: Any) -> Snapshot:
    """Two trials that run; what is `reported` adds to the rows of trial 0."""
    monitor = Monitor("s", 4, (100, 300), Asha())
    for trial in (0, 1):
        monitor.feed({"trial": trial, "attempt": 0, "event": "start", "time": 0.0})
    if reported:
        monitor.feed({"trial": 0, "attempt": 0, "time": 1.0, "diverged": False} | reported)
    snapshot = monitor.snapshot("searching", 0.0, 2.0)
    return replace(snapshot, stages=stages_of(sweep, snapshot.beginning))


def test_a_file_tells_of_a_stage_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    file = StageFile(stage_file(tmp_path, 1))
    assert looked(tmp_path).stages == {}
    file("mlm", 0, 0)
    assert looked(tmp_path).stages == {1: Stage("mlm", 0, 0)}
    file("mlm", 3, 900)
    assert looked(tmp_path).stages == {1: Stage("mlm", 3, 900)}
    file.close()
    file.close()
    assert looked(tmp_path).stages == {}
    assert list((tmp_path / "stages").iterdir()) == []


def test_it_is_written_seldom_but_at_once_where_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    file = StageFile(stage_file(tmp_path, 0))
    seen = []
    for kind, done, passed in (("mlm", 0, 0), ("mlm", 1, 0.1), ("mlm", 9, 0.5), ("nli", 0, 0), ("nli", 1, 0.1)):
        now[0] += passed
        file(kind, done, 10)
        seen.append(looked(tmp_path).stages[0].done)
    assert seen == [0, 0, 9, 0, 0]


def test_what_a_dead_worker_left_is_not_looked_at(tmp_path: Path) -> None:
    StageFile(stage_file(tmp_path, 0))("mlm", 3, 900)
    assert set(looked(tmp_path).stages) == {0}
    assert looked(tmp_path, step=100, examples=100, overall=0.5).stages == {}
    assert looked(tmp_path, event="end", state="failed").stages == {}
    stage_file(tmp_path, 1).write_text("[1")
    assert set(looked(tmp_path).stages) == {0}


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_trial(tmp_path: Path) -> None:
    (tmp_path / "stages").write_text("")
    file = StageFile(stage_file(tmp_path, 0))
    file("mlm", 3, 900)
    file.close()
    assert looked(tmp_path).stages == {}


def test_a_trial_tells_of_its_stages_and_then_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    seen: list[tuple[str, int, int]] = []
    call = StageFile.__call__

    def heard(self: StageFile, kind: str, done: int, total: int) -> None:
        call(self, kind, done, total)
        seen.append((kind, done, total))
        assert stage_file(tmp_path, 0).is_file()

    monkeypatch.setattr(StageFile, "__call__", heard)
    config = configure("stages/mlm/kind=mlm", "stages/mlm/epochs=0.02", "stages/mlm/batch_size=16").to_dict()
    job = Job(str(tmp_path), (64, 128), base="tiny", search_sizes={"sst": 20})
    reports = trainer.train(job, Assignment(0, 0, config, 1), lambda: False)
    next(reports)
    assert [kind for kind, _, _ in seen] == ["mlm"] * len(seen)
    assert seen[-1][1] == seen[-1][2] > 0
    assert not stage_file(tmp_path, 0).exists(), "it trains"
    reports.close()  # type: ignore[attr-defined]

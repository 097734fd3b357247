"""Progress in a stage: a file that exists as long as the stage runs, and never makes a trial fail."""

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
from hpo.worker.progress import StageFile, StageProgress, stages_of
from results.places import locate
from tests.hpo.files import stage_file
from tests.minbert.configs import configure


def snapshot_of(sweep: Path, **row: Any) -> Snapshot:
    """Two trials that run; `row` is one more row of trial 0."""
    monitor = Monitor("s", 4, (100, 300), Asha())
    for trial in (0, 1):
        monitor.feed({"trial": trial, "attempt": 0, "event": "start", "time": 0.0})
    if row:
        monitor.feed({"trial": 0, "attempt": 0, "time": 1.0, "diverged": False} | row)
    snapshot = monitor.snapshot("searching", 0.0, 2.0)
    return replace(snapshot, stages=stages_of(locate(sweep), snapshot.beginning))


def test_a_file_shows_a_stage_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    file = StageFile(locate(tmp_path), 1)
    assert snapshot_of(tmp_path).stages == {}
    file("mlm", 0, 0)
    assert snapshot_of(tmp_path).stages == {1: StageProgress("mlm", 0, 0)}
    file("mlm", 3, 900)
    assert snapshot_of(tmp_path).stages == {1: StageProgress("mlm", 3, 900)}
    file.close()
    file.close()
    assert snapshot_of(tmp_path).stages == {}
    assert list((tmp_path / "stages").iterdir()) == []


def test_a_file_is_written_rarely_but_at_once_when_the_stage_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    file = StageFile(locate(tmp_path), 0)
    seen = []
    steps = (("mlm", 0, 0), ("mlm", 1, 0.1), ("mlm", 9, progress.EVERY), ("nli", 0, 0), ("nli", 1, 0.1))
    for kind, done, passed in steps:
        now[0] += passed
        file(kind, done, 10)
        seen.append(snapshot_of(tmp_path).stages[0].done)
    assert seen == [0, 0, 9, 0, 0]


def test_a_dead_workers_file_is_ignored_once_the_trial_reports_or_ends(tmp_path: Path) -> None:
    StageFile(locate(tmp_path), 0)("mlm", 3, 900)
    assert set(snapshot_of(tmp_path).stages) == {0}
    assert snapshot_of(tmp_path, step=100, examples=100, overall=0.5).stages == {}
    assert snapshot_of(tmp_path, event="end", state="failed").stages == {}
    stage_file(tmp_path, 1).write_text("[1")
    assert set(snapshot_of(tmp_path).stages) == {0}


def test_a_folder_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "stages").write_text("")
    file = StageFile(locate(tmp_path), 0)
    file("mlm", 3, 900)
    file.close()
    assert snapshot_of(tmp_path).stages == {}


def test_a_trial_has_a_file_during_its_stages_and_none_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    seen: list[tuple[str, int, int]] = []
    call = StageFile.__call__

    def recorded(self: StageFile, kind: str, done: int, total: int) -> None:
        call(self, kind, done, total)
        seen.append((kind, done, total))
        assert stage_file(tmp_path, 0).is_file()

    monkeypatch.setattr(StageFile, "__call__", recorded)
    config = configure("stages/mlm/kind=mlm", "stages/mlm/epochs=0.02", "stages/mlm/batch_size=16").to_dict()
    job = Job(str(tmp_path), (64, 128), base="tiny", report_rows=({"sst": 20}, {"sst": 20}))
    reports = trainer.train(job, Assignment(0, 0, config, 1), lambda: False)
    next(reports)
    assert [kind for kind, _, _ in seen] == ["mlm"] * len(seen)
    assert seen[-1][1] == seen[-1][2] > 0
    assert not stage_file(tmp_path, 0).exists(), "the trial trains"
    reports.close()  # type: ignore[attr-defined]

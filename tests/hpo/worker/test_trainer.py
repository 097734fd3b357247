"""The trainer: from which checkpoint an attempt continues."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.worker import trainer
from hpo.worker.job import Assignment, Job
from tests.minbert.configs import configure
from tests.minbert.conftest import make_corpus


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    data = make_corpus(tmp_path / "corpus")
    return Job(str(tmp_path / "s"), (100, 200), str(data), base="tiny")


def first_checkpoint(job: Job, attempt: int, *pairs: str) -> str:
    """Name of the checkpoint of an attempt's first report."""
    config = configure(*pairs).to_dict()
    reports = trainer.train(job, Assignment(0, attempt, config, seed=1), lambda: False)
    report = next(iter(reports))
    reports.close()  # type: ignore[attr-defined]  a generator
    return Path(report.checkpoint).name


def test_an_attempt_continues_from_its_trials_newest_checkpoint(job: Job) -> None:
    assert first_checkpoint(job, 0) == "0-100"
    assert first_checkpoint(job, 1) == "0-100", "it repeats the report of that checkpoint"


def test_a_checkpoint_of_another_configuration_is_not_used(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    """The rows of its trial were lost, and another trial got the number."""
    assert first_checkpoint(job, 0) == "0-100"
    assert first_checkpoint(job, 1, "dropout/hidden=0.2") == "1-100"
    assert "of a trial whose rows were lost" in caplog.text

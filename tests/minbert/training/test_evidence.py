"""Evidence of reports: it gives exactly the scores of its report, and an interruption loses none of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minbert.data.tokens import Data
from minbert.metrics import score
from minbert.training import evidence
from minbert.training.evidence import Array, Evidence
from minbert.training.report import Report
from minbert.training.train import State, train
from tests.minbert.configs import configure

MILESTONES = (64, 128, 192)


def read(values: Array) -> np.ndarray:  # type: ignore[type-arg]
    """Predicted classes or scores [n], by the rules of `minbert.training.evidence`."""
    if values.dtype == np.float32:
        return values.astype(np.float64)
    return (values > 0.5 if values.ndim == 1 else values.argmax(1)).astype(np.float64)


def assert_gives_its_scores(report: Report, data: Data) -> None:
    assert report.evidence.keys() == data.tasks.keys()
    for name, task in data.tasks.items():
        values = report.evidence[name]
        labels = data.file(name, "dev").labels[data.parts[name, "search"][: len(values)]]
        assert score(task.metric, read(values), labels) == report.scores[name], name


def assert_equal(first: Evidence, second: Evidence) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.dtype == second[name].dtype
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.parametrize("settings", [[], ["selection=best", "optimizer/encoder_lr=0.01"]], ids=["last", "best"])
def test_a_report_brings_the_predictions_that_it_was_scored_from(
    settings: list[str], data: Data, tmp_path: Path
) -> None:
    for report in train(configure(*settings), data, State.fresh(3, MILESTONES, tmp_path)):
        assert_gives_its_scores(report, data)
        assert "evidence" not in json.dumps(report.to_dict())


@pytest.mark.parametrize("settings", [[], ["selection=best", "optimizer/encoder_lr=0.01"]], ids=["last", "best"])
def test_a_trial_that_goes_on_repeats_the_evidence_of_its_report(
    settings: list[str], data: Data, tmp_path: Path
) -> None:
    config, whole = configure(*settings), []
    reports = train(config, data, State.fresh(3, MILESTONES, tmp_path / "a"))
    for _ in MILESTONES:
        whole.append(next(reports))
        path = Path(whole[-1].checkpoint)
        again = next(train(config, data, State.resume(path, MILESTONES, tmp_path / "b", 1)))
        assert again == whole[-1]
        assert_equal(again.evidence, whole[-1].evidence)
    first = list(train(config, data, State.fresh(3, MILESTONES, tmp_path / "c"), pause_after(4)))
    assert first[-1].paused
    assert not first[-1].evidence
    state = State.resume(Path(first[-1].checkpoint), MILESTONES, tmp_path / "c", 1)
    assert_equal(list(train(config, data, state))[-1].evidence, whole[-1].evidence)


def pause_after(polls: int):  # type: ignore[no-untyped-def]
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def test_rounding_changes_no_class() -> None:
    generator = np.random.default_rng(0)
    for classes in (2, 3, 5):
        near = 1 / classes + generator.normal(0, 1e-5, (2000, classes))  # far closer than float16 tells apart
        chances = (near / near.sum(1, keepdims=True)).astype(np.float32)
        predicted = chances.argmax(1).astype(np.float64)
        kept = evidence.probabilities(predicted, chances)
        assert kept.dtype == np.float16
        assert (chances.astype(np.float16).argmax(1) != predicted).any(), "plain rounding does change some"
        np.testing.assert_array_equal(read(kept), predicted)
        np.testing.assert_allclose(kept, chances[:, 1] if classes == 2 else chances, atol=1e-3)


def test_the_evidence_of_the_three_tasks_is_small() -> None:
    chances = np.full((2000, 2), 0.5, np.float32)
    sizes = (
        evidence.probabilities(np.zeros(550), np.full((550, 5), 0.2, np.float32)).nbytes,
        evidence.probabilities(np.zeros(2000), chances).nbytes,
        evidence.scores(np.zeros(431)).nbytes,
    )
    assert sum(sizes) == 11_224

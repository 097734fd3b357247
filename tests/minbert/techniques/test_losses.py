"""Losses in label units and in units of the labels' spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from minbert.data.tokens import Data
from minbert.tasks import TASKS
from minbert.techniques.losses import REGRESSION_LOSSES, label_unit, task_loss
from minbert.training.report import State
from minbert.training.trial import Trial
from tests.minbert.configs import configure

STS = TASKS["sts"]


def test_the_loss_of_unit_variance_is_that_of_standardised_labels() -> None:
    generator = np.random.default_rng(0)
    labels, outputs = generator.uniform(0, 5, 50), generator.normal(2, 1, 50)
    unit = label_unit(STS, labels, "unit_variance")
    mean, spread = labels.mean(), labels.std()
    expected = np.mean(((outputs - mean) / spread - (labels - mean) / spread) ** 2)
    loss = task_loss(STS, torch.tensor(outputs)[:, None], torch.tensor(labels), unit)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    constant = task_loss(STS, torch.full((50, 1), float(mean), dtype=torch.float64), torch.tensor(labels), unit)
    assert constant.item() == pytest.approx(1.0)  # an uninformed prediction, as in a classification


def test_units_of_other_losses_are_1() -> None:
    assert label_unit(STS, np.array([0.0, 5.0]), "raw") == 1
    assert label_unit(STS, np.array([2.0, 2.0]), "unit_variance") == 1
    assert label_unit(TASKS["sst"], np.array([0.0, 4.0]), "unit_variance") == 1


@pytest.mark.parametrize(
    "pairs",
    [(), ("regularizer/sts/kind=smart",), ("regularizer/sts/kind=rdrop",), ("regularizer/sts/kind=fgm",),
     ("encoding/sts/kind=bi", "encoding/sts/head/kind=cosine")],
    ids=["plain", "smart", "rdrop", "fgm", "cosine"],
)  # fmt: skip
def test_loss_and_penalties_of_a_regression_have_one_unit(pairs: tuple[str, ...], data: Data, tmp_path: Path) -> None:
    """With unit variance they are those of label units, divided by the variance of the training labels."""
    totals, reported = {}, {}
    for form in REGRESSION_LOSSES:
        config = configure(*pairs, f"regression_loss={form}", "precision=float32")
        trial = Trial(config, data, State.fresh(0, (10_000,), tmp_path), torch.device("cpu"))
        (draw,), _ = trial.draw()
        losses = trial.losses(draw)
        totals[form] = {name: value.item() for name, value in losses.totals.items()}
        reported[form] = {name: value.item() for name, value in losses.reported().items()}
    variance = float(np.var(data.file("sts", "train").labels.astype(np.float64)))
    for name, value in reported["raw"].items():
        factor = variance if name.rpartition("/")[2] == "sts" else 1.0
        assert value == pytest.approx(factor * reported["unit_variance"][name], rel=1e-4), name
    assert totals["raw"]["sts"] == pytest.approx(variance * totals["unit_variance"]["sts"], rel=1e-4)

"""The average of the weights against torch's own, a closed form, and what a trial does with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from minbert.data.tokens import Data
from minbert.techniques.averages import Exponential
from minbert.training import checkpoints
from minbert.training.evaluation import evaluate
from minbert.training.predict import load_model
from minbert.training.report import State
from minbert.training.trial import Trial
from tests.minbert.configs import configure


def walk(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, generator=generator) for _ in range(steps)]


def test_the_average_is_a_plain_mean_until_its_window_is_full() -> None:
    average, weights = Exponential(decay=0.9).build(), walk(10)
    for count, value in enumerate(weights, 1):
        average.update({"w": value}, 0.5)
        torch.testing.assert_close(average.values["w"], torch.stack(weights[:count]).mean(0))


def test_a_full_window_is_averaged_as_by_torch() -> None:
    """torch.optim.swa_utils' exponential average, from the same start."""
    average, weights, model = Exponential(decay=0.9).build(), walk(40), nn.Linear(3, 1, bias=False)
    for value in weights[:10]:
        average.update({"weight": value[None]}, 0.5)
    torch.nn.init.zeros_(model.weight).data += average.values["weight"]
    reference = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    reference.update_parameters(model)  # the first call copies
    for value in weights[10:]:
        average.update({"weight": value[None]}, 0.5)
        model.weight.data.copy_(value[None])
        reference.update_parameters(model)
        torch.testing.assert_close(average.values["weight"], reference.module.weight.data)


def test_it_begins_after_its_share_of_the_budget() -> None:
    average = Exponential(start=0.5).build()
    for progress, count in ((0.3, 0), (0.5, 0), (0.6, 1), (0.7, 2)):
        average.update({"w": torch.ones(1)}, progress)
        assert average.count == count and bool(average.values) == (count > 0)


@pytest.mark.parametrize("selection", ["last", "best"])
def test_reports_and_weights_are_those_of_the_average(selection: str, data: Data, tmp_path: Path) -> None:
    config = configure("average/kind=exponential", "average/decay=0.8", f"selection={selection}")
    trial = Trial(config, data, State.fresh(0, (256,), tmp_path), torch.device("cpu"))
    steps: list[dict[str, torch.Tensor]] = []
    while trial.examples < 256:
        trial.step()
        steps.append({name: value.detach().clone() for name, value in trial.parameters.items()})
    assert len(steps) > 2
    report = trial.report(256)
    for name, value in trial.parameters.items():
        assert torch.equal(value, steps[-1][name]), name  # training goes on with the weights themselves
    mean = {name: torch.stack([step[name] for step in steps]).mean(0) for name in steps[0]}
    saved = checkpoints.read_tensors(Path(report.checkpoint), "weights")
    for name, value in mean.items():
        torch.testing.assert_close(saved[name], value, msg=name)
    assert evaluate(load_model(Path(report.checkpoint), data), data).overall == report.overall


def test_an_average_changes_no_step(data: Data, tmp_path: Path) -> None:
    trials = [
        Trial(configure(*pairs), data, State.fresh(0, (256,), tmp_path / str(len(pairs))), torch.device("cpu"))
        for pairs in ((), ("average/kind=exponential",))
    ]
    for trial in trials:
        for milestone in (64, 192):
            while trial.examples < milestone:
                trial.step()
            trial.report(milestone)
        trial.step()
    for name, value in trials[0].parameters.items():
        assert torch.equal(value, trials[1].parameters[name]), name

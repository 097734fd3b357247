"""Techniques in combination: random configurations of space `full` train, pause, resume and predict.

Any adapter is combined with any mixing, regulariser, encoding, stage and augmentation. All scores are finite, frozen
weights do not change, checkpoints are exact, and a resumed trial equals an uninterrupted trial bit by bit.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.space.source import load_space
from hpo.space.tree import compose, expand, leaves
from minbert.config import Config
from minbert.data.files import SAMPLE
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import find_base
from minbert.stages.chain import staged
from minbert.tasks import DEFAULT_TASKS
from minbert.training import checkpoints
from minbert.training.evaluation import predict_rows
from minbert.training.model import MultitaskModel
from minbert.training.predict import load_model
from minbert.training.report import Report, State
from minbert.training.train import train
from tests.minbert.conftest import make_corpus

CONFIGURATIONS, GROUPS = 300, 30
QUICK = 6
"""Groups in the default test run, a fifth of the configurations; the slow tests run all."""
SPACE = leaves(expand(load_space("full"), DEFAULT_TASKS))


def draw(number: int) -> dict[str, Any]:
    """Random configuration `number`."""
    source = random.Random(number)
    nested = compose(SPACE, lambda leaf: leaf.random(source))[0]
    layers = nested["adapter"].get("layers", {})
    if "count" in layers:
        layers["count"] = 1  # the tiny encoder has two layers
    return nested


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    """The tiny encoder and a small corpus, with a separate cache that all stages share."""
    folder = make_corpus(tmp_path_factory.mktemp("corpus"))
    shutil.copy(SAMPLE / "nli-train.tsv", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield open_data(folder, find_base("tiny"))


def after(polls: int) -> Callable[[], bool]:
    """A `should_pause` that is true after so many polls."""
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def one_step(config: Config) -> int:
    """About the number of examples of the first step."""
    return max(config.batch_size.values()) * config.optimizer.accumulation


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=[] if group < QUICK else pytest.mark.slow) for group in range(GROUPS)]
)
def test_random_configurations_train_pause_and_go_on(group: int, opened: Data, tmp_path: Path) -> None:
    for number in range(group, CONFIGURATIONS, GROUPS):
        nested = draw(number)
        try:
            check(Config.from_dict(nested, opened.tasks), opened, tmp_path / str(number))
        except Exception as error:
            error.add_note(f"configuration {number}: {nested}")
            raise


def check(config: Config, data: Data, folder: Path) -> None:
    """Train one configuration without and with interruptions; check reports, checkpoints and predictions."""
    milestones = (2 * one_step(config), 4 * one_step(config))
    reports = list(train(config, data, State.fresh(1, milestones, folder / "whole")))
    assert [report.step for report in reports] == list(milestones)
    for report in reports:
        assert not report.diverged and math.isfinite(report.overall)
        assert report.losses and all(math.isfinite(value) for value in report.losses.values())
    last = reports[-1]
    resumed = interrupted(config, data, folder / "parts", milestones)[-1]
    assert resumed.scores == last.scores and resumed.flags == last.flags
    for file in ("weights", "optimizer"):
        expected, tensors = read(last, file), read(resumed, file)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected), file
    model = load_model(Path(last.checkpoint), data, torch.device("cpu"))
    check_frozen(model, data, config)
    for task in data.tasks:
        values = predict_rows(model, data, task, "dev", data.parts[task, "search"]).values
        assert all(map(math.isfinite, values))


def interrupted(config: Config, data: Data, folder: Path, milestones: tuple[int, ...]) -> list[Report]:
    """Reports of the same trial, paused after every one to three steps and resumed from its checkpoint."""
    reports = list(train(config, data, State.fresh(1, milestones, folder), after(1)))
    attempt = 0
    while reports[-1].paused and attempt < 200:
        attempt += 1
        newest = checkpoints.newest(folder)
        state = (
            State.fresh(1, milestones, folder, attempt)
            if newest is None
            else State.resume(newest, milestones, folder, attempt)
        )
        reports = list(train(config, data, state, after(attempt % 8 + 1)))
    return reports


def read(report: Report, name: str) -> dict[str, torch.Tensor]:
    """Tensors in file `name` of a report's checkpoint."""
    return checkpoints.read_tensors(Path(report.checkpoint), name)


def check_frozen(model: MultitaskModel, data: Data, config: Config) -> None:
    """Check that frozen weights equal those of the base, or of the last stage."""
    result = staged(config.stages, data, dtype=model.dtype)
    assert result is not None
    base = result.tensors or data.base.load().state_dict()
    for name, value in model.encoder.named_parameters():
        plain = name.replace(".base.", ".")
        if not value.requires_grad and plain in base:
            assert torch.equal(value, base[plain]), name

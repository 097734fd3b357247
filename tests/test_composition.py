"""Combinations compose: random configurations of the space `full` train, pause, go on and predict as one would expect.

Any adapter with any mixing, regulariser, encoding, stage and augmentation: all finite, what is frozen untouched, a
checkpoint's round trip exact, and a resumed trial equal bit by bit to an unbroken one.
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
QUICK = 10
"""Groups of the default test run, a third of the configurations; the slow tests take all."""
SPACE = leaves(expand(load_space("full"), DEFAULT_TASKS))


def draw(number: int) -> dict[str, Any]:
    """Configuration `number` of the 300."""
    source = random.Random(number)
    nested = compose(SPACE, lambda leaf: leaf.random(source))[0]
    layers = nested["adapter"].get("layers", {})
    if "count" in layers:
        layers["count"] = 1  # the tiny encoder has two layers
    return nested


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Bit by bit is promised for one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    """The tiny encoder on a small corpus, with a cache of its own that stages share."""
    folder = make_corpus(tmp_path_factory.mktemp("corpus"))
    shutil.copy(SAMPLE / "nli-train.tsv", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINBERT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield open_data(folder, find_base("tiny"))


def after(polls: int) -> Callable[[], bool]:
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def one_step(config: Config) -> int:
    """Examples of the first step, about."""
    return max(config.batch_size.values()) * config.optimizer.accumulation


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=[] if group < QUICK else pytest.mark.slow) for group in range(GROUPS)]
)
def test_random_configurations_train_pause_and_go_on(group: int, opened: Data, tmp_path: Path) -> None:
    for number in range(group, CONFIGURATIONS, GROUPS):
        nested = draw(number)
        try:
            check_one(Config.from_dict(nested, opened.tasks), opened, tmp_path / str(number))
        except Exception as error:
            error.add_note(f"configuration {number}: {nested}")
            raise


def check_one(config: Config, data: Data, folder: Path) -> None:
    milestones = (2 * one_step(config), 4 * one_step(config))
    whole = list(train(config, data, State.fresh(1, milestones, folder / "whole")))
    assert [report.step for report in whole] == list(milestones)
    for report in whole:
        assert not report.diverged and math.isfinite(report.overall)
        assert report.losses and all(math.isfinite(value) for value in report.losses.values())
    parts = interrupted(config, data, folder / "parts", milestones)
    assert parts[-1].scores == whole[-1].scores and parts[-1].flags == whole[-1].flags
    one, two = (read(reports[-1], "weights") for reports in (whole, parts))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    one, two = (read(reports[-1], "optimizer") for reports in (whole, parts))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    model = load_model(Path(whole[-1].checkpoint), data, torch.device("cpu"))
    untouched(model, data, config)
    for task in data.tasks:
        values = predict_rows(model, data, task, "dev", data.search_rows(task)).values
        assert all(map(math.isfinite, values))


def interrupted(config: Config, data: Data, folder: Path, milestones: tuple[int, ...]) -> list[Report]:
    """The reports of the same trial, paused after every step and continued from its checkpoint."""
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
        reports = list(train(config, data, state, after(attempt % 3 + 1)))
    return reports


def read(report: Report, name: str) -> dict[str, torch.Tensor]:
    return checkpoints.read_tensors(Path(report.checkpoint), name)


def untouched(model: MultitaskModel, data: Data, config: Config) -> None:
    """Frozen weights are those of the base, or what the stages before made of them."""
    result = staged(config.stages, data, dtype=model.dtype)
    assert result is not None
    base = result.tensors or data.base.load().state_dict()
    for name, value in model.encoder.named_parameters():
        plain = name.replace(".base.", ".")
        if not value.requires_grad and plain in base:
            assert torch.equal(value, base[plain]), name

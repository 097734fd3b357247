"""Our sides of the cases: the rate of a trial with some settings, or the time of its step."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import configuration
from benchmarks.speed.case import WARM_UP, Measure, Options, Side, gpu_peak, run, warm
from minbert.config import Config
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import Base, find_base
from minbert.fields import ConfigError
from minbert.training.report import State
from minbert.training.train import default_device
from minbert.training.trial import Trial

BUDGET = 10**6
"""Budget in examples; no timed trial reaches it."""

SST = ("mixing/kind=single", "mixing/task=sst", "batch_size/sst=16")
QQP = ("mixing/kind=single", "mixing/task=qqp", "batch_size/qqp=32")
MIX = ("batch_size/sst=3", "batch_size/qqp=32", "batch_size/sts=2")
"""The batches of the papers' mix (`multi_extended`, table 7)."""
AS_RIVAL = (
    "dropout/hidden=0.1", "dropout/attention=0.1", *(f"encoding/{task}/pooling=cls" for task in ("sst", "qqp", "sts"))
)  # fmt: skip
"""Settings in which our default differs from what users of `transformers` train."""

THREE = ("batch_size/sst=16", "batch_size/qqp=32", "batch_size/sts=16")
"""Our default: one batch of each task a step."""


def base_of(options: Options, base_size: bool) -> Base:
    """The encoder of BERT-base's size, or the packaged encoder."""
    return find_base(options.base_size if base_size else None)


def trial(config: Config, data: Data, seed: int) -> Trial:
    """A trial whose steps are called one by one. Steps write no files, so its folder is never created."""
    state = State.fresh(seed, (BUDGET,), Path(tempfile.gettempdir()) / "never-made")
    return Trial(config, data, state, default_device())


def opened(options: Options, *pairs: str, base_size: bool = False) -> Trial:
    """A trial with `path=value` settings on the benchmark's data, otherwise as the rival trains."""
    data = open_data(options.data, base_of(options, base_size))
    return trial(configuration(*AS_RIVAL, *pairs), data, options.process)


def training(*pairs: str, base_size: bool = False) -> Side:
    """Training examples a second with these settings."""

    def side(options: Options) -> Measure:
        trial = opened(options, *pairs, base_size=base_size)
        warm(trial.step)
        return lambda: rate(trial, options.steps, options.seconds)

    return side


def rate(trial: Trial, steps: int, seconds: float) -> dict[str, Any]:
    """Training examples a second of a warm trial, and its arithmetic."""
    before = trial.examples
    _, taken = run(trial.step, steps, seconds)
    arithmetic = str(trial.model.dtype).removeprefix("torch.")
    return {"value": (trial.examples - before) / taken, "arithmetic": arithmetic, **gpu_peak()}


def stepping(*pairs: str, again: bool = False) -> Side:
    """Milliseconds of a step; `again`: in the second of two trials on the same rows, with the first one's cache."""

    def side(options: Options) -> Measure:
        if again:
            run(opened(options, *pairs).step, options.steps + WARM_UP)
        trial = opened(options, *pairs)
        warm(trial.step)

        def measure() -> dict[str, Any]:
            # The cache only holds the rows of the first trial, so the number of steps alone decides when to stop.
            steps, taken = run(trial.step, options.steps, 0.0 if again else options.seconds)
            return {"value": 1e3 * taken / steps}

        return measure

    return side


def refused(*pairs: str) -> str | None:
    """The reason why this version refuses the settings; None if it takes them."""
    try:
        configuration(*pairs)
    except ConfigError as error:
        return f"this version refuses the setting: {error}"
    return None

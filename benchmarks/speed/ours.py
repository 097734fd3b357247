"""Our sides: a trial with given settings, its rate or the cost of its step."""

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
"""Examples of a trial that is never trained to its end."""

SST = ("mixing/kind=single", "mixing/task=sst", "batch_size/sst=16")
QQP = ("mixing/kind=single", "mixing/task=qqp", "batch_size/qqp=32")
MIX = ("batch_size/sst=3", "batch_size/qqp=32", "batch_size/sts=2")
"""The batches of the papers' mix (`multi_extended`, table 7)."""
THREE = ("batch_size/sst=16", "batch_size/qqp=32", "batch_size/sts=16")
"""Our default: one batch of each task a step."""


def base_of(options: Options, base_size: bool) -> Base:
    return find_base(options.base_size if base_size else None)


def trial(config: Config, data: Data, seed: int) -> Trial:
    """A trial to be stepped by hand: steps alone write nothing, so its folder is never made."""
    state = State.fresh(seed, (BUDGET,), Path(tempfile.gettempdir()) / "never-made")
    return Trial(config, data, state, default_device())


def opened(options: Options, *pairs: str, base_size: bool = False) -> Trial:
    return trial(configuration(*pairs), open_data(options.data, base_of(options, base_size)), options.process)


def training(*pairs: str, base_size: bool = False) -> Side:
    """Training examples a second with these settings."""

    def side(options: Options) -> Measure:
        model = opened(options, *pairs, base_size=base_size)
        warm(model.step)
        return lambda: rate(model, options.steps, options.seconds)

    return side


def rate(model: Trial, steps: int, seconds: float) -> dict[str, Any]:
    before = model.examples
    _, taken = run(model.step, steps, seconds)
    arithmetic = str(model.model.dtype).removeprefix("torch.")
    return {"value": (model.examples - before) / taken, "arithmetic": arithmetic, **gpu_peak()}


def stepping(*pairs: str, again: bool = False) -> Side:
    """Milliseconds of a step; `again`: of the second of two trials on the same rows, with what the first kept."""

    def side(options: Options) -> Measure:
        if again:
            run(opened(options, *pairs).step, options.steps + WARM_UP)
        model = opened(options, *pairs)
        warm(model.step)

        def measure() -> dict[str, Any]:
            # Rows beyond those of the first trial have nothing kept: then steps alone decide when to stop.
            steps, taken = run(model.step, options.steps, 0.0 if again else options.seconds)
            return {"value": 1e3 * taken / steps}

        return measure

    return side


def refused(*pairs: str) -> str | None:
    """Why this version does not take the settings; None where it does."""
    try:
        configuration(*pairs)
    except ConfigError as error:
        return f"this version refuses the setting: {error}"
    return None

"""How long a sweep may take, from the time of a few optimiser steps of its default configuration on this machine.

Rough on purpose: other configurations are cheaper (LoRA, a frozen encoder) or dearer (SMART, cross-encoding), and
rungs stop more or fewer trials than one of eta. It says minutes or hours, not a time of day.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.plan import Plan

if TYPE_CHECKING:
    from minbert.files import Corpus

WARM = 2
"""Steps left out: the first ones allocate."""
TIMED = 6
"""Steps that are timed."""


def seconds_per_example(plan: Plan, corpus: Corpus) -> float | None:
    """Training time of one example on one worker; None where the trainer is not the real one."""
    if plan.trainer != "hpo.core":
        return None
    from hpo.core import use_device
    from minbert.base import find_base
    from minbert.config import Config
    from minbert.data import open_data
    from minbert.stages import Stages
    from minbert.train import State, train

    use_device(plan.cpus_per_trial, 0.0)
    data = open_data(plan.data, find_base(plan.base), search_sizes=dict(plan.search_sizes), corpus=corpus)
    # Stages before training may take hours, and would be kept in the cache: an estimate does neither.
    config = replace(Config.from_dict(plan.sweep(workers=1, trials=plan.trials).next().config), stages=Stages())  # type: ignore[union-attr]
    marks: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory(prefix="hpo-estimate-") as folder:
        state = State.fresh(plan.seed, plan.milestones, Path(folder))

        def on_step(examples: int) -> None:
            marks.append((time.monotonic(), examples))

        for _ in train(config, data, state, lambda: len(marks) > WARM + TIMED, on_step=on_step):
            break
    if len(marks) <= WARM + 1:
        return None
    (begin, first), (end, last) = marks[WARM], marks[-1]
    return (end - begin) / (last - first) if last > first else None

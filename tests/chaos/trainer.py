"""The product's trainer, which meets the faults of `tests.chaos.control` between two steps.

Every poll takes `PACE` seconds longer: so faults meet trials in training, and three trials at once leave the machine
time for what is tested.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from hpo.cluster.processes import host
from hpo.worker import trainer
from hpo.worker.job import Assignment, Job
from minbert.training.report import Report
from minbert.training.trial import Trial
from results.predictions import Prediction
from results.store import SweepFolder
from tests.chaos import control

PACE = 0.1
"""Seconds that each poll takes longer."""


def ready(job: Job, folder: SweepFolder) -> None:
    trainer.ready(job, folder)


def train(job: Job, assignment: Assignment, should_pause: Callable[[], bool]) -> Iterator[Report]:
    control.slow_down_fsync()
    control.follow_clock()
    control.note("begun", trial=assignment.trial, attempt=assignment.attempt, host=host(), pid=os.getpid())

    def polled() -> bool:
        if (control.folder() / f"{control.BROKEN}{host()}").exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        time.sleep(PACE)
        return should_pause()

    with nan_weights() if control.poisoned(assignment.trial) else contextlib.nullcontext():
        yield from trainer.train(job, assignment, polled)


def predict(job: Job, checkpoint: Path, part: str) -> Iterator[tuple[str, str, Prediction]]:
    return trainer.predict(job, checkpoint, part)


@contextlib.contextmanager
def nan_weights() -> Iterator[None]:
    """Let every step of a trial begin with a weight that is not a number, as after a loss that ran away."""
    genuine = Trial.step

    def step(trial: Trial) -> None:
        with torch.no_grad():
            next(iter(trial.parameters.values())).fill_(torch.nan)
        genuine(trial)

    setattr(Trial, "step", step)  # noqa: B010
    try:
        yield
    finally:
        setattr(Trial, "step", genuine)  # noqa: B010

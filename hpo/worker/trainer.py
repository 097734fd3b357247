"""Trainer: the functions by which the search uses `minbert`. They train one assignment or predict with one checkpoint.

Tokenised data and base weights are loaded once per process and used by all its trials. They are mapped from files, so
that the workers of a machine share them. Everything else is built anew for each trial.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpo.cluster.resources import Resources
from hpo.worker.job import Assignment, Job
from hpo.worker.progress import StageFile

if TYPE_CHECKING:
    from minbert.data.tokens import Data
    from minbert.training import evaluation
    from minbert.training.train import Report
    from results.predictions import Prediction
    from results.store import SweepFolder

log = logging.getLogger("hpo")


def train(job: Job, assignment: Assignment, should_pause: Callable[[], bool]) -> Iterator[Report]:
    """Reports of one attempt at one trial. The attempt continues from the trial's newest checkpoint if there is one."""
    from hpo.worker.checkpoints import workplace
    from minbert.config import Config
    from minbert.training import train as core
    from minbert.training.checkpoints import read_trial

    use_device(job.resources)
    data = data_of(job)
    config = Config.from_dict(assignment.config, data.tasks)
    stage = StageFile(job.sweep, assignment.trial)
    folder = job.checkpoints(assignment.trial)
    with workplace(folder) as (directory, checkpoint, publish), contextlib.closing(stage):
        if checkpoint is not None and Config.from_dict(read_trial(checkpoint)[0]["config"], data.tasks) != config:
            log.warning("%s is not used: it has the configuration of a trial whose rows were lost", checkpoint)
            checkpoint = None
        if checkpoint is None:
            state = core.State.fresh(assignment.seed, job.milestones, directory, assignment.attempt, job.report_rows)
        else:
            log.info("resuming from %s", checkpoint)
            state = core.State.resume(checkpoint, job.milestones, directory, assignment.attempt)
        for report in core.train(
            config,
            data,
            state,
            should_pause,
            on_step=lambda examples: stage.close(),
            on_stage=stage,
            on_checkpoint=publish,
        ):
            name = Path(report.checkpoint).name
            yield replace(report, checkpoint=f"{folder.path}/{name}" if name else "")


def ready(job: Job, folder: SweepFolder) -> None:
    """Tokenise the data and store the labels of all examples. The driver calls this once, before any worker starts."""
    from minbert.data.files import read_corpus
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.tasks import choose_tasks

    corpus = read_corpus(job.data, choose_tasks(job.tasks))
    open_data(job.data, find_base(job.base), corpus=corpus)
    columns = ("task", "split", "row", "id", "label", "place")
    rows = [dict(zip(columns, example, strict=True)) for example in corpus.examples()]
    folder.write_table("examples", rows, corpus.fingerprint[:16])


def predict(job: Job, checkpoint: Path, part: str) -> Iterator[tuple[str, str, Prediction]]:
    """Task, split and predictions of a checkpoint, for one of the parts of `results.predictions`, as the store takes
    them."""
    from minbert.training import predict as core

    use_device(job.resources)
    for task, split, prediction in core.predict(checkpoint, data_of(job), (part,)):
        yield task, split, as_stored(prediction)


def as_stored(prediction: evaluation.Prediction) -> Prediction:
    """A prediction of the core as the store and the ensembles take it."""
    from results.predictions import Prediction

    probabilities = None if prediction.probabilities is None else prediction.probabilities.astype(np.float64)
    return Prediction(prediction.rows.astype(np.int64), prediction.values, probabilities)


def data_of(job: Job) -> Data:
    """The job's tokenised data, loaded once per process. Raises ValueError if data or base weights have changed."""
    return _open(job.data, job.tasks, job.base, job.fingerprint, job.base_sha256)


@functools.lru_cache(maxsize=1)
def _open(
    data: str | None,
    tasks: tuple[str, ...] | None,
    base: str | None,
    fingerprint: str,
    base_sha256: str,
) -> Data:
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.tasks import choose_tasks

    weights = find_base(base)
    _check_same(f"base weights {weights.name} (SHA-256)", base_sha256, weights.sha256)
    opened = open_data(data, weights, tasks=choose_tasks(tasks))
    _check_same(f"data in {data or 'the sample corpus'} (fingerprint)", fingerprint, opened.fingerprint)
    return opened


def _check_same(name: str, recorded: str, present: str) -> None:
    """Raise ValueError if a file has changed: scores could not be compared with the sweep's earlier ones."""
    if recorded and recorded != present:
        raise ValueError(
            f"{name}: the sweep began with {recorded}, now {present} is there. Bring the old files back and resume, or "
            "start a new sweep"
        )


def use_device(resources: Resources) -> None:
    """Limit torch to the trial's CPU cores, and on a shared GPU to the trial's share of its memory."""
    import torch

    torch.set_num_threads(resources.cpus_per_trial)
    if 0 < resources.gpus_per_trial < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(resources.gpus_per_trial)

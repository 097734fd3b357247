"""Cases around training: evaluation, start of a trial on a warm worker, peak memory of a whole trial."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import configuration
from benchmarks.speed import ours, theirs
from benchmarks.speed.case import WARM_UP, Case, Measure, Options, Side, run
from minbert.data.files import Corpus
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import find_base
from minbert.tasks import choose_tasks
from minbert.training.evaluation import predict_rows
from minbert.training.report import State, peak_memory
from minbert.training.train import train

SCORED_PER_STEP = 100
"""Rows of a task that are predicted for each of --steps; at most all of its `search` rows (2,000 pairs of QQP)."""

SCORED = 500
"""Rows of a task on which a report of the memory case is scored: the smallest number that a sweep uses."""

TASKS_HERE = choose_tasks()
SIZES = {"sst": 16, "qqp": 32, "sts": 16}
BATCH = 32
"""Rows of the rival's evaluation batches."""

CPU = torch.device("cpu")


def scored(parts: Any, task: str, count: int) -> list[int]:
    """The first `count` rows of a task's `search` split."""
    return [int(row) for row in parts[task, "search"][:count]]


def our_evaluation(options: Options) -> Measure:
    """Evaluated examples a second, ours."""
    trial = ours.opened(options, *ours.THREE)
    chosen = {name: scored(trial.data.parts, name, SCORED_PER_STEP * options.steps) for name in TASKS_HERE}

    def predict() -> None:
        for name, rows in chosen.items():
            predict_rows(trial.model, trial.data, name, "dev", np.asarray(rows, dtype=np.int32))

    predict_rows(trial.model, trial.data, "sst", "dev", np.asarray(chosen["sst"][:BATCH], dtype=np.int32))
    return lambda: _rows_a_second(predict, chosen, options)


def their_evaluation(options: Options) -> Measure:
    """Evaluated examples a second, the rival's."""
    from benchmarks import rival

    path, corpus = theirs.folder(options, False), theirs.rows_of(options, TASKS_HERE)
    model, tokenizer = rival.multitask(path, TASKS_HERE).to(rival.device()), rival.tokenizer_of(path)
    chosen = {name: scored(corpus.parts, name, SCORED_PER_STEP * options.steps) for name in TASKS_HERE}
    loaders = _dev_loaders(corpus, chosen, tokenizer)

    def predict() -> None:
        for name, loader in loaders.items():
            rival.predict(model, TASKS_HERE[name], loader)

    rival.predict(model, TASKS_HERE["sst"], [next(iter(loaders["sst"]))])
    return lambda: _rows_a_second(predict, chosen, options)


def _rows_a_second(predict: Any, chosen: Mapping[str, list[int]], options: Options) -> dict[str, Any]:
    times, seconds = run(predict, 1, options.seconds)
    return {"value": times * sum(map(len, chosen.values())) / seconds}


def _dev_loaders(corpus: Corpus, chosen: Mapping[str, list[int]], tokenizer: Any) -> dict[str, Any]:
    from benchmarks import rival

    return {
        name: rival.batches(rival.tokenised(corpus.rows[name, "dev"], rows, tokenizer), BATCH, tokenizer, shuffle=False)
        for name, rows in chosen.items()
    }


def start(*, second: bool) -> Side:
    """Seconds from the call of the worker's `train` to its first optimiser step; beside it those to the step's end.

    `second`: measure the second trial of the process instead of the first.
    """

    def side(options: Options) -> Measure:
        from hpo.worker import trainer
        from hpo.worker.job import Assignment, Job

        folder = tempfile.TemporaryDirectory()
        job = Job(folder.name, (ours.BUDGET,), data=options.data)
        config = configuration(*ours.THREE).to_dict()

        def measure(number: int) -> dict[str, Any]:
            polls: list[float] = []

            def should_pause() -> bool:  # called before each step, so it shows when a step begins
                polls.append(time.perf_counter())
                return len(polls) > 1

            begun = time.perf_counter()
            for _ in trainer.train(job, Assignment(number, 0, config, seed=number), should_pause):
                pass
            return {"value": polls[0] - begun, "first step done after, s": polls[1] - begun}

        if second:
            measure(0)
        return lambda: measure(1)

    return side


def our_memory(options: Options) -> Measure:
    """Peak memory in MiB of a process that trains one of our trials."""
    data: Data = open_data(options.data, find_base())
    rows = [dict.fromkeys(TASKS_HERE, SCORED)]
    budget = (WARM_UP + options.steps) * sum(SIZES.values())

    def measure() -> dict[str, Any]:
        loaded = peak_memory(CPU)  # a trial resets the peak at its start
        with tempfile.TemporaryDirectory() as folder:
            state = State.fresh(options.process, (budget,), Path(folder), report_rows=rows)
            for _ in train(configuration(*ours.THREE), data, state, device=CPU):
                pass
        return {"value": max(loaded, peak_memory(CPU)) / 2**20}

    return measure


def their_memory(options: Options) -> Measure:
    """Peak memory in MiB of a process that trains the rival."""
    from benchmarks import rival

    path, corpus = theirs.folder(options, False), theirs.rows_of(options, TASKS_HERE)
    tokenizer = rival.tokenizer_of(path)
    loaders = theirs.loaders(options, corpus, SIZES, tokenizer)
    chosen = {name: scored(corpus.parts, name, SCORED) for name in TASKS_HERE}
    scoring = _dev_loaders(corpus, chosen, tokenizer)

    def measure() -> dict[str, Any]:
        model = rival.multitask(path, TASKS_HERE)
        run(rival.multitask_step(model, TASKS_HERE, loaders), WARM_UP + options.steps)
        for name, loader in scoring.items():
            rival.predict(model, TASKS_HERE[name], loader)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "model.pt")
        return {"value": peak_memory(CPU) / 2**20}

    return measure


CASES = (
    Case("evaluation", "evaluation, MiniLM, three tasks", "examples/s", "5 x", our_evaluation, their_evaluation,
         "eval(), no_grad, dynamic padding, batches of 32", foreign=True),
    Case("start", "start of the second trial on a warm worker", "s", "0.2 s", start(second=True), start(second=False),
         "the first trial in its process"),
    Case("memory", "peak memory, whole MiniLM trial, 16 / 32 / 16", "MiB", "at most 1", our_memory, their_memory,
         "the same with transformers", foreign=True, processes=(1, 1)),
)  # fmt: skip

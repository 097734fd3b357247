"""The rival's sides of the cases: `benchmarks.rival` on the same rows as ours, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.case import Measure, Options, Side, gpu_peak, run, warm
from benchmarks.speed.ours import base_of
from minbert.data.batches import training_rows
from minbert.data.files import Corpus, Rows, read_corpus
from minbert.tasks import TASKS, Task, choose_tasks

ROWS = 8192
"""Largest number of a task's rows that are tokenised: more than are timed, but fewer than all, to load faster."""


def folder(options: Options, base_size: bool) -> Path:
    """Folder of the encoder."""
    path = base_of(options, base_size).path
    assert path is not None
    return path


def rows_of(options: Options, tasks: Iterable[str]) -> Corpus:
    """The corpus of these tasks."""
    return read_corpus(options.data, choose_tasks(tasks))


def in_our_order(corpus: Corpus, task: str, seed: int) -> list[int]:
    """The first ROWS rows of a task in our training order."""
    numbers = corpus.parts[task, "train"]
    return training_rows(numbers, seed, task, 0, min(len(numbers), ROWS))


def loaders(options: Options, corpus: Corpus, sizes: Mapping[str, int], tokenizer: Any) -> dict[str, Any]:
    """A loader for each task. It does not shuffle, because the rows are already in our shuffled order."""
    from benchmarks import rival

    by_task = {}
    for task, size in sizes.items():
        rows: Rows = corpus.rows[task, "train"]
        examples = rival.tokenised(rows, in_our_order(corpus, task, options.process), tokenizer)
        by_task[task] = rival.batches(examples, size, tokenizer, shuffle=False)
    return by_task


def training(sizes: Mapping[str, int], *, tuned: bool = False, base_size: bool = False) -> Side:
    """Training examples a second; each step takes a batch of each task. `sizes`: batch size of each task."""

    def side(options: Options) -> Measure:
        import torch

        from benchmarks import rival

        torch.manual_seed(options.process)
        path, corpus = folder(options, base_size), rows_of(options, sizes)
        task_loaders = loaders(options, corpus, sizes, rival.tokenizer_of(path))
        if len(sizes) == 1:
            (task,) = sizes
            step = rival.one_task_step(path, TASKS[task], task_loaders[task], tuned=tuned)
        else:
            tasks: dict[str, Task] = {task: TASKS[task] for task in sizes}
            step = rival.multitask_step(rival.multitask(path, tasks), tasks, task_loaders, tuned=tuned)
        warm(step)
        arithmetic = "bfloat16" if tuned else "float32"

        def measure() -> dict[str, Any]:
            steps, taken = run(step, options.steps, options.seconds)
            return {"value": steps * sum(sizes.values()) / taken, "arithmetic": arithmetic, **gpu_peak()}

        return measure

    return side

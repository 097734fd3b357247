"""The rival's sides: `benchmarks.rival` on the rows that ours trains on, in the same order."""

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
"""Rows of a task that are tokenised: more than the clock sees, and all of them would only take longer to load."""


def folder(options: Options, base_size: bool) -> Path:
    path = base_of(options, base_size).path
    assert path is not None
    return path


def rows_of(options: Options, tasks: Iterable[str]) -> Corpus:
    return read_corpus(options.data, choose_tasks(tasks))


def in_our_order(corpus: Corpus, task: str, seed: int) -> list[int]:
    """The first rows of our training order."""
    numbers = corpus.parts[task, "train"]
    return training_rows(numbers, seed, task, 0, min(len(numbers), ROWS))


def loaders(options: Options, corpus: Corpus, sizes: Mapping[str, int], tokenizer: Any) -> dict[str, Any]:
    """A loader for each task. Its order is fixed, because the rows are shuffled already, as ours are."""
    from benchmarks import rival

    found = {}
    for task, size in sizes.items():
        rows: Rows = corpus.rows[task, "train"]
        examples = rival.tokenised(rows, in_our_order(corpus, task, options.process), tokenizer)
        found[task] = rival.batches(examples, size, tokenizer, shuffle=False)
    return found


def training(sizes: Mapping[str, int], *, tuned: bool = False, base_size: bool = False) -> Side:
    """Training examples a second with a batch of so many rows of each task a step."""

    def side(options: Options) -> Measure:
        import torch

        from benchmarks import rival

        torch.manual_seed(options.process)
        path, corpus = folder(options, base_size), rows_of(options, sizes)
        given = loaders(options, corpus, sizes, rival.tokenizer_of(path))
        if len(sizes) == 1:
            (task,) = sizes
            step = rival.one_task_step(path, TASKS[task], given[task], tuned=tuned)
        else:
            tasks: dict[str, Task] = {task: TASKS[task] for task in sizes}
            step = rival.multitask_step(rival.multitask(path, tasks), tasks, given, tuned=tuned)
        warm(step)
        arithmetic = "bfloat16" if tuned else "float32"

        def measure() -> dict[str, Any]:
            steps, taken = run(step, options.steps, options.seconds)
            return {"value": steps * sum(sizes.values()) / taken, "arithmetic": arithmetic, **gpu_peak()}

        return measure

    return side

"""Estimate of a sweep's duration: a few optimiser steps of the default configuration, timed on this machine.

The estimate is rough: other configurations are cheaper (LoRA, a frozen encoder) or dearer (SMART, cross-encoding), and
the trials may use more or fewer examples than `hpo.search.expectation` says. The stages before training may take longer
than the training itself. They are given in rows and steps, without a time, because nobody knows how many of them a
sweep will draw.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster.resources import Resources
from hpo.launch.plan import Plan, Range, StageWork, complete_for
from hpo.space.reach import branches
from hpo.space.tree import nest
from hpo.worker.job import TRAINER

if TYPE_CHECKING:
    from minbert.data.files import Corpus
    from minbert.data.tokens import Data

WARM = 2
"""Steps before the timed ones: the first steps allocate memory."""
TIMED = 6
"""Steps that are timed."""
FAR = 1_000_000_000
"""Only milestone of the timed trial, in examples: so far away that no evaluation falls among the timed steps."""


def estimated(plan: Plan, corpus: Corpus) -> Plan:
    """The plan with its rough time and the work of its stages. A plan with another trainer is returned unchanged."""
    record = plan.record
    if record.trainer != TRAINER:
        return plan
    from hpo.worker.trainer import use_device
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    use_device(Resources(cpus_per_trial=record.resources.choose(cpus=1, gpus=0).cpus_per_trial))
    base = find_base(record.base.asked)
    data = open_data(record.data.folder, base, corpus=corpus)
    example_seconds, seconds = seconds_per_example(plan, data), None
    if example_seconds is not None and plan.resources is not None:
        # The default configuration runs to the end, however many others run beside it.
        cost = max(plan.expected_cost / plan.resources.workers, plan.full_cost)
        seconds = cost * example_seconds
    return replace(plan, preview=replace(plan.preview, seconds=seconds, stages=tuple(stage_work(plan, data))))


def seconds_per_example(plan: Plan, data: Data) -> float | None:
    """Training seconds per example on one worker; None where too few steps were timed."""
    from minbert.config import Config
    from minbert.stages.stages import Stages
    from minbert.training.train import State, train

    start = plan.sweep(workers=1).next()
    assert start is not None, "a sweep begins with the default configuration"
    # No stages: they may take hours, and their results would fill the cache.
    config = replace(Config.from_dict(start.config, data.tasks), stages=Stages())
    marks: list[tuple[float, int]] = []  # after each step: the time, and the examples so far
    with tempfile.TemporaryDirectory(prefix="hpo-estimate-") as folder:
        state = State.fresh(plan.record.seed, (FAR,), Path(folder))

        def on_step(examples: int) -> None:
            marks.append((time.monotonic(), examples))

        for _ in train(config, data, state, lambda: len(marks) > WARM + TIMED, on_step=on_step):
            break
    if len(marks) <= WARM + 1:
        return None
    (begin, examples_before), (end, examples_after) = marks[WARM], marks[-1]
    return (end - begin) / (examples_after - examples_before) if examples_after > examples_before else None


def stage_work(plan: Plan, data: Data) -> Iterator[StageWork]:
    """Rows, steps and batch sizes of each kind of stage that some trial may have."""
    from minbert.stages.loop import steps_of
    from minbert.stages.stages import STAGES, NoStage

    for kind in STAGES:
        rows: dict[tuple[Any, ...], int] = {}
        steps: set[int] = set()
        sizes: set[int] = set()
        for stage in _possible_stages(plan, kind):
            if not isinstance(stage, NoStage):
                reading = tuple(getattr(stage, name, None) for name in READ_BY)
                if reading not in rows:
                    rows[reading] = len(stage.read(data).labels)
                steps.add(steps_of(stage, rows[reading]))
                sizes.add(stage.batch_size)
        if rows:
            yield StageWork(kind, _range(rows.values()), _range(steps), _range(sizes))


READ_BY = ("source", "min_score")
"""Settings of a stage that decide which rows it reads."""


def _possible_stages(plan: Plan, kind: str) -> Iterator[Any]:
    """Every stage of one kind that the space can draw, as far as its rows and steps depend on the draw.

    Of a choice every value is taken, of a range both ends.
    """
    from minbert.config import Config

    paths = {f"stages/{kind}/{name}" for name in ("kind", "epochs", "batch_size", *READ_BY)}
    leaves = [
        replace(leaf, conditions=tuple(condition for condition in leaf.conditions if condition[0] in paths))
        for leaf in plan.space.leaves
        if leaf.path in paths
    ]
    tasks = plan.declared()
    for config in (*map(nest, branches(leaves)), *plan.record.start):
        config = plan.space.apply(config, complete_for(tasks, plan.record.base.traits))
        yield getattr(Config.from_dict(config, tasks).stages, kind)


def _range(numbers: Iterable[int]) -> Range:
    values = list(numbers)
    return min(values), max(values)

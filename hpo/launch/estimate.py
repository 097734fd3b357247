"""How long a sweep may take, from the time of a few optimiser steps of its default configuration on this machine.

Rough on purpose: other configurations are cheaper (LoRA, a frozen encoder) or dearer (SMART, cross-encoding), and
rungs stop more or fewer trials than one of eta. It says minutes or hours, not a time of day. The stages before
training, which may take longer than all else, are given in rows and steps: a sweep draws an unknown number of them.
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

if TYPE_CHECKING:
    from minbert.data.files import Corpus
    from minbert.data.tokens import Data

WARM = 2
"""Steps left out: the first ones allocate."""
TIMED = 6
"""Steps that are timed."""
FAR = 1_000_000_000
"""Examples at which the timed trial would report: no evaluation falls among its few steps, whatever the rungs are."""


def estimated(plan: Plan, corpus: Corpus) -> Plan:
    """The plan with its rough time and the work of its stages, where the trainer is the real one."""
    record = plan.record
    if record.trainer != "hpo.worker.trainer":
        return plan
    from hpo.worker.trainer import use_device
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    use_device(Resources(cpus_per_trial=record.resources.choose(cpus=1, gpus=0).cpus_per_trial))
    base = find_base(record.base.asked)
    data = open_data(record.data.folder, base, search_sizes=dict(record.search_sizes), corpus=corpus)
    rate, seconds = seconds_per_example(plan, data), None
    if rate is not None and plan.resources is not None:
        training = plan.expected_examples * rate / plan.resources.workers
        seconds = training / (1 - plan.preview.evaluation_share)
    return replace(plan, preview=replace(plan.preview, seconds=seconds, stages=tuple(stage_work(plan, data))))


def seconds_per_example(plan: Plan, data: Data) -> float | None:
    """Training time of one example on one worker; None where too few steps could be timed."""
    from minbert.config import Config
    from minbert.stages.stages import Stages
    from minbert.training.train import State, train

    # Stages before training may take hours, and would be kept in the cache: an estimate does neither.
    start = plan.sweep(workers=1).next()
    assert start is not None, "a sweep begins with the default configuration"
    config = replace(Config.from_dict(start.config, data.tasks), stages=Stages())
    marks: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory(prefix="hpo-estimate-") as folder:
        state = State.fresh(plan.record.seed, (FAR,), Path(folder))

        def on_step(examples: int) -> None:
            marks.append((time.monotonic(), examples))

        for _ in train(config, data, state, lambda: len(marks) > WARM + TIMED, on_step=on_step):
            break
    if len(marks) <= WARM + 1:
        return None
    (begin, first), (end, last) = marks[WARM], marks[-1]
    return (end - begin) / (last - first) if last > first else None


def stage_work(plan: Plan, data: Data) -> Iterator[StageWork]:
    """The work of each kind of stage that some trial may have."""
    from minbert.stages.loop import steps_of
    from minbert.stages.stages import STAGES, NoStage

    for kind in STAGES:
        rows: dict[tuple[Any, ...], int] = {}
        steps: set[int] = set()
        sizes: set[int] = set()
        for stage in _settings(plan, kind):
            if not isinstance(stage, NoStage):
                reads = tuple(getattr(stage, name, None) for name in READ_BY)
                if reads not in rows:
                    rows[reads] = len(stage.read(data).labels)
                steps.add(steps_of(stage, rows[reads]))
                sizes.add(stage.batch_size)
        if rows:
            yield StageWork(kind, _range(rows.values()), _range(steps), _range(sizes))


READ_BY = ("source", "min_score")
"""Settings of a stage that decide which rows it reads."""


def _settings(plan: Plan, kind: str) -> Iterator[Any]:
    """One kind of stage with every choice, and the ends of every range, that decides its rows and steps."""
    from minbert.config import Config

    counted = {f"stages/{kind}/{name}" for name in ("kind", "epochs", "batch_size", *READ_BY)}
    own = [
        replace(leaf, conditions=tuple(condition for condition in leaf.conditions if condition[0] in counted))
        for leaf in plan.space.leaves
        if leaf.path in counted
    ]
    tasks = plan.declared()
    for config in (*map(nest, branches(own)), *plan.record.start):
        config = plan.space.apply(config, complete_for(tasks))
        yield getattr(Config.from_dict(config, tasks).stages, kind)


def _range(numbers: Iterable[int]) -> Range:
    values = list(numbers)
    return min(values), max(values)

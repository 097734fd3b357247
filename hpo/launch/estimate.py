"""Estimate of a sweep's duration: a few optimiser steps of the default configuration, timed on this machine.

Other configurations are cheaper (LoRA, a frozen encoder) or dearer (SMART, surgery): draws from the space say by how
much on average (`minbert.training.cost`). The estimate stays rough: a searcher that learns draws others, and the trials
may use more or fewer examples than `hpo.search.expectation` says. The stages before training may take longer than the
training itself. Their time is given for each stage apart, with the share of draws that have it: trials that ask for the
same stage share its result.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster.resources import Resources
from hpo.launch.plan import CostSpread, Plan, Range, StageWork, complete_for
from hpo.space.reach import branches
from hpo.space.tree import compose, nest
from hpo.worker.job import TRAINER

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.files import Corpus
    from minbert.data.tokens import Data, TaskFile
    from minbert.training.cost import Workload

WARM = 2
"""Steps before the timed ones: the first steps allocate memory."""
TIMED = 6
"""Steps that are timed."""
FAR = 1_000_000_000
"""Only milestone of the timed trial, in examples: so far away that no evaluation falls among the timed steps."""


DRAWS = 200
"""Draws from the space: with them the quantiles that are shown have a standard error of about 5 % of the cost."""


def estimated(plan: Plan, corpus: Corpus) -> Plan:
    """The plan with its rough time, the costs of its draws and the work of its stages.

    A plan with another trainer is returned unchanged.
    """
    record = plan.record
    if record.trainer != TRAINER:
        return plan
    from hpo.worker.trainer import use_device
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.training.cost import Workload

    use_device(Resources(cpus_per_trial=record.resources.choose(cpus=1, gpus=0).cpus_per_trial))
    base = find_base(record.base.asked)
    data = open_data(record.data.folder, base, corpus=corpus)
    example_seconds, seconds = seconds_per_example(plan, data), None
    workload, configs = Workload.of(corpus, base.traits), drawn(plan)
    costs = cost_spread(configs, workload)
    if example_seconds is not None and plan.resources is not None:
        mean = costs.mean if costs is not None else 1.0
        # The default configuration runs to the end, however many others run beside it.
        cost = max(plan.expected_cost * mean / plan.resources.workers, plan.full_cost)
        seconds = cost * example_seconds
    stages = tuple(stage_work(plan, data, workload, configs))
    preview = replace(plan.preview, example_seconds=example_seconds, seconds=seconds, costs=costs, stages=stages)
    return replace(plan, preview=preview)


def drawn(plan: Plan) -> list[Config]:
    """Configurations drawn from the space, DRAWS at most; without those that the configuration refuses."""
    from minbert.config import Config

    if all(leaf.constant for leaf in plan.space.leaves):
        return []
    tasks, source, configs = plan.declared(), random.Random(0), []
    complete = complete_for(tasks, plan.record.base.traits)
    for _ in range(DRAWS):
        nested, _ = compose(plan.space.leaves, lambda leaf: leaf.drawn(source))
        with contextlib.suppress(ValueError):  # a rare combination, which fails in a sweep too
            configs.append(Config.from_dict(plan.space.apply(nested, complete), tasks))
    return configs


def cost_spread(configs: Sequence[Config], workload: Workload) -> CostSpread | None:
    """Spread of the configurations' costs; None for fewer than two."""
    from minbert.training.cost import cost

    if len(configs) < 2:
        return None
    costs = [cost(config, workload) for config in configs]
    tenths = statistics.quantiles(costs, n=10, method="inclusive")
    return CostSpread(len(costs), tenths[0], statistics.median(costs), tenths[-1], max(costs), statistics.fmean(costs))


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


def stage_work(plan: Plan, data: Data, workload: Workload, configs: Sequence[Config]) -> Iterator[StageWork]:
    """Work of each kind of stage that some trial may have, and the share of the drawn `configs` that have it."""
    from minbert.stages.loop import steps_of
    from minbert.stages.stages import STAGES, NoStage, reading
    from minbert.training.cost import stage_examples

    for kind in STAGES:
        read: dict[tuple[Any, ...], tuple[int, float]] = {}  # rows, and their mean number of word pieces
        steps, sizes, examples = set(), set(), set()
        for stage in _possible_stages(plan, kind):
            if not isinstance(stage, NoStage):
                if reading(stage) not in read:
                    read[reading(stage)] = _size(stage.read(data), stage.sequences)
                rows, tokens = read[reading(stage)]
                steps.add(steps_of(stage, rows))
                sizes.add(stage.batch_size)
                examples.add(round(stage_examples(stage, rows, tokens, workload)))
        if read:
            counts = _range(rows for rows, _ in read.values())
            with_it = sum(not isinstance(getattr(config.stages, kind), NoStage) for config in configs)
            share = with_it / max(1, len(configs))
            yield StageWork(kind, counts, _range(steps), _range(sizes), _range(examples), share)


def _size(file: TaskFile, sequences: int) -> tuple[int, float]:
    """Rows of a stage's file, and their mean number of word pieces, special tokens included."""
    rows = len(file.labels)
    return rows, sum(int(texts.offsets[-1]) for texts in file.texts) / rows + len(file.texts) + sequences


def _possible_stages(plan: Plan, kind: str) -> Iterator[Any]:
    """Every stage of one kind that the space can draw, as far as its rows and steps depend on the draw.

    Of a choice every value is taken, of a range both ends.
    """
    from minbert.config import Config
    from minbert.stages.stages import READ_BY

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

"""Milestones of a trial: how many rows the report at each of them is scored on, and how early the first may lie.

A report is scored on the first rows of each task's `search` part. Their number grows with the milestone, and the part
lies in the order of a hash, so the rows of an earlier report are among those of every later one. With C_i rows in all
reports up to the milestone of m_i examples, F the cost of evaluating a row (in trained examples) and s the share of
time that evaluation may take:

    F C_i / (m_i + F C_i) <= s     or     C_i <= s / (1 - s) m_i / F

Pure functions: the same configuration, sizes and budget give the same numbers, whatever a trial costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minbert.config import Config

EVALUATION_VERSION = 2
"""Version of what a report is scored on; raise it when the same weights at the same milestone get another score.

1: equally many rows at every milestone. 2: rows that grow with the milestone.
"""

FORWARD_SHARE = 1 / 3
"""Cost F of evaluating a row, as a share of training on it: the forward pass of forward, backward and update.

Measured on one thread of a CPU (`docs/log.md`): 0.22 to 0.27 with full fine-tuning, 0.37 with LoRA.
"""

EVALUATION_SHARE = 0.15
"""Largest share s of a trial's time that its evaluation takes, up to any of its milestones."""

LEAST_ROWS = 200
"""Fewest rows of a task that a report is scored on, if there are as many; this limit wins over EVALUATION_SHARE."""

JUDGED_STEPS = 100
"""Optimiser steps after which a trial can be compared with others."""

JUDGED_WARMUPS = 2
"""Multiple of the warm-up after which a trial can be compared with others: as many examples at the peak rate."""


def affordable(examples: float) -> float:
    """Rows whose evaluation takes EVALUATION_SHARE of the time of a trial that trains on so many examples."""
    return EVALUATION_SHARE / (1 - EVALUATION_SHARE) * examples / FORWARD_SHARE


def spread(rows: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide a number of rows among tasks with so many rows each: all tasks equally, small tasks are filled first."""
    chosen: dict[str, int] = {}
    for index, task in enumerate(sorted(sizes, key=sizes.__getitem__)):
        chosen[task] = min(sizes[task], rows // (len(sizes) - index))
        rows -= chosen[task]
    return {task: chosen[task] for task in sizes}


def report_rows(sizes: Mapping[str, int], milestones: Sequence[int]) -> tuple[dict[str, int], ...]:
    """Number of `search` rows of each task that the report at each milestone is scored on.

    Up to every milestone evaluation takes at most EVALUATION_SHARE of a trial's time, but a report has at least
    LEAST_ROWS of each task, and the last one has all rows: full-budget trials are compared on them, and ensembles are
    chosen among trials that have predicted them. No task has fewer rows than at an earlier milestone. `sizes`: `search`
    rows by task. Milestones ascend.
    """
    everything = sum(sizes.values())
    least = sum(min(size, LEAST_ROWS) for size in sizes.values())
    *bounds, last = map(affordable, milestones)  # most rows of all reports up to each milestone
    if bounds:
        bounds[-1] = min(bounds[-1], last - everything)
    totals: list[int] = []
    for index in range(len(bounds)):
        # The rate at which rows may be used from here on, such that no later bound is exceeded.
        rate = min((bound - sum(totals)) / reports for reports, bound in enumerate(bounds[index:], start=1))
        totals.append(min(everything, max(least, int(rate))))
    return tuple(spread(rows, sizes) for rows in (*totals, everything))


def costs(milestones: Sequence[int], rows: Sequence[Mapping[str, int]]) -> list[float]:
    """Cost of a trial that ends at each milestone, evaluation included, in trained examples."""
    scored = itertools.accumulate(sum(counts.values()) for counts in rows)
    return [step + FORWARD_SHARE * count for step, count in zip(milestones, scored, strict=True)]


def evaluation_shares(milestones: Sequence[int], rows: Sequence[Mapping[str, int]]) -> list[float]:
    """Share of the time of a trial that ends at each milestone that its evaluation takes, in [0, 1]."""
    return [1 - step / cost for step, cost in zip(milestones, costs(milestones, rows), strict=True)]


def rows_of_steps(config: Config, sizes: Mapping[str, int], budget: int, steps: int, seed: int = 0) -> dict[str, int]:
    """Training rows of each task in the first optimiser steps of a configuration.

    `sizes`: training rows by task. Where the mixing draws tasks at random, `seed` is that of the trial.
    """
    from minbert.techniques.mixings import Mix  # imported here: displays need the rows of a report without torch

    batches = {task: config.batch_size[task] for task in sizes}
    order = config.mixing.build(Mix(sizes, seed, batches))
    rows, draws = dict.fromkeys(sizes, 0), itertools.count()
    for _ in range(steps):
        progress = min(1.0, sum(rows.values()) / budget)  # at the start of the step, for all of its draws
        for draw in itertools.islice(draws, config.optimizer.accumulation):
            for task in order.tasks(draw, progress):
                rows[task] += batches[task]
    return rows


def examples_to_judge(config: Config, sizes: Mapping[str, int], budget: int) -> int:
    """Training rows after which a trial of this configuration can be compared with others.

    They are those of JUDGED_STEPS optimiser steps, and at least JUDGED_WARMUPS times those of its warm-up. `sizes`:
    training rows by task.
    """
    judged = sum(rows_of_steps(config, sizes, budget, JUDGED_STEPS).values())
    schedule = config.optimizer.schedule
    warmup = min(schedule.warmup_steps * judged / JUDGED_STEPS, schedule.warmup_share * budget)
    return max(judged, math.ceil(JUDGED_WARMUPS * warmup))

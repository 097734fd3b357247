"""The history of a large sweep: rows of its trials and reports, with configurations drawn from the space `full`.

Every trial reports at ten milestones and ends with the full budget, except one in 50 that is lost once and reports a
step again, one in 100 that diverges at its third report, and one in 100 that fails. Scores are random and grow with the
step. Only the last report of a trial brings evidence, as compaction drops the rest. To save time, trials share DRAWS
configurations and POOL pieces of evidence.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hpo.cluster.resources import ResourceRequest
from hpo.launch.plan import complete_for
from hpo.launch.record import BaseRecord, DataRecord, SweepRecord, TaskRecord
from hpo.samplers.problem import Problem
from hpo.search.searchers import Random
from hpo.search.states import configuration_id
from hpo.search.study import Study
from hpo.search.sweep import training_seed
from hpo.space.build import build
from hpo.space.source import to_json
from minbert.tasks import choose_tasks
from results.evidence import Evidence

DRAWS = 200
"""Number of different configurations."""
POOL = 64
"""Number of different pieces of evidence."""
WORKERS = 8
BUDGET = 20_000
SEARCH = {"sst": 550, "qqp": 2_000, "sts": 431}
"""Rows of `search` of each task."""
HELD = {"sst": 551, "qqp": 5_000, "sts": 432}
"""Rows of `held` of each task."""
TRAINABLE = 22_713_216
CREATED = 1_700_000_000.0


class Row(NamedTuple):
    """A row of `trials` or `reports`, with the evidence of a report."""

    table: str
    values: dict[str, Any]
    evidence: Evidence | None = None


def milestones(reports: int) -> tuple[int, ...]:
    """Evenly spaced numbers of examples; the last is the budget."""
    return tuple(BUDGET * number // reports for number in range(1, reports + 1))


def record(name: str, trials: int, reports: int) -> SweepRecord:
    """The description of the sweep."""
    tasks, steps = choose_tasks(None), milestones(reports)
    space = build("full", list(tasks)).space.resolved(complete_for(tasks))
    return SweepRecord(
        name=name, space=to_json(space.tree), space_hash="0", pinned={}, start=[], warm_start=[], exempt=(0,), seed=0,
        trials=trials, milestones=steps, searcher={"name": "random"}, scheduler={"name": "none"},
        objectives=("overall",), trainer="hpo.worker.trainer", resources=ResourceRequest(8, 1, 0.0), keep=20, repeats=0,
        data=DataRecord(None, "benchmark"), base=BaseRecord(None, "benchmark", "0"), report_rows=(SEARCH,) * reports,
        tasks={task: TaskRecord.of(declared) for task, declared in tasks.items()}, versions={}, config_version=1,
        evaluation_version=1, argv=[], created=CREATED,
    )  # fmt: skip


def examples() -> Iterator[dict[str, Any]]:
    """Rows of table `examples`, with labels of the right kind."""
    rng = np.random.default_rng(0)
    for task, declared in choose_tasks(None).items():
        for split, numbers in (
            ("search", range(SEARCH[task])),
            ("held", range(SEARCH[task], SEARCH[task] + HELD[task])),
        ):
            for place, row in enumerate(numbers):
                label = rng.integers(declared.classes) if declared.kind == "classification" else rng.uniform(0, 5)
                yield {
                    "task": task, "split": split, "row": row, "id": f"{row:x}", "label": float(label), "place": place
                }  # fmt: skip


def evidence(rng: np.random.Generator, numbers: Mapping[str, int] = SEARCH) -> Evidence:
    """Evidence of a report: random predictions for so many rows of each task, every row of `search`."""
    found: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    for task, declared in choose_tasks(None).items():
        rows = numbers[task]
        if declared.kind == "regression":
            found[task] = rng.uniform(0, 5, rows).astype(np.float32)
        elif declared.classes == 2:
            found[task] = rng.uniform(0, 1, rows).astype(np.float16)
        else:
            found[task] = rng.dirichlet(np.ones(declared.classes), rows).astype(np.float16)
    return found


def rows(trials: int, reports: int) -> Iterator[Row]:
    """The rows of a sweep, in the order of events, WORKERS trials at a time."""
    rng = np.random.default_rng(0)
    starts, pieces = drawn(min(trials, DRAWS)), [evidence(rng) for _ in range(POOL)]
    running: list[tuple[int, Iterator[Row]]] = []
    free, numbers, choice = list(range(WORKERS)), iter(range(trials)), random.Random(0)
    while True:
        while free and (number := next(numbers, None)) is not None:
            start, fate = starts[number % len(starts)], number % 100 if number else 2
            if number >= DRAWS:  # configurations come again, and their trials are no repeats
                start = start | {"config_id": f"{number:016x}"}
            rest = trial(number, start, milestones(reports), pieces[number % POOL], fate)
            running.append((free.pop(0), rest))
        if not running:
            return
        worker, rest = choice.choice(running)
        row = next(rest, None)
        if row is None:
            running.remove((worker, rest))
            free.append(worker)
        elif row.table == "reports":
            yield row._replace(values=row.values | {"place": f"node-{worker + 1}", "pid": 1000 + worker})
        else:
            yield row


def drawn(count: int) -> list[dict[str, Any]]:
    """What differs between the starts of trials: configuration, its identity and its drawn parameters."""
    tasks = choose_tasks(None)
    complete = complete_for(tasks)
    space = build("full", list(tasks)).space.resolved(complete)
    study = Study(Problem(space.leaves), 0, Random())
    starts = []
    for number in range(count):
        config, params = {}, {}
        if number:
            draw = study.draw(number)
            config, params = draw.config, draw.params
        with contextlib.suppress(ValueError):  # an illegal draw fails on its worker; here it counts as any other
            config = space.apply(config, complete)
        identity = configuration_id(config)
        starts.append({"config": json.dumps(config), "params": json.dumps(params), "config_id": identity})
    return starts


def trial(
    number: int, start: dict[str, Any], steps: tuple[int, ...], last_evidence: Evidence, fate: int
) -> Iterator[Row]:
    """The rows of a trial, whose start has the values of `start`. `fate`: 0 diverges, 1 fails, 50 and 99 are lost once,
    any other completes."""
    rng = random.Random(number)
    event = {"trial": number, "origin": "sampler" if number else "default", "seed": training_seed(0, number, 0)}
    event |= {"searcher": "random" if number else None, "replicate": 0, **start}
    yield Row("trials", {"attempt": 0, "event": "start", **event})
    attempt, level = 0, rng.gauss(0.6, 0.05)
    for place, step in enumerate(steps):
        if fate == 1 and place == 1:
            reason, error = "ValueError: no such thing", "Traceback (most recent call last):\n" + "  File ...\n" * 20
            yield Row("trials", _end(number, attempt, "failed", reason=reason, error=error))
            return
        last, diverged = place == len(steps) - 1, fate == 0 and place == 2
        row = _report(number, attempt, step, level + place / 100 + rng.gauss(0, 0.01), rng)
        if diverged:
            row |= {"overall": float("nan"), "diverged": True, "verdict": "stop"}
        yield Row("reports", row, last_evidence if last and not diverged else None)
        if diverged:
            yield Row("trials", _end(number, attempt, "diverged", reason="non-finite loss"))
            return
        if fate in (50, 99) and place == 4 and attempt == 0:
            yield Row("trials", _end(number, attempt, "lost", reason="worker process died"))
            attempt = 1
            yield Row("trials", {"attempt": 1, "event": "start", **event})
            yield Row("reports", _report(number, 1, step, level, rng))
    kept = row["checkpoint"] if number < 20 else None
    yield Row(
        "trials", _end(number, attempt, "complete", reason=f"full budget of {BUDGET:,} examples", checkpoint=kept)
    )


def _end(number: int, attempt: int, state: str, **more: Any) -> dict[str, Any]:
    return {"trial": number, "attempt": attempt, "event": "end", "state": state, **more}


def _report(number: int, attempt: int, step: int, value: float, rng: random.Random) -> dict[str, Any]:
    tasks = ("sst", "qqp", "sts")
    return {
        "trial": number, "attempt": attempt, "step": step, "examples": step + rng.randrange(32), "overall": value,
        "scores": {task: value + rng.gauss(0, 0.05) for task in tasks},
        "losses": {task: rng.random() for task in tasks}, "flags": [],
        "diverged": False, "verdict": "continue", "seconds": step * 0.01 + rng.random(),
        "evaluation_seconds": rng.random(), "trainable_parameters": TRAINABLE, "total_parameters": TRAINABLE,
        "peak_memory_bytes": rng.randrange(10**9), "examples_per_task": dict.fromkeys(tasks, step // 3),
        "checkpoint": f"/store/sweep/checkpoints/{number}/{attempt}-{step}", "checkpoint_bytes": 90_000_000,
        "checkpoint_sha256": f"{rng.getrandbits(256):064x}",
    }  # fmt: skip

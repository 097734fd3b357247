"""A small finished sweep, written through the store's public interface, for tests of commands that only read.

Six trials over three tasks: 0 to 3 reached the full budget, each with better predictions than the one before, 4 was
stopped at the first rung, 5 raised an error. Trials 0 to 2 have kept weights and have predicted; as in a store of an
earlier version there is no evidence, and each has one file of predictions. With `unpredicted=True` trial 3 has kept
weights too, and no predictions, and trials 0 to 3 have evidence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hpo.cluster.resources import ResourceRequest
from hpo.launch.record import BaseRecord, DataRecord, SweepRecord, TaskRecord
from minbert.tasks import DEFAULT_TASKS
from minbert.tasks import TASKS as DECLARED
from results.store import Store, SweepFolder

TASKS = {name: DECLARED[name] for name in DEFAULT_TASKS}
MILESTONES = (100, 300)
ROWS = 40
"""Rows of a dev file: half are `search`, one has no label, the others are `held`. A test file has half as many rows."""
ERROR = 'Traceback (most recent call last):\n  File "train.py", line 1\nMemoryError: no room [left]'
START = 1_700_000_000.0


def record(name: str, trials: int = 6) -> SweepRecord:
    return SweepRecord(
        name=name,
        space={},
        space_hash="0",
        pinned={},
        start=[],
        warm_start=[],
        exempt=(0,),
        seed=0,
        trials=trials,
        milestones=MILESTONES,
        searcher={"name": "tpe"},
        scheduler={"name": "asha", "eta": 3, "grace": MILESTONES[0]},
        objectives=("overall",),
        trainer="hpo.worker.trainer",
        resources=ResourceRequest(2, 1, 0.0),
        keep=20,
        repeats=0,
        data=DataRecord(None, "f"),
        base=BaseRecord("tiny", "tiny", "s"),
        report_rows=(dict.fromkeys(TASKS, ROWS // 4), dict.fromkeys(TASKS, ROWS // 2)),
        tasks={name: TaskRecord.of(task) for name, task in TASKS.items()},
        versions={},
        config_version=1,
        evaluation_version=1,
        argv=[],
        created=START,
    )


def truth(task: str) -> np.ndarray[Any, Any]:
    """Labels of a dev file."""
    rng = np.random.default_rng(len(task))
    spec = TASKS[task]
    return (
        rng.integers(0, spec.classes, ROWS).astype(float) if spec.kind == "classification" else rng.uniform(0, 5, ROWS)
    )


def split_of(row: int) -> str:
    return "dev" if row == ROWS - 1 else "search" if row % 2 else "held"


def identity(task: str, file: str, row: int) -> str:
    return f"{task}{file}{row * 7919 % 1000:03d}"


def examples() -> list[dict[str, Any]]:
    rows = []
    for task in TASKS:
        labels = truth(task)
        for row in reversed(range(ROWS)):  # not in the order of the file
            label = None if split_of(row) == "dev" else float(labels[row])
            place = sum(split_of(later) == split_of(row) for later in range(row + 1, ROWS))
            example = {"task": task, "split": split_of(row), "row": row, "id": identity(task, "dev", row)}
            rows.append({**example, "label": label, "place": place})
        rows += [
            {"task": task, "split": "test", "row": row, "id": identity(task, "test", row), "label": None, "place": row}
            for row in range(ROWS // 2)
        ]
    return rows


def evidence(trial: int) -> dict[str, Any]:
    """The trial's predictions on `search`, as evidence: in the order of `place`, descending rows."""
    found = {}
    for task, spec in TASKS.items():
        rows = [row for row in predictions(trial) if row["task"] == task and row["split"] == "search"][::-1]
        if spec.kind == "regression":
            found[task] = np.array([row["value"] for row in rows], np.float32)
        else:
            chances = np.array([row["probabilities"] for row in rows], np.float16)
            found[task] = chances[:, 1] if spec.classes == 2 else chances
    return found


def predictions(trial: int, attempt: int = 0) -> list[dict[str, Any]]:
    """Prediction rows of a trial; the higher its number, the fewer are wrong."""
    rng = np.random.default_rng(trial)
    rows = []
    for task, spec in TASKS.items():
        labels = truth(task)
        for file, size in (("dev", ROWS), ("test", ROWS // 2)):
            for row in range(size):
                value = float(labels[row])
                if spec.kind == "regression":
                    value += float(rng.normal(0, 2.0 - 0.5 * trial))
                elif rng.random() < 0.6 - 0.15 * trial:
                    value = float((value + 1) % spec.classes)
                chance = None if spec.kind == "regression" else [float(value == c) for c in range(spec.classes)]
                split = split_of(row) if file == "dev" else "test"
                key = {"trial": trial, "attempt": attempt, "task": task, "split": split, "row": row}
                rows.append({**key, "value": value, "probabilities": chance})
    return rows


def config(trial: int) -> dict[str, Any]:
    return {"adapter": {"kind": "lora", "rank": 2 ** (trial + 1), "targets": ["query", "value"]}, "max_length": 64}


def scores(trial: int, step: int) -> dict[str, float]:
    gain = 0.05 * trial + 0.1 * (step == MILESTONES[-1])
    return {"sst": 0.3 + gain, "qqp": 0.6 + gain, "sts": 0.5 + gain}


def overall(values: dict[str, float]) -> float:
    return (values["sst"] + values["qqp"] + (1 + values["sts"]) / 2) / 3


def make(store: Path, name: str = "small-1", *, unpredicted: bool = False) -> SweepFolder:
    """Write the sweep described above into the store at this path."""
    folder = Store(store).create(name, record(name).to_json())
    writer = folder.writer()
    clock = iter(range(1000))

    def add(table: str, evidence: Any = None, **row: Any) -> None:
        writer.append(table, {"attempt": 0, "time": START + next(clock), "host": "somewhere", **row}, evidence)

    for trial in range(6):
        text = json.dumps(config(trial))
        add("trials", trial=trial, event="start", origin="sampler" if trial else "default", config=text,
            params=json.dumps({"adapter.lora/rank": 2 ** (trial + 1)}), seed=trial, pid=1)  # fmt: skip
        for step in MILESTONES if trial < 4 else MILESTONES[:1] if trial == 4 else ():
            values = scores(trial if trial < 4 else -2, step)
            stop = trial == 4 or step == MILESTONES[-1]
            seen = evidence(trial) if unpredicted and trial < 4 else None
            add("reports", seen, trial=trial, step=step, examples=step + 2, overall=overall(values), scores=values,
                losses=dict.fromkeys(values, 1.0), flags=[], diverged=False, verdict="stop" if stop else "continue",
                seconds=float(step), evaluation_seconds=1.0, stage_seconds=75.0, trainable_parameters=10,
                total_parameters=100, peak_memory_bytes=2**20,
                examples_per_task=dict.fromkeys(values, step // 3))  # fmt: skip
        state = "failed" if trial == 5 else "pruned" if trial == 4 else "complete"
        kept = str(store / name / "checkpoints" / str(trial) / "0-302") if trial < (4 if unpredicted else 3) else None
        add("trials", trial=trial, event="end", state=state, reason="MemoryError" if trial == 5 else "", pid=1,
            error=ERROR if trial == 5 else None, checkpoint=kept)  # fmt: skip
    writer.barrier()
    writer.close()
    folder.write_table("examples", examples(), key="f")
    for trial in range(3):
        folder.write_table("predictions", predictions(trial), key=f"{trial}-0")
    log = store / name / "logs" / "3.log"
    log.parent.mkdir()
    log.write_text("step 1\nstep 2\n", encoding="utf-8")
    return folder

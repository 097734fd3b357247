"""A trainer without a model, in place of `hpo.worker.trainer`: scores from a formula, faults from a script, real
checkpoints.

Files in the sweep's folder control it:

- `faults.json` maps a trial's number to its fault: {"kind": "raise", "at": 2, "attempts": [0]}. `at` is the index of
the milestone before which the fault happens; without `attempts` it happens in every attempt. The fault `wait` waits for
the pause, so that a test does not depend on the speed of the machine.
- `broken.json` holds the number of a GPU on which every trial meets the fault `device` at once.
- `slow.json` holds the seconds that every optimiser step takes; `slow_predictions.json` those of a prediction.

It writes a file `predicting` when a prediction begins, and to `calls.log` a line for every training that begins: trial,
attempt, examples at which it begins, process.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo.worker.job import Assignment, Job
from minbert.fields import ConfigError
from results.predictions import Prediction

STEPS = 4
"""Optimiser steps between two milestones."""


@dataclass(frozen=True)
class Report:
    values: Mapping[str, Any]
    evidence: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return dict(self.values)


def score(config: Mapping[str, Any], examples: int, budget: int) -> float:
    """The score: highest at a learning rate of 1e-4, and growing with the number of examples."""
    distance = abs(math.log10(config["optimizer"]["encoder_lr"]) + 4)
    return (0.9 - 0.1 * distance) * (0.5 + 0.5 * examples / budget)


SPLITS = {"search": (6, 4, 2, 0), "held": (1, 3, 5, 7), "test": (0, 1, 2)}
"""Rows of each split of each task, in the order in which they are scored."""


def label(task: str, row: int) -> float:
    return {"sst": row % 5, "qqp": row // 2 % 2, "sts": row / 2}[task]


def guess(task: str, row: int, value: float) -> float:
    """What a model with this score predicts: the better it is, the more rows are right."""
    right = row * 7 % 8 < 8 * value
    return label(task, row) if right else {"sst": (row + 1) % 5, "qqp": 1 - row // 2 % 2, "sts": 0.3 * row % 2}[task]


def evidence(value: float) -> dict[str, Any]:
    """Evidence of a report with this score."""
    guesses = {task: np.array([guess(task, row, value) for row in SPLITS["search"]]) for task in ("sst", "qqp", "sts")}
    sst = np.full((len(guesses["sst"]), 5), 0.1, np.float16)
    sst[np.arange(len(sst)), guesses["sst"].astype(int)] = 0.6
    qqp, sts = (0.2 + 0.6 * guesses["qqp"]).astype(np.float16), guesses["sts"].astype(np.float32)
    return {"sst": sst, "qqp": qqp, "sts": sts}


def ready(job: Job, folder: Any) -> None:
    rows = [
        {"task": task, "split": split, "row": row, "id": f"{task}{row}", "place": place,
         "label": None if split == "test" else float(label(task, row))}
        for task in ("sst", "qqp", "sts")
        for split, numbers in SPLITS.items()
        for place, row in enumerate(numbers)
    ]  # fmt: skip
    folder.write_table("examples", rows, "fake")


def train(job: Job, assignment: Assignment, should_pause: Callable[[], bool]) -> Iterator[Report]:
    sweep = Path(job.folder)
    fault = _read(sweep / "faults.json", {}).get(str(assignment.trial), {})
    if assignment.attempt not in fault.get("attempts", range(9)):
        fault = {}
    seconds = _read(sweep / "slow.json", 0.0)
    at = _newest(_checkpoints(job, assignment.trial))
    _note(sweep, f"{assignment.trial} {assignment.attempt} {at} {os.getpid()}")
    if _read(sweep / "broken.json", None) == os.environ.get("CUDA_VISIBLE_DEVICES", "none"):
        _fail("device")
    print(f"training trial {assignment.trial} from {at}")
    before = 0
    for index, milestone in enumerate(job.milestones):
        if milestone < at:
            before = milestone
            continue
        for step in range(STEPS):
            examples = before + (milestone - before) * (step + 1) // STEPS
            if examples <= at:
                continue
            fails = step == STEPS - 1 and fault.get("at") == index
            while fails and fault["kind"] == "wait" and not should_pause():
                time.sleep(0.05)
            if should_pause():
                yield _report(job, assignment, before, at, paused=True)
                return
            if fails:
                _fail(fault["kind"])
            time.sleep(seconds)
            at = examples
        diverged = fault.get("kind") == "diverge" and fault["at"] == index
        yield _report(job, assignment, milestone, milestone, diverged=diverged)
        if diverged:
            return
        before = milestone


def predict(job: Job, checkpoint: Path, part: str) -> Iterator[tuple[str, str, Prediction]]:
    values = json.loads((checkpoint / "done.json").read_text())
    sweep = Path(job.folder)
    (sweep / "predicting").touch()
    time.sleep(_read(sweep / "slow_predictions.json", 0.0))
    for task in ("sst", "qqp", "sts"):
        for split in {"held": ("held",), "dev": ("search",), "test": ("test",)}[part]:
            rows = np.sort(SPLITS[split])
            guesses = np.array([guess(task, row, values["overall"]) for row in rows])
            classes = {"sst": 5, "qqp": 2}.get(task)
            chances = None if classes is None else np.eye(classes)[guesses.astype(int)]
            yield task, split, Prediction(rows, guesses.astype(float), chances)


def _fail(kind: str) -> None:
    """Make a fault happen."""
    if kind == "raise":
        raise ValueError("a fault from the script")
    if kind == "refuse":
        raise ConfigError("a refusal from the script")
    if kind == "device":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoints")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        raise SystemExit(3)
    if kind == "memory":
        arrays = []
        while True:
            arrays.append(np.empty(2**26, np.float64))  # 512 MiB, mapped but never touched
    if kind == "hang":
        time.sleep(3600)


def _report(job: Job, assignment: Assignment, step: int, examples: int, **marks: bool) -> Report:
    value = score(assignment.config, examples, job.milestones[-1])
    if any(marks.values()):
        value = math.nan
    values: dict[str, Any] = {
        "step": step,
        "examples": examples,
        "scores": {} if math.isnan(value) else {"sst": value, "sts": value / 2},
        "overall": value,
        "losses": {"sst": 1 - value},
        "seconds": 0.1,
        "evaluation_seconds": 0.01,
        "flags": ["constant:sts"],
        "trainable_parameters": 10,
        "total_parameters": 20,
        "peak_memory_bytes": 1000,
        "examples_per_task": {"sst": examples},
        "diverged": False,
        "paused": False,
    }
    values |= marks
    if not marks.get("diverged"):
        path = _checkpoints(job, assignment.trial) / f"{assignment.attempt}-{examples}"
        path.mkdir(parents=True, exist_ok=True)
        values |= {"checkpoint": str(path), "checkpoint_bytes": 2, "checkpoint_sha256": "00"}
        (path / "done.json").write_text(json.dumps(values))
    return Report(values, {} if any(marks.values()) else evidence(value))


def _checkpoints(job: Job, trial: int) -> Path:
    return Path(job.checkpoints(trial).path)


def _newest(folder: Path) -> int:
    """Number of examples at the newest complete checkpoint; 0 without one."""
    return max((int(path.parent.name.split("-")[1]) for path in folder.glob("*/done.json")), default=0)


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default


def _note(sweep: Path, line: str) -> None:
    with (sweep / "calls.log").open("a") as file:
        file.write(line + "\n")

"""Rows, sweeps and predictions that the tests of the store share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from results.scoring import Scoring
from results.store import Store, SweepFolder, Writer
from results.tasks import tasks_of

TASKS = {
    "colour": {"kind": "classification", "classes": 3, "metric": "accuracy", "weight": 1.0},
    "length": {"kind": "regression", "classes": 1, "metric": "pearson", "weight": 2.0},
}
META: dict[str, Any] = {
    "tasks": TASKS, "seed": 7, "trials": 3, "budget": 300, "milestones": [100, 300], "created": 0.0,
    "scheduler": {"name": "asha", "eta": 3}, "data": {"folder": None, "fingerprint": "f"},
}  # fmt: skip


def score(metric: str, predictions: Any, labels: Any) -> float:
    if metric == "accuracy":
        return float(np.mean(predictions == labels))
    if np.std(predictions) == 0 or np.std(labels) == 0:
        return 0.0
    return float(np.corrcoef(predictions, labels)[0, 1])


def overall(scores: Any, metrics: Any, weights: Any) -> float:
    parts = {task: value if metrics[task] == "accuracy" else (1 + value) / 2 for task, value in scores.items()}
    return sum(weights[task] * part for task, part in parts.items()) / sum(weights[task] for task in parts)


SCORING = Scoring.of(tasks_of(META), score, overall)


def sweep(path: Path, name: str = "one") -> SweepFolder:
    return Store(path / "runs").create(name, META)


def start(trial: int, attempt: int = 0, **more: Any) -> dict[str, Any]:
    return {"trial": trial, "attempt": attempt, "event": "start", "config": {"trial": trial}, "params": {}, **more}


def end(trial: int, state: str, attempt: int = 0, **more: Any) -> dict[str, Any]:
    return {"trial": trial, "attempt": attempt, "event": "end", "state": state, **more}


def report(trial: int, step: int, value: float, attempt: int = 0, **more: Any) -> dict[str, Any]:
    scores = {"colour": value, "length": value / 2}
    return {
        "trial": trial,
        "attempt": attempt,
        "step": step,
        "examples": step + 1,
        "overall": value,
        "diverged": math.isnan(value),
        "scores": scores,
        **more,
    }


def fill(writer: Writer, count: int, first: int = 0) -> list[int]:
    """Append rows of `count` trials, each row in a commit of its own: many small files. Returns their seqs."""
    seqs = []
    for trial in range(first, first + count):
        seqs.append(writer.append("trials", start(trial)))
        writer.barrier()
        seqs.append(writer.append("reports", report(trial, 100, 0.5)))
        writer.barrier()
    return seqs


def seqs(folder: SweepFolder) -> list[int]:
    return [row["seq"] for row in folder.events()]


def predict(folder: SweepFolder, qualities: list[float], rows: int = 60, attempt: int = 0) -> None:
    """Write labels, and the predictions of one trial for each quality in [0, 1] (1: always right)."""
    generator = np.random.default_rng(0)
    truth = {"colour": generator.integers(0, 3, rows).astype(float), "length": generator.uniform(0, 5, rows)}
    split = ["search" if row % 2 else "held" for row in range(rows)]
    examples = [
        {"task": task, "split": split[row], "row": row, "id": f"{task}{row}", "label": float(truth[task][row])}
        for task in TASKS
        for row in reversed(range(rows))
    ]
    tests = [
        {"task": task, "split": "test", "row": row, "id": f"t{row}", "label": None}
        for task in TASKS
        for row in range(5)
    ]
    folder.write_table("examples", examples + tests, "fingerprint")
    for trial, quality in enumerate(qualities):
        out = []
        for example in examples + tests:
            right = generator.random() < quality
            label = example["label"] if example["label"] is not None else 1.0
            if example["task"] == "colour":
                value = float(label) if right else float((label + 1) % 3)
                chances = [0.1, 0.1, 0.1]
                chances[int(value)] = 0.8
            else:
                value, chances = float(label) + (1 - quality) * float(generator.normal(0, 3)), None
            place = {name: example[name] for name in ("task", "split", "row")}
            out.append({"trial": trial, "attempt": attempt, **place, "value": value, "probabilities": chances})
        folder.write_table("predictions", out, f"{trial}-{attempt}")

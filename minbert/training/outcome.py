"""Summary that `python -m minbert train` prints at its end: dev scores, details of the held-out part, cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minbert.data.tokens import Data
from minbert.metrics import details
from minbert.training import checkpoints
from minbert.training.evaluation import Values, judge, predict_dev, scored_rows, with_labels
from minbert.training.predict import load_model
from minbert.training.report import Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PARTS = ("search", "held out", "full dev (selected on)")
"""Names of the scored parts of the dev set; the last part is the other two together, as papers report it."""


def outcome(checkpoint: Path, data: Data) -> dict[str, Any]:
    """Summary of a trial's checkpoint: scores on each of `PARTS`, `details` of the held-out part by task, and `cost`.

    All values are JSON; `outliers` are rows of the dev file.
    """
    model = load_model(checkpoint, data)
    search, held = (with_labels(data, predict_dev(model, data, part)) for part in ("search", "held"))
    summary: dict[str, Any] = {}
    for title, values in zip(PARTS, (search, held, _joined(search, held)), strict=True):
        scores = judge(data.tasks, values)
        summary[title] = {"overall": scores.overall, **scores.tasks}
    summary["details"] = {name: details(task, *held[name]) for name, task in data.tasks.items()}
    for name, measures in summary["details"].items():
        if "outliers" in measures:
            measures["outliers"] = scored_rows(data, name, "held")[measures["outliers"]].tolist()
    report = checkpoints.read_trial(checkpoint)[1]
    return {**summary, "cost": cost(Report.from_dict(report)) if report else {}}


def _joined(first: Values, second: Values) -> Values:
    return {
        name: (np.concatenate([values, second[name][0]]), np.concatenate([labels, second[name][1]]))
        for name, (values, labels) in first.items()
    }


def cost(report: Report) -> dict[str, Any]:
    """Cost of a trial up to a report; `seconds_per_1000` training examples leaves evaluation out."""
    training = report.seconds - report.evaluation_seconds
    return {
        "trainable_parameters": report.trainable_parameters,
        "trainable_share": report.trainable_parameters / report.total_parameters,
        "seconds_per_1000": training / report.examples * 1000 if report.examples else None,
        "stage_seconds": report.stage_seconds,
        "peak_memory_bytes": report.peak_memory_bytes,
        "examples_per_task": report.examples_per_task,
    }


def show(summary: dict[str, Any], title: str, console: Console) -> None:
    """Print the summary of `outcome` as tables."""
    from rich.table import Table

    tasks = list(summary["details"])
    scores = Table(title=f"dev scores of {title}")
    scores.add_column("part")
    for name in ("overall", *tasks):
        scores.add_column(name, justify="right")
    for part in PARTS:
        scores.add_row(part, *(f"{summary[part][name]:.4f}" for name in ("overall", *tasks)))
    console.print(scores)
    detailed = Table(title="held out, in detail")
    for name in ("task", "metric"):
        detailed.add_column(name)
    detailed.add_column("value", justify="right")
    for task, measures in summary["details"].items():
        for metric, value in measures.items():
            if metric != "confusion":
                text = str(len(value)) if metric == "outliers" else f"{value:.4f}"
                detailed.add_row(task, metric.replace("_", " "), text)
    console.print(detailed)
    for task, measures in summary["details"].items():
        if "confusion" in measures:
            console.print(f"{task}, held out: labels down, predictions across")
            console.print(_confusion(measures["confusion"]))
    for line in _cost_lines(summary["cost"]):
        console.print(line, highlight=False)


def _confusion(matrix: list[list[int]]) -> Table:
    from rich.table import Table

    table = Table()
    for name in ("", *map(str, range(len(matrix)))):
        table.add_column(name, justify="right")
    for label, row in enumerate(matrix):
        table.add_row(str(label), *map(str, row))
    return table


def _cost_lines(costs: dict[str, Any]) -> Iterator[str]:
    if not costs:
        return
    yield f"trained: {costs['trainable_parameters']:,} parameters, {costs['trainable_share']:.2%} of the model"
    if costs["seconds_per_1000"] is not None:
        yield f"time: {costs['seconds_per_1000']:.3g} s per 1,000 training examples, evaluation left out"
    if costs["stage_seconds"]:
        yield f"stages before training: {costs['stage_seconds']:,.0f} s, spent once for all trials that share them"
    yield f"memory: {costs['peak_memory_bytes'] / 2**20:,.0f} MiB at most"
    yield "examples: " + ", ".join(f"{count:,} {task}" for task, count in costs["examples_per_task"].items())

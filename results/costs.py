"""What a trial cost up to a report, as the papers tell it: how much of the model is trained, time, memory, rows.

seconds per 1,000 examples = 1000 (seconds - evaluation seconds) / examples

The stages before training are not in it: their result is kept, and costs its seconds once for all trials that share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = ("trainable_parameters", "peak_memory_bytes")
"""Costs that are whole numbers: parameters that training changes; the worker's largest memory so far, in bytes."""
RATES = ("trainable_share", "seconds_per_1000", "stage_seconds")
"""Trainable parameters / all parameters, in [0, 1]; seconds of training, evaluation left out, per 1,000 examples;
seconds of the stages before training."""
EXAMPLES = "examples_"
"""How the columns of training rows used so far begin, one for each task."""


def cost(report: Mapping[str, Any]) -> dict[str, Any]:
    """`COUNTS` and `RATES` of a row of `reports`, and `examples_per_task`; None where the report does not tell."""
    trainable, total = report.get("trainable_parameters"), report.get("total_parameters")
    seconds, examples = report.get("seconds"), report.get("examples")
    training = None if seconds is None else seconds - (report.get("evaluation_seconds") or 0.0)
    return {
        "trainable_parameters": trainable,
        "trainable_share": trainable / total if trainable is not None and total else None,
        "seconds_per_1000": 1000 * training / examples if training is not None and examples else None,
        "stage_seconds": report.get("stage_seconds"),
        "peak_memory_bytes": report.get("peak_memory_bytes"),
        "examples_per_task": dict(report.get("examples_per_task") or {}),
    }


def columns(report: Mapping[str, Any], tasks: list[str]) -> dict[str, Any]:
    """`cost` as the columns of a table: `examples_<task>` instead of `examples_per_task`."""
    found = cost(report)
    used = found.pop("examples_per_task")
    return {**found, **{EXAMPLES + task: used.get(task) for task in tasks}}

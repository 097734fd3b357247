"""Costs of a trial up to a report, in the papers' measures: share of trained parameters, time, memory, training rows.

seconds per 1,000 examples = 1000 (seconds - evaluation seconds) / examples

The stages before training are not included. Their result is cached: its seconds are spent once for all trials that
share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = ("trainable_parameters", "peak_memory_bytes")
"""Costs that are integers: parameters that training changes; the worker's peak memory so far, in bytes."""
RATES = ("trainable_share", "seconds_per_1000", "stage_seconds")
"""Costs that are real numbers: trainable parameters / all parameters, in [0, 1]; seconds of training without evaluation
per 1,000 examples; seconds of the stages before training."""
EXAMPLES = "examples_"
"""Prefix of the columns that count the training rows used so far, one column for each task."""


def cost(report: Mapping[str, Any]) -> dict[str, Any]:
    """Costs in a row of `reports`: `COUNTS`, `RATES` and `examples_per_task`; None for what the row does not hold."""
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
    """The costs as columns of a table: `examples_<task>` instead of `examples_per_task`."""
    values = cost(report)
    examples = values.pop("examples_per_task")
    return {**values, **{EXAMPLES + task: examples.get(task) for task in tasks}}

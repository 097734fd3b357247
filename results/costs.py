"""Costs of a trial up to a report, in the papers' measures: share of trained parameters, time, memory, training rows.

seconds per 1,000 examples = 1000 (seconds - evaluation seconds) / examples

The stages before training are not included. Their result is cached: its seconds are spent once for all trials that
share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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


def columns(reports: pa.Table, tasks: list[str]) -> dict[str, pa.ChunkedArray]:
    """`cost` of every row of `reports`, as columns of a table: `examples_<task>` instead of `examples_per_task`."""
    trainable, total, examples = (
        reports[name].cast(pa.float64()) for name in ("trainable_parameters", "total_parameters", "examples")
    )
    training = pc.subtract(reports["seconds"], pc.fill_null(reports["evaluation_seconds"], 0.0))
    return {
        "trainable_parameters": reports["trainable_parameters"],
        "trainable_share": pc.divide(trainable, _positive(total)),
        "seconds_per_1000": pc.divide(pc.multiply(training, 1000.0), _positive(examples)),
        "stage_seconds": reports["stage_seconds"],
        "peak_memory_bytes": reports["peak_memory_bytes"],
        **{EXAMPLES + task: pc.map_lookup(reports["examples_per_task"], pa.scalar(task), "first") for task in tasks},
    }


def _positive(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values, zeros as nulls."""
    return pc.if_else(pc.equal(values, 0.0), pa.scalar(None, values.type), values)

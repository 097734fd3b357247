"""Tasks of a sweep, read from its `sweep.json`. The package interprets no other part of that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from results.files import StoreError


@dataclass(frozen=True)
class Task:
    """One task: what is needed to score its predictions."""

    kind: str
    """`classification` or `regression`."""
    metric: str
    """Name of the metric; the functions given to `results.scoring` know it."""
    weight: float
    """Weight of the task's score in `overall`."""


def tasks_of(description: Mapping[str, Any]) -> dict[str, Task]:
    """The tasks by name, in the order of the declaration. Raises StoreError for a missing or wrong entry."""
    declared = description.get("tasks")
    if not isinstance(declared, Mapping) or not declared:
        raise StoreError(f"`tasks` of sweep.json must name each task's kind, metric and weight; found {declared!r}.")
    return {name: _task(name, values) for name, values in declared.items()}


def _task(name: str, values: Any) -> Task:
    entry = values if isinstance(values, Mapping) else {}
    kind, metric, weight = (entry.get(field) for field in ("kind", "metric", "weight"))
    if not (isinstance(kind, str) and isinstance(metric, str) and isinstance(weight, int | float)):
        raise StoreError(f"`tasks.{name}` of sweep.json must have a kind, a metric and a weight; found {values!r}.")
    return Task(kind, metric, float(weight))

"""The tasks of a sweep, as its `sweep.json` declares them: all that this package reads of that file by meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from results.files import StoreError


@dataclass(frozen=True)
class Task:
    """What scoring a task's predictions needs."""

    kind: str
    """`classification` or `regression`."""
    metric: str
    """Name of the metric, for the functions that `results.scoring` is given."""
    weight: float
    """Weight of the task's score in `overall`."""


def tasks_of(description: Mapping[str, Any]) -> dict[str, Task]:
    """The tasks by name, in the order of the declaration; StoreError names what is missing or wrong."""
    declared = description.get("tasks")
    if not isinstance(declared, Mapping) or not declared:
        raise StoreError(f"`tasks` of sweep.json must name each task's kind, metric and weight; found {declared!r}.")
    return {name: _task(name, values) for name, values in declared.items()}


def _task(name: str, values: Any) -> Task:
    known = values if isinstance(values, Mapping) else {}
    kind, metric, weight = (known.get(field) for field in ("kind", "metric", "weight"))
    if not (isinstance(kind, str) and isinstance(metric, str) and isinstance(weight, int | float)):
        raise StoreError(f"`tasks.{name}` of sweep.json must have a kind, a metric and a weight; found {values!r}.")
    return Task(kind, metric, float(weight))
